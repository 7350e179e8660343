"""The review page in a real browser: by pointer and keyboard, with scripts and without, while the log is written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trustme

from labs.builders import at, present
from labs.command_line import POLICY
from labs.devtools import Tab, tab
from labs.requirements import needs
from labs.samples import OBSERVER, judged, seen
from labs.waiting import until
from labs.web_server import served as web_served
from labs.web_server import web_server
from tokgate.blocklog.records.record import Stamp
from tokgate.blocklog.records.traffic import traffic_record
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.writer import LogWriter
from tokgate.config.loader import load
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Endpoint, Stage
from tokgate.policy.snapshot import Snapshot, compile_policy

AXE = (files("axe_core_python") / "axe.min.js").read_text("utf-8")
SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"width": 1280, "height": 900},
    "dark": {"width": 1280, "height": 900, "dark": True},
    "phone": {"width": 390, "height": 844, "mobile": True},
}
pytestmark = needs("chromium")
HOSTILE = "<img src=x onerror=document.title='owned'>.clips.example.org"


@dataclass
class Served:
    """A running `tokgate review`, and the log that it shows."""

    link: str
    errors: Path
    log: Path
    snapshot: Snapshot
    writer: LogWriter
    number: int = 0

    @property
    def base(self) -> str:
        """Where it is."""
        return self.link.partition("/enter")[0]

    def refuse(self, client: str = "192.0.2.7", name: str | None = None, day: int = 10) -> str:
        """Another refused attempt; returns the event's id."""
        self.number += 1
        stamp = Stamp(f"01862000-0000-7000-8000-{self.number:012x}", at(f"2023-04-{day:02}T11:00:00Z"), OBSERVER)
        observed = seen(Stage.TLS, (Signal.SNI, "www.clips.example.org"), client=Endpoint(client, 51234))
        moment = stamp.at.format_iso()
        record = present(traffic_record(stamp, observed, judged(observed, moment, self.snapshot), self.snapshot))
        if name is not None:  # as another version, or another hand, may have written it
            record["destination"] |= {"domain": name, "registered_domain": name}
        self.writer.put(record)
        assert self.writer.mark().wait(60)
        return stamp.id

    def looks(self) -> list[str]:
        """What was recorded as looks."""
        return re.findall(r"looks at (.*)", self.errors.read_text())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The command as its user starts it, over a log that a writer writes."""
    folder = tmp_path_factory.mktemp("review")
    (folder / "policies").mkdir()
    (folder / "policies/policy.yaml").write_text(POLICY)
    policy = present(load(folder / "policies", at("2023-04-01T00:00:00Z")).policy)
    writer = LogWriter(folder / "block.ndjson", OBSERVER, LogOptions())
    writer.start()
    try:
        with serving(folder, r"open, once: (\S+)") as (link, errors):
            page = Served(link, errors, folder / "block.ndjson", compile_policy(policy), writer)
            for day in range(10, 16):
                page.refuse(f"192.0.2.{day}", day=day)
            page.refuse(name=HOSTILE)
            yield page
    finally:
        writer.close(60)


@contextlib.contextmanager
def serving(folder: Path, told: str, *options: str) -> Iterator[tuple[str, Path]]:
    """The command over the log of a folder: what it told in a place of its narration, and where it narrates.

    It ends well and leaves nothing, on Ctrl-C as on systemd's signal, which one with options gets.
    """
    errors, temporary = folder / "stderr.txt", folder / "tmp"
    temporary.mkdir()
    with errors.open("wb") as stderr:
        running = subprocess.Popen(
            [sys.executable, "-m", "tokgate", "review", "--listen", "127.0.0.1:0", *options],
            cwd=folder, stderr=stderr, stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "addons"), "TMPDIR": str(temporary)},
        )  # fmt: skip
    try:

        def found() -> re.Match[str] | None:
            assert running.poll() is None, errors.read_text()
            return re.search(told, errors.read_text())

        place = until(f"it tells {told}", found)[1]
        assert list(temporary.iterdir())
        yield place, errors
    finally:
        running.send_signal(signal.SIGTERM if options else signal.SIGINT)
        code = running.wait(30)
    assert (code, list(temporary.iterdir())) == (0, []), errors.read_text()
    assert "Traceback" not in errors.read_text()


@pytest.fixture(scope="module")
def browser(served: Served) -> Iterator[Tab]:
    """A browser in which the printed link was opened."""
    with tab() as opened:
        opened.open(served.link)
        opened.wait("location.pathname === '/'")
        yield opened


@pytest.fixture
def page(browser: Tab) -> Iterator[Tab]:
    """The browser at a desk; whatever a test switched off is on again after it."""
    browser.size(**SIZES["desktop"])
    yield browser
    browser.scripts(allowed=True)
    browser.call("Page.setBypassCSP", enabled=False)


def test_from_a_bar_to_the_reason(page: Tab, served: Served) -> None:
    """The overview's bar leads to its lines, a line to its event, and that shows every step of the decision."""
    page.open(served.base + "/")
    assert "spring-ban" in page.text
    page.follow(".series a")
    assert page.run("location.pathname") == "/lines"
    assert page.run("document.querySelectorAll('table.lines tbody').length") >= 1
    page.run("document.querySelector('table.lines .opens summary').click(); 0")
    assert "tls-handshake-refused" in page.text
    page.follow("table.lines .inside p a")
    for said in ("By the policy that decided it", "1. Client", "in office through 192.0.2.0/24", "counts as block"):
        assert said in page.text
    assert page.complaints() == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/lines",
        "/lines?since=2023-04-10&until=2023-04-16",
        "/live",
        "/table",
        "/table?down=client&across=ban",
        "/event/01862000-0000-7000-8000-000000000001",
        "/sign-in",
    ],
)
@pytest.mark.parametrize("size", SIZES)
def test_everybody_can_use_it(page: Tab, served: Served, artifacts: Path, path: str, size: str) -> None:
    """axe finds nothing, in the light, in the dark and on a phone, and nothing is wider than the window."""
    page.size(**SIZES[size])
    page.open(served.base + path)
    assert page.complaints() == []
    page.picture(artifacts / f"review-{re.split('[/?]', path)[1] or 'overview'}-{size}.png")
    # A phone zooms out until all of a page that is too wide can be seen: innerWidth is then the page's.
    assert page.run("Math.max(innerWidth, document.documentElement.scrollWidth)") == SIZES[size]["width"]
    page.call("Page.setBypassCSP", enabled=True)  # the page's own policy lets nothing be put into it
    page.open(served.base + path)
    page.run(f"{AXE};0")
    found = page.run("axe.run().then(said => said.violations.map(v => v.id + ': ' + v.nodes[0].html))")
    assert found == []


