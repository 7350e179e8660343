"""The pages: what there is in short, the lines of it, one line and why; each also as CSV where it is a table."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from anyio import CapacityLimiter, Lock, to_thread
from starlette.requests import Request
from starlette.responses import Response
from whenever import Instant

from tokgate.review.buckets import Buckets
from tokgate.review.sql import Answer
from tokgate.review.tabular import write_csv
from tokgate.review.web import questions
from tokgate.review.web.drawing import chart
from tokgate.review.web.facts import client_of, facts, sentence
from tokgate.review.web.look import MAX_PAGE, PAGE_ROWS, Look
from tokgate.review.web.site import Site, look_of

MAX_LANES: Final = 6
CHOSEN: Final = ("verdict", "action", "network", "ban", "service", "signal", "reason", "exemption", "gateway")
"""Facets that are chosen from a list; the others are typed."""
_PERIODS: Final = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "30 days": timedelta(days=30),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of time in the table beside the chart."""

    label: str
    counts: tuple[tuple[int, str], ...]
    """Events by verdict, and where they lead."""


class Pages:
    """The handlers of a site's pages."""

    def __init__(self, site: Site) -> None:
        """Policies are asked by one request at a time, and one download is made at a time: it takes memory."""
        self._site: Final = site
        self._one: Final = CapacityLimiter(1)
        self._download: Final = Lock()

    async def overview(self, request: Request) -> Response:
        """How much of what there is."""
        look, problems = look_of(request)
        self._site.record(request, "overview", look.parameters)
        found = await self._site.desk.ask(questions.overview, look)
        drawn, lanes_from = await self._chart(look, found)
        return self._site.page(
            request, "overview.html", 400 if problems else 200, here="/", look=look, problems=problems, found=found,
            chart=drawn, lanes_from=lanes_from, pieces=_table(look, found), **await self._form(look),
        )  # fmt: skip

    async def lines(self, request: Request) -> Response:
        """The lines themselves."""
        look, problems = look_of(request)
        self._site.record(request, "lines", look.parameters)
        found = await self._site.desk.ask(questions.lines, look)
        last = min(MAX_PAGE, max(1, -(-found.total // PAGE_ROWS)))
        pages = {
            "newer": look.on_page(look.page - 1, found.upto) if look.page > 1 else None,
            "older": look.on_page(look.page + 1, found.upto) if look.page < last else None,
        }
        return self._site.page(
            request, "lines.html", 400 if problems else 200, here="/lines", look=look, problems=problems, found=found,
            pages=pages, first=PAGE_ROWS * (look.page - 1) + 1, beyond=found.total > MAX_PAGE * PAGE_ROWS,
            most=questions.MAX_ROWS, **await self._form(look),
        )  # fmt: skip

    async def event(self, request: Request) -> Response:
        """One line, and why it was decided so."""
        event = str(request.path_params["event"])
        self._site.record(request, "event", {"event": event})
        line = await self._site.desk.line(event)
        if line is None:
            return self._site.page(
                request, "problem.html", 404, title="No such event",
                problem=f"No line of the log has the id {event}. Files that were deleted are not looked into.",
            )  # fmt: skip
        explained = await to_thread.run_sync(self._site.counsel.explain, line, limiter=self._one)
        client = client_of(line.record)
        return self._site.page(
            request, "event.html", event=event, line=line, sentence=sentence(line.record), facts=facts(line.record),
            raw=json.dumps(line.record, indent=2, ensure_ascii=False).split("\n"), explained=explained,
            look=Look().with_filter("client", client) if client else None,
        )  # fmt: skip

    async def lines_csv(self, request: Request) -> Response:
        """What the pages of lines show, as one table."""
        look, _ = look_of(request)
        self._site.record(request, "lines.csv", look.parameters)
        async with self._download:
            rows = await self._site.desk.ask_afresh(questions.download, look)
            return await _csv("lines", questions.SHOWN, rows)

    async def counts_csv(self, request: Request) -> Response:
        """A ranking with all its rows, or the events over time."""
        look, _ = look_of(request)
        by = request.query_params.get("by", "")
        self._site.record(request, "counts.csv", look.parameters | {"by": by})
        if by == "time":
            found = await self._site.desk.ask(questions.overview, look)
            return await _csv("over-time", ("start", *found.over_time), _over_time_rows(found))
        if by not in questions.RANKED:
            return self._site.page(
                request, "problem.html", 404, title="No such table", problem="Counts are by time or by a filter."
            )
        async with self._download:
            ranking = await self._site.desk.ask_afresh(questions.ranking, look, by, questions.MAX_ROWS)
            rows = [(row.value, row.events, row.first, row.last) for row in ranking.rows]
            return await _csv(f"by-{by}", (by, "events", "first", "last"), rows)

    async def _form(self, look: Look) -> dict[str, Any]:
        """What the filters offer."""
        offered = {facet: await self._site.desk.ask(questions.choices, facet) for facet in CHOSEN}
        now = Instant.now().round("minute", mode="ceil")
        periods = {
            name: look.during(now.subtract(seconds=span.total_seconds()), None) for name, span in _PERIODS.items()
        }
        return {"offered": offered, "periods": periods | {"all": look.during(None, None)}}

    async def _chart(self, look: Look, found: questions.Overview) -> tuple[str, str]:
        if found.pieces is None:
            return "", ""
        bans = frozenset(
            row.value for ranking in found.rankings if ranking.facet == "ban" for row in ranking.rows if row.value
        )
        lanes, lanes_from = await to_thread.run_sync(
            self._site.counsel.lanes, found.pieces.starts[0], found.pieces.end, bans, limiter=self._one
        )
        link = partial(_link, look, found.pieces)
        return await to_thread.run_sync(chart, found.pieces, found.over_time, lanes[:MAX_LANES], link), lanes_from


def _link(look: Look, pieces: Buckets, verdict: str, place: int) -> str:
    """The lines of a bar."""
    facet = "verdict" if verdict in questions.VERDICTS else "action"
    return f"/lines?{_within(look, pieces, place).with_filter(facet, verdict).query}"


def _within(look: Look, pieces: Buckets, place: int) -> Look:
    """A look at one piece of time, as far as the look reaches."""
    start = _instant(pieces.starts[place])
    end = _instant(pieces.starts[place + 1] if place + 1 < len(pieces.starts) else pieces.end)
    since = start if look.since is None else max(start, look.since)
    until = end if look.until is None else min(end, look.until)
    return look.during(since, until)


def _instant(at: datetime) -> Instant:
    return Instant(at.replace(tzinfo=UTC))


def _table(look: Look, found: questions.Overview) -> list[Piece]:
    """The chart as a table, without the pieces of time in which nothing happened."""
    pieces = found.pieces
    if pieces is None:
        return []
    return [
        Piece(
            pieces.label(start),
            tuple(
                (numbers[place], _link(look, pieces, verdict, place)) for verdict, numbers in found.over_time.items()
            ),
        )
        for place, start in enumerate(pieces.starts)
        if any(numbers[place] for numbers in found.over_time.values())
    ]


def _over_time_rows(found: questions.Overview) -> list[tuple[Any, ...]]:
    if found.pieces is None:
        return []
    return [
        (start, *(numbers[place] for numbers in found.over_time.values()))
        for place, start in enumerate(found.pieces.starts)
    ]


async def _csv(name: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Response:
    """A download, written in a thread."""

    def written() -> bytes:
        text = io.StringIO(newline="")
        write_csv(Answer(tuple(columns), (), iter(rows)), text)
        return text.getvalue().encode("utf-8", "backslashreplace")

    return Response(
        await to_thread.run_sync(written), media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="tokgate-{name}.csv"'},
    )  # fmt: skip
