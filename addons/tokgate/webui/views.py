"""Request handlers of the overview, of the lines and of one event; tables also as CSV."""

import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from typing import Any, Final

from anyio import Lock, to_thread
from starlette.requests import Request
from starlette.responses import Response
from whenever import Instant, PlainDateTime

from tokgate.analytics.counts import VERDICTS, Buckets
from tokgate.analytics.formats import write_csv
from tokgate.analytics.report.charts import attempts_over_time
from tokgate.analytics.report.report_data import BanPhases, PhaseSpan
from tokgate.analytics.report.texts import Language, Wording
from tokgate.analytics.sql import QueryResult
from tokgate.blocklog.integrity.evidence import NoProof
from tokgate.blocklog.records.chain import stated_head
from tokgate.blocklog.records.record import Record, text_at, value_at
from tokgate.policy.values.text import local
from tokgate.webui import queries
from tokgate.webui.context import Site, query_of, word
from tokgate.webui.log_query import FACETS, MAX_PAGE, PAGE_ROWS, PERIODS, UTC, LogQuery, as_typed

MAX_LANES: Final = 6
_WEEKDAYS: Final = dict(zip("1234567", ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), strict=True))
CHOSEN: Final = ("verdict", "action", "network", "ban", "service", "signal", "reason", "exemption", "gateway")
"""Facets with a list of values; the others are text fields, which suggest some."""


@dataclass(frozen=True, slots=True)
class Change:
    """How the events of a verdict changed against the period before, which had `before` of them."""

    before: int
    now: int

    @property
    def percent(self) -> int | None:
        """In percent of the period before, rounded; None if that had none."""
        return None if not self.before else round(100 * (self.now - self.before) / self.before)


