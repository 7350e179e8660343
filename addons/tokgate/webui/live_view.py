"""The live page: the latest lines, and a stream of server-sent events with each new one."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from whenever import Instant

from tokgate.analytics.formats import plain
from tokgate.policy.values.text import escaped
from tokgate.webui import queries
from tokgate.webui.context import CODES, Site, query_of, word
from tokgate.webui.log_query import MAX_DIGITS, LogQuery, Problems, View
from tokgate.webui.views import form

LATEST: Final = 50
MAX_STREAMS: Final = 32
POLL_SECONDS: Final = 1.0
_BATCH: Final = 200
_QUIET_SECONDS: Final = 15.0
"""Seconds without a line after which a comment is sent, so that both ends notice a lost connection."""
_RETRY: Final = b"retry: 3000\n\n"


class Live:
    """Request handlers of the live page and of its event stream."""

    def __init__(self, site: Site, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        self._site: Final = site
        self._clock: Final = clock
        self._streams = 0
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams: an open stream would delay the server's shutdown."""
        self._closing.set()

    async def page(self, request: Request) -> Response:
        """The latest lines, newest first; new ones appear on top where scripts run."""
        query, problems = _timeless(request)
        self._site.record(request, "live", query.parameters)
        last = await self._site.cache.ask(queries.last_line)
        rows = await self._site.cache.ask(queries.newest, replace(query, upto=last), LATEST)
        chosen = await form(self._site, query, [row["client"] for row in rows])
        return self._site.page(
            request, "live.html", here="/live", query=query, problems=problems, rows=rows, last=last,
            **(chosen | {"periods": None}),
        )  # fmt: skip

    async def stream(self, request: Request) -> Response:
        """`text/event-stream` with the lines after `Last-Event-ID`, or `after`; without either, after the last line."""
        query, _ = _timeless(request)
        seen = request.headers.get("last-event-id") or request.query_params.get("after", "")
        if self._streams >= MAX_STREAMS:
            return PlainTextResponse("Too many people follow the log.\n", 503)
        self._site.record(request, "live stream", query.parameters)
        last = int(seen) if seen.isascii() and seen.isdigit() and len(seen) <= MAX_DIGITS else None
        return StreamingResponse(
            self._lines(request, query, last), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _lines(self, request: Request, query: LogQuery, last: int | None) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            yield _RETRY
            if last is None:
                last = await self._site.cache.ask_afresh(queries.last_line)
            heard = self._clock()
            # A stream does not extend its session.
            while not (self._closing.is_set() or await request.is_disconnected()) and self._site.still(request):
                rows = await self._site.cache.ask_afresh(queries.after, query, last, _BATCH)
                for row in rows:
                    last = row["n"]
                    heard = self._clock()
                    yield _event(row, query.view.zone)
                if self._clock() - heard > _QUIET_SECONDS:
                    heard = self._clock()
                    yield b": nothing new\n\n"
                if len(rows) < _BATCH:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._closing.wait(), POLL_SECONDS)
        finally:
            self._streams -= 1


def _timeless(request: Request) -> tuple[LogQuery, Problems]:
    """The filters of a request without their period: a stream begins now and has no end."""
    query, problems = query_of(request)
    usual = View()
    return query.during(None, None).seen_as(sort=usual.sort, columns=usual.columns), problems


def _event(row: dict[str, Any], zone: str) -> bytes:
    """A server-sent event. JSON output has no line breaks, so that one `data` field is enough."""
    at = row["time"]
    local = None if at is None else queries.wall_time(Instant(at.replace(tzinfo=UTC)), zone)
    plainly = {key: plain(value) for key, value in row.items() if value is not None}
    said: dict[str, Any] = {key: escaped(value) if isinstance(value, str) else value for key, value in plainly.items()}
    said["words"] = {key: word(key, row[key]) for key in ("action", "reason", "signal") if row[key] in CODES[key]}
    said["local"] = None if local is None else f"{local:%Y-%m-%d %H:%M:%S}"
    return f"id: {row['n']}\ndata: {json.dumps(said)}\n\n".encode()
