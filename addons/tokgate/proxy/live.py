"""The connections that mitmproxy carries, to be judged again while they last: passed through, opened, or upgraded."""

from dataclasses import replace
from typing import Final

from whenever import Instant

from tokgate.blocklog.observation import Carried, Observation, Stage
from tokgate.gate.admission import admit_again
from tokgate.gate.enforcer import Enforcer
from tokgate.gate.live import Cut
from tokgate.policy.snapshot import Snapshot
from tokgate.proxy import requests
from tokgate.proxy.visit import Visit, Visits


class VisitedConnections:
    """The visits of one proxy."""

    def __init__(self, visits: Visits, enforcer: Enforcer) -> None:
        self._visits: Final = visits
        self._enforcer: Final = enforcer

    def open_now(self) -> tuple[Visit, ...]:
        """All visits."""
        return self._visits.all()

    def judge(self, one: Visit, snapshot: Snapshot, at: Instant) -> Cut | None:
        """Whether the connection, or a request that lasts, would be refused now.

        One that was opened to show a page is let through on nothing, and so goes on.
        """
        found = self._connection(one) or self._requests(one)
        if found is None:
            return None
        ruling, seen = found
        moved = one.wires.octets()
        return ruling, replace(seen, carried=None if moved is None else Carried(*moved))

    def cut(self, one: Visit) -> None:
        """Reset client and destinations."""
        one.cut()

    def _connection(self, visit: Visit) -> Cut | None:
        passing = (visit.passing, *visit.beside) if visit.passing is not None else ()
        for one in passing:
            admission = admit_again(self._enforcer, one.arrival, one.shown)
            if admission.ruling.blocks:
                return admission.ruling, Observation(
                    client=visit.client,
                    destination=one.arrival.endpoint,
                    stage=Stage.LIVE,
                    visibility=admission.visibility,
                    transport=one.transport,
                    names=admission.names,
                    opened=visit.opened,
                    connection=visit.connection,
                    identity=one.arrival.identity,
                )
        return None

    def _requests(self, visit: Visit) -> Cut | None:
        for request in visit.requests.values():
            ruling = self._enforcer.judge(visit.client.ip, request.names, visit.identity)
            if ruling.blocks:
                return ruling, requests.observe(request.flow, visit, request.names, Stage.LIVE, None)
        return None
