"""mitmproxy's open connections, for `live_review`: passed through, opened, or upgraded."""

from dataclasses import replace
from typing import Final

from whenever import Instant

from tokgate.mitm.client_connection import ClientConnection, ClientConnections
from tokgate.policy.observation import Stage
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.admission import admit
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.live_review import Cut


class MitmConnections:
    """mitmproxy's connections as a `live_review` carrier."""

    def __init__(self, connections: ClientConnections, enforcer: Enforcer) -> None:
        self._connections: Final = connections
        self._enforcer: Final = enforcer

    def open_now(self) -> tuple[ClientConnection, ...]:
        return self._connections.all()

    def judge(self, one: ClientConnection, snapshot: Snapshot, at: Instant) -> Cut | None:
        """Whether the connection, or a request that lasts, would be refused now.

        One that was opened to show a page is let through on nothing, and so goes on.
        """
        connection = () if one.passing is None else (one.passing,)
        for passing in (*connection, *one.requests.values()):
            admission = admit(self._enforcer, passing.arrival, passing.seen)
            if admission.ruling.blocks:
                seen = replace(admission.observe(), stage=Stage.LIVE, opened=one.opened, carried=one.sockets.octets())
                return admission.ruling, seen
        return None

    def cut(self, one: ClientConnection) -> None:
        one.cut()