def test_axe_would_find_something(page: Tab, served: Served) -> None:
    """The control: a field without a label and a table without headings are found."""
    page.call("Page.setBypassCSP", enabled=True)
    page.open(served.base + "/")
    page.run("document.querySelector('label[for=verdict]').remove();0")
    page.run(f"{AXE};0")
    assert "select-name" in page.run("axe.run().then(said => said.violations.map(v => v.id))")


def test_lines_on_a_phone(page: Tab, served: Served) -> None:
    """A record takes three lines of text at most, ten are on a screen, and filters are folded."""
    page.size(**SIZES["phone"])
    page.open(served.base + "/lines")
    top, *heights = page.run(
        "(rows => [rows[0].top, ...rows.map(row => row.height)])"
        "([...document.querySelectorAll('table.lines tbody')].map(row => row.getBoundingClientRect()))"
    )
    line = page.run("parseFloat(getComputedStyle(document.querySelector('table.lines td')).lineHeight)")
    assert len(heights) >= 7
    assert max(heights) <= 3 * line
    assert (SIZES["phone"]["height"] - top) // max(heights) >= 10
    shown = "getComputedStyle(document.querySelector('.filters .row')).display"
    assert page.run(shown) == "none"
    page.run("document.querySelector('label.fold').click(); 0")
    assert page.run(shown) == "flex"
    page.size(**SIZES["desktop"])
    page.open(served.base + "/lines")
    assert page.run(shown) == "flex", "the control: at a desk they are there"


def test_by_keyboard(page: Tab, served: Served) -> None:
    """Tab goes to the skip link, then through navigation to the filters; what has the focus can be seen."""
    page.open(served.base + "/")
    page.press("Tab", 9)
    assert page.run("document.activeElement.className") == "skip"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    reached = []
    for _ in range(12):
        page.press("Tab", 9)
        reached.append(page.run("document.activeElement.textContent.trim() || document.activeElement.id"))
    assert reached[:6] == ["Overview", "Lines", "Table", "Requests", "Live", "Saved views"]
    assert "client" in reached
    assert page.run("[...document.querySelectorAll('[aria-hidden=true] a')].every(link => link.tabIndex === -1)")


