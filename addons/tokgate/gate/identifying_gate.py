"""A gate for policies that identify clients by more than their address; other policies are spared the look-ups."""

from functools import partial
from typing import Final

from tokgate.gate.client_link import Links
from tokgate.gate.connection import Connection
from tokgate.gate.connector import Opener
from tokgate.gate.gate import Gate
from tokgate.gate.sockets import Address
from tokgate.policy.membership import Identity, joined
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.limits import Limits
from tokgate.wire.client_hello import ClientHello


class IdentifyingGate(Gate):
    """Identifies clients by user, interface and hardware address, as far as the policy in force uses these."""

    def __init__(
        self, enforcer: Enforcer, opener: Opener, limits: Limits | None = None, mark: int | None = None
    ) -> None:
        super().__init__(enforcer, opener, limits, mark)
        self._links: Final = Links(partial(enforcer.failed, "links"))

    def identity(self, connection: Connection) -> Identity | None:
        link = self._links.identify(connection.client, connection.peer, self.enforcer.snapshot.identifies)
        person = connection.person
        return link if person is None else joined(link, person)

    def identity_at(self, interface: int, peer: str) -> Identity | None:
        return self._links.identify_at(interface, peer, self.enforcer.snapshot.identifies)

    def close_all(self) -> None:
        super().close_all()
        self._links.close()

    def _takes_short_way(self, connection: Connection, name: str, destination: Address, hello: ClientHello) -> bool:
        """The shortcut does not identify clients: it is for names whose decision is the same for all clients."""
        identity = self.identity(connection)
        if identity is not None:
            membership, peer = self.enforcer.snapshot.membership, connection.peer
            if membership(peer, identity) is not membership(peer):
                return False
        return super()._takes_short_way(connection, name, destination, hello)


def gate_for(snapshot: Snapshot, enforcer: Enforcer, opener: Opener, limits: Limits | None, mark: int | None) -> Gate:
    """A gate of the class that the policy needs. A changed policy gets new gates."""
    kind = IdentifyingGate if snapshot.identifies.links or snapshot.settings.proxy_auth is not None else Gate
    return kind(enforcer, opener, limits, mark)
