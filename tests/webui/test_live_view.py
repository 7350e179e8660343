"""Following the log: every line once, over rotation, from where a reader left off, until the session ends."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from labs.logs import write
from labs.records import Monotonic
from labs.review_page import COOKIE, NoPolicies, Page, numbered
from labs.samples import NOON, OBSERVER
from labs.waiting import DEADLINE
from tokgate.analytics.index import Index
from tokgate.blocklog.records.record import encode
from tokgate.webui import live_view as module
from tokgate.webui import queries
from tokgate.webui.audit_log import AuditLog
from tokgate.webui.auth import IDLE, LinkAuthenticator, Sessions
from tokgate.webui.context import Site
from tokgate.webui.live_view import Live
from tokgate.webui.queries import QueryCache


class Following:
    """A live page's handlers over a log, and requests as they come to them."""

    def __init__(self, index: Index) -> None:
        self.clock = Monotonic()
        sessions = Sessions(self.clock)
        self.authenticator = LinkAuthenticator(sessions, "alice", lambda _: None)
        self.token = sessions.begin("alice")
        audit_log = AuditLog(OBSERVER, lambda: NOON, lambda _: None)
        site = Site(QueryCache(index), self.authenticator, audit_log, NoPolicies(), COOKIE, False)
        self.live = Live(site, self.clock)
        self.gone = False

    def request(self, query: str = "", **headers: str) -> Request:
        said = {"cookie": f"{COOKIE}={self.token}", **headers}
        scope = {
            "type": "http", "method": "GET", "path": "/live/stream", "query_string": query.encode(),
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in said.items()],
            "state": {"viewer": "alice", "client": "127.0.0.1"},
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            if self.gone:
                return {"type": "http.disconnect"}
            await asyncio.Event().wait()
            raise AssertionError

        return Request(scope, receive)

    async def stream(self, query: str = "", **headers: str) -> AsyncIterator[str]:
        answer: Any = await self.live.stream(self.request(query, **headers))
        async for part in answer.body_iterator:
            yield part.decode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write(tmp_path / "block.ndjson", [numbered(1)])
    return tmp_path / "block.ndjson"


@pytest.fixture
def opened(log: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)

    @asynccontextmanager
    async def follow() -> AsyncIterator[Following]:
        with closing(Index([log])) as index:
            yield Following(index)

    return follow


async def event(stream: AsyncIterator[str]) -> tuple[int, str]:
    """The next line: its number and its event's id."""
    while True:
        part = await asyncio.wait_for(anext(stream), 20)
        if part.startswith("id: "):
            head, data, *_ = part.split("\n")
            return int(head.removeprefix("id: ")), json.loads(data.removeprefix("data: "))["event_id"]


async def test_lines_as_they_come(log: Path, opened: Callable[..., Any]) -> None:
    """Not those that were there; each new one once, also those on both sides of a rotation."""
    async with opened() as following:
        last = await following.live._site.cache.ask(queries.last_line)
        stream = following.stream(f"after={last}")
        assert (await anext(stream)).startswith("retry:")
        with log.open("ab") as writer:
            writer.write(encode(numbered(2)))
            writer.flush()
            seen = [(await event(stream))[1]]
            log.rename(log.with_name("block-20230310T120000.000000Z.ndjson"))
            writer.write(encode(numbered(3)))
        log.write_bytes(encode(numbered(4)))
        seen += sorted([(await event(stream))[1], (await event(stream))[1]])
        assert seen == [numbered(n)["event"]["id"] for n in (2, 3, 4)]
        await stream.aclose()


async def test_forged_names_are_shown_as_they_are_made(log: Path, opened: Callable[..., Any]) -> None:
    """The script sets text as it comes: no character in it turns the order of letters round."""
    async with opened() as following:
        last = await following.live._site.cache.ask(queries.last_line)
        stream = following.stream(f"after={last}")
        forged = numbered(2)
        forged["destination"]["domain"] = "moc.\u202eknalb"
        with log.open("ab") as writer:
            writer.write(encode(forged))
        while not (part := await asyncio.wait_for(anext(stream), 20)).startswith("id: "):
            pass
        assert json.loads(part.split("\n")[1].removeprefix("data: "))["name"] == r"moc.\u202eknalb"
        await stream.aclose()


async def test_a_reader_goes_on_where_it_was(log: Path, opened: Callable[..., Any]) -> None:
    """By the page's number at first, by `Last-Event-ID` after that, and with its filters."""
    write(log, [numbered(1), numbered(2, "192.0.2.8"), numbered(3), numbered(4)])
    async with opened() as following:
        stream = following.stream("after=1&client=192.0.2.7")
        assert [(await event(stream))[0] for _ in range(2)] == [3, 4]
        await stream.aclose()
        again = following.stream("after=1&client=192.0.2.7", last_event_id="3")
        assert (await event(again))[0] == 4
        await again.aclose()


async def test_it_ends(opened: Callable[..., Any]) -> None:
    """With the session, with the reader, and with the server."""

    def leave(following: Following) -> None:
        following.gone = True

    def idle(following: Following) -> None:
        following.clock.now += IDLE + 1

    for end in (idle, lambda f: f.authenticator.leave(f.token), leave, lambda f: f.live.close()):
        async with opened() as following:
            stream = following.stream()
            await anext(stream)
            end(following)
            async with asyncio.timeout(DEADLINE):
                async for _ in stream:
                    pass
            assert following.live._streams == 0


async def test_silence_is_said(log: Path, opened: Callable[..., Any]) -> None:
    """A comment after a quarter of a minute without a line, so that whoever is between keeps the connection."""
    async with opened() as following:
        stream = following.stream("after=1")
        await anext(stream)
        with log.open("ab", buffering=0) as writer:
            writer.write(encode(numbered(2)))
            await event(stream)
            following.clock.now += 15
            writer.write(encode(numbered(3)))
        assert (await asyncio.wait_for(anext(stream), 20)).startswith("id: ")
        following.clock.now += 16
        assert (await asyncio.wait_for(anext(stream), 20)).startswith(": ")
        await stream.aclose()


async def test_there_is_a_limit(opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 1)
    async with opened() as following:
        stream = following.stream()
        await anext(stream)
        assert (await following.live.stream(following.request())).status_code == 503
        await stream.aclose()


def test_the_page_works_without_scripts(page: Page) -> None:
    """It has the latest lines, and a link to look again."""
    text = page.get("/live?verdict=block").text
    assert text.count("/event/") == 7
    assert '<a href="/live?verdict=block">Look again</a>' in text
    assert 'data-stream="/live/stream?verdict=block&amp;after=8"' in text
