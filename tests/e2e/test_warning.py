"""A ban that warns with a page: real browsers are warned, click, and then see the origin's own certificate."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from labs.clients import browser
from labs.devtools import Tab, tab
from labs.gateway import Gateway, Record, office_policy
from labs.netns import Lab
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin, fingerprint, to_banned

URL = f"https://{BANNED}/@someone?lang=en"
PATH = "/.tokgate/continue"
NAVIGATES = (
    *("-A", "Mozilla/5.0 (X11; Linux x86_64)", "-H", "Accept: text/html"),
    *("-H", "Sec-Fetch-Mode: navigate", "-H", "Sec-Fetch-Dest: document"),
)
TITLES = {
    "en": "Before you continue to TikTok",
    "fr": "Avant de continuer vers TikTok",
    "nl": "Voordat u doorgaat naar TikTok",
    "de": "Bevor Sie TikTok öffnen",
}


def warning_policy(**ban: Any) -> dict[str, Any]:
    """The office's ban, which warns with a page."""
    description = "From 2027 on TikTok will be blocked. Please move what you need to another service until then."
    said = {"action": "warn", "response": "page", "continue_for": "PT1H", "description": description}
    return office_policy(**(said | ban))


@pytest.fixture(scope="module")
def both(constrained_authority: Path, origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's authority and the origin's: what a device at work trusts."""
    bundle = tmp_path_factory.mktemp("trust") / "both.pem"
    bundle.write_bytes((constrained_authority / "root.pem").read_bytes() + origin.authority.read_bytes())
    return bundle


@pytest.fixture
def warning_gateway(
    gateway_factory: Callable[..., Gateway], constrained_authority: Path, tmp_path: Path
) -> Callable[..., Gateway]:
    """Gateways that warn, where nobody has continued yet."""

    def make(**ban: Any) -> Gateway:
        options = ["--confdir", constrained_authority]
        return gateway_factory(tmp_path, policy=warning_policy(**ban), options=options)

    return make


def fetch(lab: Lab, both: Path, *options: str, url: str = URL, family: int = 4) -> tuple[str, str, str]:
    """Head, body and certificate of an answer, by curl."""
    done = lab.client.run(
        *("curl", "-sS", "--max-time", "60", "--cacert", str(both), "--include", *options),
        *("--resolve", f"{BANNED}:443:{ADDRESSES[BANNED][family]}", "--resolve", f"{BANNED}:80:{ADDRESSES[BANNED][4]}"),
        *("--write-out", "\n-- certificates --\n%{certs}", url),
    )
    head, _, rest = done.stdout.partition("\r\n\r\n")
    body, _, chain = rest.partition("\n-- certificates --\n")
    return head, body, fingerprint(chain.encode()) if chain.strip() else ""


def press(lab: Lab, both: Path, page: str, *options: str, url: str = f"https://{BANNED}{PATH}") -> tuple[str, str, str]:
    """Send the page's form, by curl."""
    fields = re.findall(r'name="(token|target)" value="([^"]*)"', page)
    sent = [word for name, value in fields for word in ("--data-urlencode", f"{name}={unescape(value)}")]
    return fetch(lab, both, *sent, *options, url=url)


def warned(passed: str) -> Callable[[Record], bool]:
    """Matches a connection that passed for this reason."""
    return lambda record: record["event"]["action"] == "connection-warned" and record["tokgate"].get("passed") == passed


def test_curl_follows_the_form(lab: Lab, origin: Origin, both: Path, warning_gateway: Callable[..., Gateway]) -> None:
    """A client that follows the redirection comes out at the origin by itself, by a new connection."""
    with warning_gateway():
        _, page, _ = fetch(lab, both, "--http2", *NAVIGATES)
        _, body, _ = press(lab, both, page, "--http2", "--location", *NAVIGATES)

    assert f"origin of {BANNED} over HTTP/2.0" in body


@pytest.fixture
def chromium(lab: Lab, origin: Origin, constrained_authority: Path) -> Callable[..., AbstractContextManager[Tab]]:
    """Tabs of browsers that trust the page's authority and the origin's."""

    def make(family: int = 4) -> AbstractContextManager[Tab]:
        places = {name: f"[{a[6]}]" if family == 6 else a[4] for name, a in ADDRESSES.items()}
        rules = ", ".join(f"MAP {name} {place}" for name, place in places.items())
        return tab(
            f"--host-resolver-rules={rules}, MAP * ~NOTFOUND",
            namespace=lab.client,
            authorities=(constrained_authority / "root.pem", origin.authority),
        )

    return make


def test_chromium_continues(
    origin: Origin,
    warning_gateway: Callable[..., Gateway],
    chromium: Callable[..., AbstractContextManager[Tab]],
    artifacts: Path,
    family: int,
) -> None:
    """A person reads the page in their language, clicks, and gets there by the origin's certificate."""
    times = {"warn_from": "2023-03-10", "starts": "2099-01-01T00:00", "last_day": "2099-12-31"}
    with warning_gateway(action="block", **times) as gateway, chromium(family) as page:
        with origin.watch() as seen:
            for language, title in TITLES.items():
                page.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})
                for name, width, dark in (("phone", 360, False), ("desk", 900, False), ("dark", 600, True)):
                    page.size(width, 900, mobile=name == "phone", dark=dark)
                    page.open(URL)
                    assert page.status == 403
                    assert title in page.text
                    assert page.run("document.documentElement.scrollWidth") <= width
                    page.picture(artifacts / f"warning-{language}-{name}.png")
        assert to_banned(seen) == 0  # neither the page nor anything that it would load, such as an icon
        assert page.certificate != origin.fingerprints[BANNED]
        page.click("button")
        assert (page.status, page.run("location.href")) == (200, URL)
        assert f"origin of {BANNED} over HTTP/2.0" in page.text
        assert page.certificate == origin.fingerprints[BANNED]
        gateway.wait_for_record("it is logged", lambda r: r["event"]["action"] == "warning-continued")
        gateway.wait_for_record("what follows is, too", warned("continued"))
        page.open(f"https://{ALLOWED}/")
        assert page.certificate == origin.fingerprints[ALLOWED]


