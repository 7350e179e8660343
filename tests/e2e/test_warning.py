"""A ban that warns with a page: real browsers are warned, click, and then see the origin's own certificate."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from labs.devtools import Tab, tab
from labs.gateway import CARRIERS, Gateway, MakeGateway, Record, office_policy
from labs.netns import Lab, wait_until
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin, fingerprint, to_banned

URL = f"https://{BANNED}/@someone?lang=en"
PATH = "/.tokgate/continue"
NAVIGATES = (
    *("-A", "Mozilla/5.0 (X11; Linux x86_64)", "-H", "Accept: text/html"),
    *("-H", "Sec-Fetch-Mode: navigate", "-H", "Sec-Fetch-Dest: document"),
)
HOSTS = itertools.count(31)
"""Of addresses of clients."""
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


@pytest.fixture(scope="module", params=["mitmproxy", "gates"])
def running(
    request: pytest.FixtureRequest, any_gateway: MakeGateway, constrained_authority: Path, origin: Origin
) -> Iterator[Gateway]:
    """A gateway that warns, mitmproxy alone or many processes."""
    options = ["--confdir", constrained_authority]
    options += ["--workers", "3", "--openers", "2"] if request.param == "gates" else []
    with any_gateway(policy=warning_policy(), options=options, **CARRIERS[request.param]) as gateway:
        yield gateway


@pytest.fixture
def gateway(lab: Lab, running: Gateway) -> Iterator[Gateway]:
    """The same for a client with an address that has not continued yet."""
    running.enforces(warning_policy())
    address, route = f"192.0.2.{next(HOSTS)}", ("ip", "route", "replace", "default", "via", Lab.GATEWAY[4])
    lab.client.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    lab.client.run(*route, "src", address)
    wait_until("nothing is open", lambda: not lab.origin.output("ss", "-Htn", "src", Lab.BANNED[4]))
    yield running
    lab.client.run(*route)
    lab.client.run("ip", "address", "del", f"{address}/24", "dev", "eth0")


def continued(gateway: Gateway) -> int:
    """How often somebody has continued."""
    return [record["event"]["action"] for record in gateway.records()].count("warning-continued")


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


def press(lab: Lab, both: Path, page: str, *options: str, family: int = 4) -> tuple[str, str, str]:
    """Send the page's form, by curl."""
    fields = re.findall(r'name="(token|target)" value="([^"]*)"', page)
    sent = [word for name, value in fields for word in ("--data-urlencode", f"{name}={unescape(value)}")]
    return fetch(lab, both, *sent, *options, url=f"https://{BANNED}{PATH}", family=family)


def warned(passed: str) -> Callable[[Record], bool]:
    """Matches a connection that passed for this reason."""
    return lambda record: record["event"]["action"] == "connection-warned" and record["tokgate"].get("passed") == passed


def test_curl_follows_the_form(lab: Lab, both: Path, gateway: Gateway, family: int) -> None:
    """A client that follows the redirection comes out at the origin by itself, by a new connection."""
    _, page, _ = fetch(lab, both, "--http2", *NAVIGATES, family=family)
    _, body, _ = press(lab, both, page, "--http2", "--location", *NAVIGATES, family=family)
    assert f"origin of {BANNED} over HTTP/2.0" in body


@pytest.fixture
def page(lab: Lab, gateway: Gateway, origin: Origin, constrained_authority: Path) -> Iterator[Tab]:
    """A tab of a browser that trusts the page's authority and the origin's."""
    authorities = (constrained_authority / "root.pem", origin.authority)
    with tab(namespace=lab.client, authorities=authorities) as opened:
        yield opened


def test_chromium_continues(origin: Origin, gateway: Gateway, page: Tab, artifacts: Path) -> None:
    """A person reads the page in their language, clicks, and gets there by the origin's certificate."""
    times = {"warn_from": "2023-03-10", "starts": "2099-01-01T00:00", "last_day": "2099-12-31"}
    gateway.enforces(warning_policy(action="block", **times))
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


def test_chromium_by_keyboard_and_plain_http(gateway: Gateway, page: Tab) -> None:
    """A page of another site can't send the form for its reader, who presses it without a mouse, over http:// too."""
    before = continued(gateway)
    page.open(f"https://{ALLOWED}/")
    page.send_form(f"https://{BANNED}{PATH}", token="0-0", target="/")
    assert (page.status, page.run("location.pathname")) == (403, PATH)
    assert TITLES["en"] in page.text
    page.open(f"http://{BANNED}/a?b=c")
    assert page.status == 403
    assert continued(gateway) == before
    for _ in range(1 + int(page.run("document.querySelectorAll('a').length"))):
        page.press("Tab", 9)
    assert page.run("document.activeElement.tagName") == "BUTTON"
    with page.leaving():
        page.press("Enter", 13, "\r")
    assert (page.status, page.run("location.href")) == (200, f"http://{BANNED}/a?b=c")
    assert f"origin of {BANNED} over HTTP/1.1" in page.text
    wait_until("it is logged", lambda: continued(gateway) == before + 1)


def test_untrusting_chromium_passes(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """A browser without the authority shows a certificate error, if any, until what it says of it has been read."""
    with tab(namespace=lab.client, authorities=(origin.authority,)) as page:
        if error := page.error(f"https://{BANNED}/"):
            assert error == "ERR_CERT_AUTHORITY_INVALID"
            wait_until("that has been read", lambda: not page.error(f"https://{BANNED}/"))
        page.wait(f"document.body.innerText.includes('origin of {BANNED}')")
        gateway.wait_for_record("with a warning", warned("no-page"))


def test_a_restart_remembers(lab: Lab, origin: Origin, both: Path, gateway: Gateway) -> None:
    """Who has continued is not asked again by the next run, nor after a change of the policy."""
    _, page, _ = fetch(lab, both, *NAVIGATES)
    press(lab, both, page)
    gateway.__exit__(None, None, None)
    gateway.write_policy(warning_policy(title="The same under another title"))
    gateway.__enter__()
    assert fetch(lab, both, *NAVIGATES)[2] == origin.fingerprints[BANNED]
    gateway.enforces(warning_policy(title="Yet another"))
    assert fetch(lab, both, *NAVIGATES)[2] == origin.fingerprints[BANNED]
    (kept,) = gateway.folder.glob("*.warned")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "192.0.2." not in kept.read_text()


def test_many_processes_agree(lab: Lab, origin: Origin, both: Path, gateway: Gateway) -> None:
    """The page of one opener is answered to another, and every gate knows at once who has continued."""
    before = continued(gateway)
    pages = [fetch(lab, both, *NAVIGATES)[1] for _ in range(6)]
    assert press(lab, both, pages[0])[0].split()[1] == "303"
    for _ in range(12):
        assert fetch(lab, both, *NAVIGATES)[2] == origin.fingerprints[BANNED]
    for page in pages[1:]:  # where none is opened any more, the origin gets what a page left open still sends
        assert press(lab, both, page)[2] == origin.fingerprints[BANNED]
    for _ in range(6):
        assert "origin of" in fetch(lab, both, *NAVIGATES, url=f"http://{BANNED}/")[1]
    wait_until("it is logged", lambda: continued(gateway) > before)
    assert continued(gateway) == before + 1
