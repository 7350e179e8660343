"""The page of one event: its line, why it was decided so, and the lines that belong to it."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from whenever import Instant

from tokgate.blocklog.integrity.evidence import NoProof
from tokgate.blocklog.records.chain import stated_head
from tokgate.blocklog.records.record import Record, text_at, value_at
from tokgate.policy.values.text import local
from tokgate.webui import queries
from tokgate.webui.context import Site, query_of, word
from tokgate.webui.log_query import UTC

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
