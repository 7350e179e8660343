"""New lines as they come: a page of the latest, and a stream of server-sent events that adds to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from tokgate.review.tabular import plain
from tokgate.review.templating import visible
from tokgate.review.web import questions
from tokgate.review.web.look import Look
from tokgate.review.web.pages import CHOSEN
from tokgate.review.web.site import Site, look_of

LATEST: Final = 50
MAX_STREAMS: Final = 32
POLL_SECONDS: Final = 1.0
_BATCH: Final = 200
_QUIET_SECONDS: Final = 15.0
"""After so long without a line a comment shows both ends that the other is there."""
_RETRY: Final = b"retry: 3000\n\n"


class Live:
    """The handlers of the live page."""

    def __init__(self, site: Site, clock: Callable[[], float]) -> None:
        """`clock` counts seconds."""
        self._site: Final = site
        self._clock: Final = clock
        self._streams = 0
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams, so that the server can."""
        self._closing.set()

    async def page(self, request: Request) -> Response:
        """The latest lines, newest first; new ones appear on top where scripts run."""
        look, problems = _timeless(request)
        self._site.record(request, "live", look.parameters)
        last = await self._site.desk.ask(questions.last_line)
        rows = await self._site.desk.ask(questions.newest, replace(look, upto=last), LATEST)
        offered = {facet: await self._site.desk.ask(questions.choices, facet) for facet in CHOSEN}
        return self._site.page(
            request, "live.html", here="/live", look=look, problems=problems, rows=rows, last=last,
            offered=offered, periods=None,
        )  # fmt: skip

    async def stream(self, request: Request) -> Response:
        """Lines after the one that the reader has seen last."""
        look, _ = _timeless(request)
        seen = request.headers.get("last-event-id") or request.query_params.get("after", "")
        if self._streams >= MAX_STREAMS:
            return PlainTextResponse("Too many people follow the log.\n", 503)
        self._site.record(request, "live stream", look.parameters)
        last = int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 16 else None
        return StreamingResponse(
            self._lines(request, look, last), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _lines(self, request: Request, look: Look, last: int | None) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            yield _RETRY
            if last is None:
                last = await self._site.desk.ask_afresh(questions.last_line)
            heard = self._clock()
            while not await request.is_disconnected() and self._may_go_on(request):
                rows = await self._site.desk.ask_afresh(questions.after, look, last, _BATCH)
                for row in rows:
                    last = row["n"]
                    heard = self._clock()
                    yield _event(row)
                if self._clock() - heard > _QUIET_SECONDS:
                    heard = self._clock()
                    yield b": nothing new\n\n"
                if len(rows) < _BATCH and await self._closed_within(POLL_SECONDS):
                    return
        finally:
            self._streams -= 1

    def _may_go_on(self, request: Request) -> bool:
        """Whether the session goes on. Following by itself does not keep it alive: see `Sessions`."""
        return not self._closing.is_set() and self._site.still(request)

    async def _closed_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return False
        return True


def _timeless(request: Request) -> tuple[Look, dict[str, str]]:
    """What is followed has no end, and begins now."""
    look, problems = look_of(request)
    return replace(look.during(None, None), upto=None), problems


def _event(row: dict[str, Any]) -> bytes:
    """JSON has no line breaks of its own, so that one line is enough."""
    plainly = {key: plain(value) for key, value in row.items() if value is not None}
    said = {key: visible(value) if isinstance(value, str) else value for key, value in plainly.items()}
    return f"id: {row['n']}\ndata: {json.dumps(said)}\n\n".encode()