class Pages:
    """Request handlers of the pages that count and list."""

    def __init__(self, site: Site) -> None:
        """Downloads, which take memory, are made one at a time."""
        self._site: Final = site
        self._download: Final = Lock()

    async def overview(self, request: Request) -> Response:
        """`GET /`: counts, the chart over time and rankings."""
        query, problems = query_of(request)
        self._site.record(request, "overview", query.parameters)
        found = await self._site.cache.ask(queries.overview, query)
        drawn, lanes_from = await self._chart(query, found)
        clients = [row.value for ranking in found.rankings if ranking.of == "client" for row in ranking.rows]
        now = await self._site.ask_policies(self._site.explainer.now)
        return self._site.page(
            request, "overview.html", 400 if problems else 200, here="/", query=query, problems=problems, found=found,
            now=now,
            chart=drawn, lanes_from=lanes_from, pieces=_table(query, found), edges=_edges(query, found),
            changes=await self._changes(query, found), **await form(self._site, query, clients),
        )  # fmt: skip

    async def lines(self, request: Request) -> Response:
        """`GET /lines`: the lines of the log that the query asks for, by pages."""
        query, problems = query_of(request)
        self._site.record(request, "lines", query.parameters)
        found = await self._site.cache.ask(queries.lines, query)
        last = min(MAX_PAGE, max(1, -(-found.total // PAGE_ROWS)))
        pages = {
            "newer": query.on_page(query.page - 1, found.upto) if query.page > 1 else None,
            "older": query.on_page(query.page + 1, found.upto) if query.page < last else None,
        }
        return self._site.page(
            request, "lines.html", 400 if problems else 200, here="/lines", query=query, problems=problems, found=found,
            pages=pages, first=PAGE_ROWS * (query.page - 1) + 1, beyond=found.total > MAX_PAGE * PAGE_ROWS,
            most=queries.MAX_ROWS,
            **await form(self._site, query, [row["client"] for row in found.rows]),
        )  # fmt: skip

    async def requests(self, request: Request) -> Response:
        """`GET /requests`: the exceptions that people asked for on the page, and the answers."""
        query, _ = query_of(request)
        self._site.record(request, "requests", {})
        found = await self._site.cache.ask(queries.requests)
        return self._site.page(request, "requests.html", here="/requests", query=query, found=found)

    async def table(self, request: Request) -> Response:
        """`GET /table?down=…&across=…`: events by any two fields; without these by day of the week and hour."""
        query, problems = query_of(request)
        said = {name: request.query_params.get(name, by) for name, by in (("down", "weekday"), ("across", "hour"))}
        problems |= {name: "There is no such field." for name, by in said.items() if by not in queries.CROSSED}
        down, across = (by if by in queries.CROSSED else "hour" for by in said.values())
        self._site.record(request, "table", query.parameters | {"down": down, "across": across})
        found = await self._site.cache.ask(queries.cross, query, down, across)
        return self._site.page(
            request, "table.html", 400 if problems else 200, here="/table", query=query, problems=problems, found=found,
            down=down, across=across, crossed=queries.CROSSED, days=_WEEKDAYS,
            highest=max(found.counts.values(), default=0),
            **await form(self._site, query, [*found.down, *found.across]),
        )  # fmt: skip

    async def lines_csv(self, request: Request) -> Response:
        """`GET /lines.csv`: all lines that the filters accept."""
        query, _ = query_of(request)
        self._site.record(request, "lines.csv", query.parameters)
        async with self._download:
            rows = await self._site.cache.ask_afresh(queries.download, query)
            return await _csv("lines", queries.SHOWN, rows)

    async def counts_csv(self, request: Request) -> Response:
        """`GET /counts.csv?by=…`: a ranking with all its values, or, with `by=time`, the events over time."""
        query, _ = query_of(request)
        by = request.query_params.get("by", "")
        self._site.record(request, "counts.csv", query.parameters | {"by": by})
        if by == "time":
            found = await self._site.cache.ask(queries.overview, query)
            starts = () if found.pieces is None else found.pieces.starts
            counted = [
                (start, *(numbers[at] for numbers in found.over_time.values())) for at, start in enumerate(starts)
            ]
            return await _csv("over-time", ("start", *found.over_time), counted)
        if by not in queries.RANKED:
            return self._site.page(
                request, "problem.html", 404, title="No such table", problem="Counts are by time or by a filter."
            )
        async with self._download:
            ranking = await self._site.cache.ask_afresh(queries.ranking, query, by, queries.MAX_ROWS)
            rows = [(row.value, row.events, row.first, row.last) for row in ranking.rows]
            return await _csv(f"by-{by}", (by, "events", "first", "last"), rows)

    async def _changes(self, query: LogQuery, found: queries.Overview) -> Mapping[str, Change]:
        """By verdict, against the period before; empty if this one has no beginning."""
        before = query.before(Instant.now().round("minute", mode="ceil"))
        if before is None:
            return {}
        totals = await self._site.cache.ask(queries.by_verdict, before)
        changes = {verdict: Change(totals.get(verdict, 0), found.verdicts.get(verdict, 0)) for verdict in VERDICTS}
        return changes | {"": Change(sum(totals.values()), found.totals.events)}

    async def _chart(self, query: LogQuery, found: queries.Overview) -> tuple[str, str]:
        pieces, zone = found.pieces, query.view.zone
        if pieces is None:
            return "", ""
        bans = frozenset(
            row.value for ranking in found.rankings if ranking.of == "ban" for row in ranking.rows if row.value
        )
        start, end = (queries.wall_time(_instant(at, zone), UTC) for at in (pieces.starts[0], pieces.end))
        lanes, lanes_from = await self._site.ask_policies(self._site.explainer.lanes, start, end, bans)
        local = [_in_zone(lane, zone) for lane in lanes[:MAX_LANES]]
        link = partial(_link, query, pieces)
        draw = partial(attempts_over_time, pieces, found.over_time, local, Wording(Language.EN), link=link)
        return await to_thread.run_sync(draw), lanes_from


async def form(site: Site, query: LogQuery, clients: Collection[str | None]) -> dict[str, Any]:
    """The choices of the filter form, and the names that the inventories have for clients."""
    offered = {facet: await site.cache.ask(queries.choices, facet) for facet in FACETS}
    known = {client for client in (*clients, *offered["client"]) if client}
    about = await site.ask_policies(site.explainer.devices, known)
    return {
        "offered": offered,
        "periods": {label: query.during_last(name) for name, (label, _) in PERIODS.items()},
        "zones": dict.fromkeys((UTC, query.view.zone, *about.zones)),
        "devices": about.names,
        "unknown": {facet: _unknown(facet, query.values(facet), offered[facet]) for facet in CHOSEN},
    }


def _unknown(facet: str, values: Sequence[str], offered: Sequence[str]) -> str:
    """What to say of a filter that no line of the log meets; empty if there is nothing to say."""
    strange = [value for value in values if value not in offered]
    if not strange or len(offered) >= queries.SUGGESTED:
        return ""
    near = get_close_matches(strange[0], offered, 1)
    return f"The log has no such {FACETS[facet].lower()}" + (f": {word(facet, near[0])}?" if near else ".")


def _link(query: LogQuery, pieces: Buckets, verdict: str, place: int) -> str:
    """The URL of the lines that a bar of the chart counts, cut to the chosen period."""
    facet, zone = "verdict" if verdict in VERDICTS else "action", query.view.zone
    start = _instant(pieces.starts[place], zone)
    end = _instant(pieces.starts[place + 1] if place + 1 < len(pieces.starts) else pieces.end, zone)
    since = start if query.since is None else max(start, query.since)
    until = end if query.until is None else min(end, query.until)
    return f"/lines?{query.during(since, until).with_filter(facet, verdict).encoded}"


def _instant(at: datetime, zone: str) -> Instant:
    """The instant of a local time; the first of two, and of those that a clock leaves out the one after."""
    return PlainDateTime(at).assume_tz(zone, disambiguation="compatible").to_instant()


def _in_zone(lane: BanPhases, zone: str) -> BanPhases:
    """The same phases in a zone's local time instead of UTC."""

    def local(at: datetime) -> datetime:
        return queries.wall_time(_instant(at, UTC), zone)

    def there(spans: Sequence[PhaseSpan]) -> tuple[PhaseSpan, ...]:
        return tuple(PhaseSpan(span.phase, local(span.start), local(span.end)) for span in spans)

    return replace(lane, spans=there(lane.spans), exempt=there(lane.exempt))


def _edges(query: LogQuery, found: queries.Overview) -> str:
    """The beginnings of the chart's intervals and the end of the last, as the form's fields have times."""
    if found.pieces is None:
        return ""
    zone = query.view.zone
    return " ".join(as_typed(_instant(at, zone), zone) for at in (*found.pieces.starts, found.pieces.end))


def _table(query: LogQuery, found: queries.Overview) -> list[tuple[str, list[tuple[int, str]]]]:
    """The chart as a table, without empty intervals: of each its label, and by verdict its events and their URL."""
    pieces = found.pieces
    if pieces is None:
        return []
    return [
        (
            pieces.label(start),
            [(numbers[place], _link(query, pieces, verdict, place)) for verdict, numbers in found.over_time.items()],
        )
        for place, start in enumerate(pieces.starts)
        if any(numbers[place] for numbers in found.over_time.values())
    ]


async def _csv(name: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Response:
    """A CSV download, written in a thread."""

    def written() -> bytes:
        text = io.StringIO(newline="")
        write_csv(QueryResult(tuple(columns), (), iter(rows)), text)
        return text.getvalue().encode("utf-8", "backslashreplace")

    return Response(
        await to_thread.run_sync(written), media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="tokgate-{name}.csv"'},
    )  # fmt: skip


_PATHS: Final = {
    "User": ("user", "name"),
    "Time (UTC)": ("@timestamp",),
    "Name": ("destination", "domain"),
    "Destination": ("destination", "ip"),
    "What was done": ("event", "action"),
    "Verdict": ("tokgate", "verdict"),
    "Reason": ("tokgate", "reason"),
    "Phase": ("tokgate", "phase"),
    "Ban": ("tokgate", "ban"),
    "Title": ("rule", "name"),
    "Authority": ("tokgate", "authority"),
    "Basis": ("tokgate", "basis"),
    "Where it can be read": ("rule", "reference"),
    "Rule": ("tokgate", "rule"),
    "Seen in": ("tokgate", "signal"),
    "Network": ("tokgate", "network"),
    "Exemption": ("tokgate", "exemption"),
    "Request for an exception": ("tokgate", "request", "id"),
    "What was refused": ("tokgate", "request", "refusal"),
    "Why exempt": ("tokgate", "exemption_reason"),
    "Gateway": ("observer", "hostname"),
    "Policy version": ("tokgate", "policy", "version"),
    "Chain": ("tokgate", "chain"),
}


def client_of(record: Record) -> str:
    """The client's address, or its pseudonym; empty if the record has neither."""
    return text_at(record, "source", "ip") or text_at(record, "source", "address") or ""


def facts(record: Record, device: str, zone: str) -> Iterator[tuple[str, str]]:
    """Pairs of label and value for the fields that the record has; `device` is the client's name in an inventory."""
    if client := client_of(record):
        yield "Client", f"{client} ({device})" if device else client
    if (at := text_at(record, "@timestamp")) and zone != UTC:
        with suppress(ValueError):  # as some other version, or another hand, may have written it
            yield f"Time ({zone})", local(Instant.parse_iso(at), zone)
    for label, path in _PATHS.items():
        if value := text_at(record, *path):
            said = word(path[-1], value)
            yield label, value if said == value else f"{said} ({value})"
    count = value_at(record, "tokgate", "repeats", "count")
    if type(count) is int:
        first, last = (text_at(record, "tokgate", "repeats", edge) or "?" for edge in ("first", "last"))
        yield "Stands for", f"{count} repeats, from {first} to {last}"
    sequence = value_at(record, "event", "sequence")
    if type(sequence) is int:
        yield "Number in its chain", str(sequence)


class EventPage:
    """Answers for the page of one event, with its explanation by the policies of now."""

    def __init__(self, site: Site) -> None:
        self._site: Final = site

    async def show(self, request: Request) -> Response:
        """`GET /event/{id}`: one line, its fields, the explanation of its decision, and its repeats and neighbours."""
        event = str(request.path_params["event"])
        query, _ = query_of(request)
        self._site.record(request, "event", {"event": event})
        line = await self._site.cache.line(event)
        if line is None:
            return self._site.page(
                request, "problem.html", 404, title="No such event",
                problem=f"No line of the log has the id {event}. Files that were deleted are not looked into.",
            )  # fmt: skip
        explained = await self._site.ask_policies(self._site.explainer.explain, line)
        client = client_of(line.record)
        about = await self._site.ask_policies(self._site.explainer.devices, {client})
        earlier, later = await self._site.cache.ask(queries.neighbours, event)
        return self._site.page(
            request, "event.html", event=event, line=line, query=query, chained=stated_head(line.record) is not None,
            sentence=text_at(line.record, "message") or "A line of the log",
            facts=facts(line.record, about.names.get(client, ""), query.view.zone),
            raw=json.dumps(line.record, indent=2, ensure_ascii=False).split("\n"), explained=explained,
            related=await self._site.cache.related(line), earlier=earlier, later=later,
            of_client=query.with_filter("client", client) if client else None,
        )  # fmt: skip

    async def proof(self, request: Request) -> Response:
        """`GET /event/{id}/proof.json`: the proof of one line, which shows no other."""
        event = str(request.path_params["event"])
        self._site.record(request, "proof.json", {"event": event})
        try:
            proof = await self._site.cache.ask_afresh(lambda index: index.prove(event))
        except NoProof as error:
            return self._site.page(request, "problem.html", 404, title="There is no proof of it", problem=f"{error}.")
        content = json.dumps(proof, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace")
        headers = {"Content-Disposition": f'attachment; filename="proof-{event}.json"'}
        return Response(content, media_type="application/json", headers=headers)