def test_chromium_by_keyboard_and_plain_http(
    warning_gateway: Callable[..., Gateway], chromium: Callable[..., AbstractContextManager[Tab]]
) -> None:
    """The button can be reached and pressed without a mouse; http:// is the same as https://."""
    with warning_gateway() as gateway, chromium() as page:
        page.open(f"http://{BANNED}/a?b=c")
        assert page.status == 403
        for _ in range(1 + int(page.run("document.querySelectorAll('a').length"))):
            page.press("Tab", 9)
        assert page.run("document.activeElement.tagName") == "BUTTON"
        with page.leaving():
            page.press("Enter", 13, "\r")
        assert (page.status, page.run("location.href")) == (200, f"http://{BANNED}/a?b=c")
        assert f"origin of {BANNED} over HTTP/1.1" in page.text
    assert [r["event"]["action"] for r in gateway.records()].count("warning-continued") == 1


def test_another_page_cannot_continue(
    warning_gateway: Callable[..., Gateway], chromium: Callable[..., AbstractContextManager[Tab]]
) -> None:
    """A page of another site can't send the form for its reader."""
    with warning_gateway() as gateway, chromium() as page:
        page.open(f"https://{ALLOWED}/")
        page.send_form(f"https://{BANNED}{PATH}", token="0-0", target="/")
        assert (page.status, page.run("location.pathname")) == (403, PATH)
        assert TITLES["en"] in page.text
        assert "warning-continued" not in [r["event"]["action"] for r in gateway.records()]


def test_untrusting_chromium_passes(lab: Lab, origin: Origin, warning_gateway: Callable[..., Gateway]) -> None:
    """A browser without the authority shows a certificate error at most once: it may have had two connections ready."""
    with warning_gateway() as gateway, browser(lab.client, origin.authority) as browse:
        shown = browse(f"https://{BANNED}/")
        assert shown.text or shown.error == "ERR_CERT_AUTHORITY_INVALID"
        assert f"origin of {BANNED}" in (shown.text or browse(f"https://{BANNED}/").text)
        gateway.wait_for_record("with a warning", warned("no-page"))


def test_a_restart_remembers(lab: Lab, origin: Origin, both: Path, warning_gateway: Callable[..., Gateway]) -> None:
    """Who has continued is not asked again by the next run, nor after a change of the policy."""
    with warning_gateway():
        _, page, _ = fetch(lab, both, *NAVIGATES)
        press(lab, both, page)
    with warning_gateway(title="The same under another title") as gateway:
        assert fetch(lab, both, *NAVIGATES)[2] == origin.fingerprints[BANNED]
        gateway.enforces(warning_policy(title="Yet another"))
        assert fetch(lab, both, *NAVIGATES)[2] == origin.fingerprints[BANNED]
        (kept,) = gateway.folder.glob("*.warned")
        assert kept.stat().st_mode & 0o777 == 0o600
        assert Lab.CLIENT[4] not in kept.read_text()


def test_many_processes_agree(
    lab: Lab,
    origin: Origin,
    both: Path,
    constrained_authority: Path,
    any_gateway: Callable[..., Gateway],
    tmp_path: Path,
) -> None:
    """The page of one opener is answered to another, and every gate knows at once who has continued."""
    options = ["--confdir", constrained_authority, "--workers", "3", "--openers", "2"]
    with any_gateway(tmp_path, policy=warning_policy(), mode="gate:tproxy", options=options) as gateway:
        pages = [fetch(lab, both, *NAVIGATES)[1] for _ in range(6)]
        assert press(lab, both, pages[0])[0].split()[1] == "303"
        for _ in range(12):
            assert fetch(lab, both, *NAVIGATES)[2] == origin.fingerprints[BANNED]
        for page in pages[1:]:  # where none is opened any more, the origin gets what a page left open still sends
            assert press(lab, both, page)[2] == origin.fingerprints[BANNED]
        plain = f"http://{BANNED}/"
        for _ in range(6):
            assert "origin of" in fetch(lab, both, *NAVIGATES, url=plain)[1]
    assert [r["event"]["action"] for r in gateway.records()].count("warning-continued") == 1