def test_what_is_heard(page: Tab, served: Served) -> None:
    """The accessibility tree has the landmarks, one heading of the first level, and named tables."""
    page.open(served.base + "/lines")
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    said = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    for landmark in (("banner", ""), ("main", ""), ("contentinfo", ""), ("navigation", "Pages"), ("search", "Filters")):
        assert landmark in said
    assert next(name for role, name in said if role == "heading") == "Lines"
    assert any(role == "table" and name.startswith("Lines of the log") for role, name in said)
    assert ("combobox", "Name") in said


def test_without_scripts(page: Tab, served: Served) -> None:
    """Filters, charts, paging and the latest lines need none."""
    page.scripts(allowed=False)
    page.open(served.base + "/live")
    assert page.run("document.querySelectorAll('#lines tbody').length") >= 7
    assert page.run("document.getElementById('pause').hidden")
    page.follow("#follow-state a")
    assert page.run("document.getElementById('follow-state').textContent") == "The latest lines. Look again"
    page.open(served.base + "/")
    page.run("document.querySelector('#client').value = '192.0.2.12'; 0")
    page.follow(".filters button")
    assert "client=192.0.2.12" in page.run("location.search")
    page.follow(".series a")
    assert page.run("document.querySelectorAll('table.lines tbody').length") == 1
    page.run("document.querySelector('table.lines .opens summary').click(); 0")
    page.follow("table.lines .inside p a")
    assert "1. Client" in page.text


def test_the_chart_narrows_the_period(page: Tab, served: Served) -> None:
    """What is pointed at is said; drawing from one bar to another shows that time alone."""
    page.open(served.base + "/")
    figure = "Number(document.querySelector('.figures a').textContent)"
    every = page.run(figure)
    spots = page.run(
        "(() => {const bars = [...document.querySelectorAll('.series rect')].map(bar => bar.getBoundingClientRect());"
        "return bars.slice(0, 2).map(box => [box.x + box.width / 2, box.y + box.height / 2])})()"
    )
    for kind, (x, y) in zip(
        ("mouseMoved", "mousePressed", "mouseMoved", "mouseReleased"), [*spots[:1] * 2, *spots[1:] * 2], strict=True
    ):
        if kind == "mousePressed":
            assert "blocked" in page.run("document.getElementById('pointed').textContent")
        if kind == "mouseReleased":
            with page.leaving():
                page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        else:
            page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    assert page.run("location.pathname") == "/"
    assert "since=2023-04-10T11%3A00&until=2023-04-11T12%3A00" in page.run("location.search")
    assert 3 <= page.run(figure) < every
    assert page.complaints() == []


def test_views_are_saved(page: Tab, served: Served) -> None:
    """Under a name, in this browser, until they are forgotten."""
    page.open(served.base + "/lines?client=192.0.2.12&column=ban")
    page.run("document.querySelector('#views summary').click(); 0")
    page.run("document.getElementById('view-name').value = 'Desk 12'; 0")
    page.run("document.querySelector('#save button').click(); 0")
    page.open(served.base + "/")
    page.run("document.querySelector('#views summary').click(); 0")
    page.follow("#saved a")
    assert page.run("location.pathname + location.search") == "/lines?client=192.0.2.12&column=ban"
    page.run("document.querySelector('#views summary').click(); 0")
    page.run("document.querySelector('#saved button').click(); 0")
    assert page.run("document.querySelectorAll('#saved li').length") == 0
    assert page.complaints() == []


def test_a_value_is_left_out(page: Tab, served: Served) -> None:
    """By the minus beside it, on any page; what is left out is shown and can be taken back."""
    page.open(served.base + "/lines?client=192.0.2.0/24")
    every = page.run("document.querySelectorAll('table.lines tbody').length")
    page.follow("table.lines .c-client .not")
    assert page.run("document.querySelectorAll('table.lines tbody').length") < every
    page.follow(".chosen .not a")
    assert page.run("document.querySelectorAll('table.lines tbody').length") == every


