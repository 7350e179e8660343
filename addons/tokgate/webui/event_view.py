"""The request handler of one event: its line, why it was decided so, and the lines that belong to it."""

import json
from typing import Final

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response

from tokgate.blocklog.integrity.evidence import NoProof
from tokgate.blocklog.records.chain import stated_head
from tokgate.webui import queries
from tokgate.webui.context import Site, query_of
from tokgate.webui.event_summary import client_of, facts, sentence


class EventPage:
    """Answers for the page of one event, with its explanation by the policies of now."""

    def __init__(self, site: Site, explaining: CapacityLimiter) -> None:
        """The policies answer one call at a time, through `explaining`."""
        self._site: Final = site
        self._explaining: Final = explaining

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
        explained = await to_thread.run_sync(self._site.explainer.explain, line, limiter=self._explaining)
        client = client_of(line.record)
        about = await to_thread.run_sync(self._site.explainer.devices, {client}, limiter=self._explaining)
        earlier, later = await self._site.cache.ask(queries.neighbours, event)
        return self._site.page(
            request, "event.html", event=event, line=line, sentence=sentence(line.record), query=query,
            chained=stated_head(line.record) is not None,
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
            proof = await self._site.cache.proof(event)
        except NoProof as error:
            return self._site.page(request, "problem.html", 404, title="There is no proof of it", problem=f"{error}.")
        content = json.dumps(proof, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace")
        headers = {"Content-Disposition": f'attachment; filename="proof-{event}.json"'}
        return Response(content, media_type="application/json", headers=headers)
