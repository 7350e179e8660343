"""A review page over a small log, as a browser on the same machine sees it."""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from starlette.testclient import TestClient

from labs.logs import refusal, repeats, write
from labs.records import Monotonic
from labs.samples import NOON, OBSERVER
from tokgate.accounts.htpasswd import Htpasswd
from tokgate.analytics import index as index_module
from tokgate.analytics.index import Index
from tokgate.analytics.report.report_data import BanPhases, PhaseSpan
from tokgate.blocklog.read.reader import Line
from tokgate.webui.app import build
from tokgate.webui.audit_log import AuditLog
from tokgate.webui.auth import Authenticator, IPNetwork, LinkAuthenticator, PasswordAuthenticator, Sessions
from tokgate.webui.context import Devices, Explanation, Site
from tokgate.webui.queries import QueryCache

BASE = "http://127.0.0.1:8090"
COOKIE = "tokgate-8090"


class NoPolicies:
    """Says of every line that it can't say anything."""

    def explain(self, line: Line) -> Explanation:
        """A warning with what the line is about, as hostile as that is."""
        return Explanation(warnings=(f"no policies for {line.record.get('message')}",))

    def lanes(self, start: datetime, end: datetime, bans: frozenset[str]) -> tuple[list[BanPhases], str]:
        """One ban, all the time."""
        return [BanPhases("ban", "The ban", (PhaseSpan("block", start, end),))], "as this test says"

    def now(self) -> tuple[str, ...]:
        """One ban, as hostile as its title may be."""
        return ("1 ban is in force", "block: <b>The ban</b> [ban] for office")

    def devices(self, clients: Collection[str]) -> Devices:
        """One device of the inventory, and one zone."""
        return Devices({"192.0.2.9": "Desk 9"}, ("Europe/Brussels",))


@dataclass
class Page:
    """What a test needs of a page."""

    log: Path
    client: TestClient
    authenticator: Authenticator
    clock: Monotonic
    told: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def sign_in(self) -> None:
        """Open the link."""
        answer = self.client.get(f"/enter?token={self.tokens[-1]}")
        assert answer.status_code == 200

    def get(self, url: str, **headers: str) -> Any:
        """As a browser asks from the page itself."""
        return self.client.get(url, headers={"Sec-Fetch-Site": "same-origin", **headers})


def numbered(number: int, client: str = "192.0.2.7", moment: str = "2023-03-10T11:00:00Z") -> dict[str, Any]:
    """A refusal with an id of its own."""
    made = refusal(client, moment)
    made["event"]["id"] = f"01862000-0000-7000-8000-{number:012x}"
    return made


def sample() -> list[dict[str, Any]]:
    """Three clients over three days: eleven events in eight lines about traffic."""
    warned = numbered(6, "192.0.2.9", "2023-03-11T09:00:00Z")
    warned["event"]["action"] = "connection-warned"
    warned["tokgate"] |= {"verdict": "warn", "network": "lab"}
    return [
        *(numbered(n, "192.0.2.7", f"2023-03-10T1{n}:00:00Z") for n in range(1, 5)),
        repeats(4, "2023-03-10T14:00:10Z", "2023-03-10T14:00:50Z", "192.0.2.7"),
        numbered(5, "2001:db8:1::7", "2023-03-11T08:00:00Z"),
        warned,
        numbered(7, "192.0.2.7", "2023-03-12T23:59:59.999999Z"),
    ]


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is to read is looked up each time, and no file is old enough to be over."""
    monkeypatch.setattr(index_module, "_LOOK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(index_module, "time", lambda: 1000.0)


type OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(tmp_path: Path) -> OpenPage:
    """Open pages, with any authenticator, over any records."""

    @contextmanager
    def opened(
        records: list[dict[str, Any] | bytes] | None = None,
        authenticator: Callable[[Sessions, Monotonic], Authenticator] | None = None,
        access_log: Path | None = None,
        secure: bool = False,
        peer: str = "127.0.0.1",
        hosts: tuple[str, ...] = ("127.0.0.1:8090",),
        proxies: tuple[IPNetwork, ...] = (),
    ) -> Iterator[Page]:
        log = tmp_path / "block.ndjson"
        write(log, sample() if records is None else records)
        clock = Monotonic()
        told: list[str] = []
        tokens: list[str] = []
        sessions = Sessions(clock)
        chosen = (
            LinkAuthenticator(sessions, "alice", tokens.append)
            if authenticator is None
            else authenticator(sessions, clock)
        )
        audit_log = AuditLog(OBSERVER, lambda: NOON, told.append, access_log)
        with closing(Index([log])) as index:
            site = Site(QueryCache(index), chosen, audit_log, NoPolicies(), COOKIE, secure)
            app, _ = build(site, hosts=hosts, clock=clock, proxies=proxies)
            with TestClient(app, base_url=BASE, client=(peer, 50000), follow_redirects=False) as client:
                yield Page(log, client, chosen, clock, told, tokens)

    return opened


def hashed(password: str) -> str:
    """A hash as `htpasswd -B` writes it, as quick as can be."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """Two users."""
    path = tmp_path / "users.htpasswd"
    path.write_text(f"# analysts\nalice:{hashed('correct horse')}\n\nbob:{hashed('x' * 72)}\n")
    return path


def passwords(users: Path) -> Callable[[Sessions, Monotonic], Authenticator]:
    """An authenticator for the users of a file."""
    return lambda sessions, clock: PasswordAuthenticator(sessions, Htpasswd(users), clock)


@pytest.fixture
def page(open_page: OpenPage) -> Iterator[Page]:
    """The usual page, signed in."""
    with open_page() as opened:
        opened.sign_in()
        yield opened