def test_new_lines_appear(page: Tab, served: Served) -> None:
    """By themselves, on top, over a rotation, politely told; paused they wait. Names of attackers stay text."""
    page.open(served.base + "/live")
    page.wait("document.getElementById('follow-state').textContent === 'Following'")
    top = "document.querySelector('#lines tbody a').getAttribute('href')"
    event = served.refuse("192.0.2.30")
    page.wait(f"{top} === '/event/{event}'")
    served.log.rename(served.log.with_name("block-20230420T110000.000000Z.ndjson"))
    event = served.refuse("192.0.2.31", name=HOSTILE)
    page.wait(f"{top} === '/event/{event}'")
    assert page.run("document.querySelector('#lines tbody .c-name').textContent.trim()") == HOSTILE
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.getElementById('follow-state').getAttribute('role')") == "status"
    page.wait("document.getElementById('follow-state').textContent.includes('new line')")
    page.run("document.getElementById('pause').click(); 0")
    waiting = served.refuse("192.0.2.32")
    page.wait("document.getElementById('follow-state').textContent === 'Paused; 1 lines wait'")
    assert page.run(top) == f"/event/{event}"
    page.run("document.getElementById('pause').click(); 0")
    page.wait(f"{top} === '/event/{waiting}'")
    assert page.complaints() == []


@contextlib.contextmanager
def another_site() -> Iterator[str]:
    """A page of somebody else on this machine."""

    with web_served(web_server(b"<!doctype html><title>evil</title>", "text/html")) as port:
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_another_site_gets_nothing(page: Tab, served: Served, name: str) -> None:
    """Not even one on the same address, to which browsers send the cookie; and no look is made in a user's name."""
    before = len(served.looks())
    with another_site() as place:
        page.open(f"http://{place.replace('127.0.0.1', name)}/")
        url = f"{served.base}/lines.csv"
        for mode in ("cors", "no-cors"):
            answer = page.run(
                f"fetch('{url}', {{mode: '{mode}', credentials: 'include'}}).then(a => a.text()).catch(e => 'refused')"
            )
            assert answer in ("refused", "")
        framed = page.run(
            f"new Promise(done => {{const f = document.createElement('iframe'); f.src = '{served.base}/lines'; "
            "f.onload = () => {try {done(String(f.contentDocument.body.innerText))} catch (e) {done('refused')}}; "
            "document.body.append(f)})"
        )
        assert "192.0.2" not in framed
    assert len(served.looks()) == before
    page.open(served.base + "/lines")
    assert len(served.looks()) == before + 1  # the control: from the page itself it is one


def test_signing_out(page: Tab, served: Served) -> None:
    """Ends the session, and prints a new link, which works."""
    page.open(served.base + "/")
    page.follow(".who button")
    page.open(served.base + "/lines")
    assert page.run("location.pathname") == "/sign-in"
    (_, link) = re.findall(r"http://\S+/enter\S+", served.errors.read_text())
    page.open(link)
    page.wait("location.pathname === '/'")


def test_a_team_with_passwords(tmp_path: Path, artifacts: Path) -> None:
    """Over TLS, by the form: a wrong password is told, the right one leads to what was asked for."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "users").write_bytes(b"alice:" + bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)) + b"\n")
    (tmp_path / "block.ndjson").touch()
    options = ("--htpasswd", "users", "--tls-cert", "cert.pem", "--tls-key", "key.pem", "--access-log", "looks.ndjson")
    with serving(tmp_path, r"tokgate: (https://\S+)", *options) as (url, _), tab("--ignore-certificate-errors") as team:
        team.size(**SIZES["desktop"])
        team.open(f"{url}lines?ban=x")
        assert team.run("location.pathname") == "/sign-in"
        team.picture(artifacts / "review-sign-in.png")
        for password in ("wrong", "correct horse"):
            team.run("document.querySelector('#user').value = 'alice'; 0")
            team.run(f"document.querySelector('#password').value = '{password}'; 0")
            team.follow(".narrow button")
            assert ("The name or the password is wrong" in team.text) == (password == "wrong")
        assert team.run("location.pathname + location.search") == "/lines?ban=x"
        (cookie,) = team.call("Network.getCookies")["cookies"]
        assert cookie["name"].startswith("__Host-tokgate-")
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
        assert team.run("document.cookie") == ""
    kept = [json.loads(line) for line in (tmp_path / "looks.ndjson").read_text().splitlines()]
    assert [(one["event"]["action"], one["event"].get("outcome")) for one in kept] == [
        ("review-sign-in", "failure"), ("review-sign-in", "success"), ("log-reviewed", None),
    ]  # fmt: skip
    assert {one["user"]["name"] for one in kept} == {"alice"}
