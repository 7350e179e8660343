"""A gate for policies that tell clients apart by more than their address. Other policies don't pay for it."""

from dataclasses import replace
from functools import partial
from typing import Final

from tokgate.gate.admission import Arrival
from tokgate.gate.connection import Connection
from tokgate.gate.enforcer import Enforcer
from tokgate.gate.gate import Gate, Limits, Opener
from tokgate.gate.introduction import Introduction
from tokgate.gate.links import Links
from tokgate.gate.sockets import Address
from tokgate.policy.identity import Identity, joined
from tokgate.policy.snapshot import Snapshot
from tokgate.wire.client_hello import ClientHello


class IdentifyingGate(Gate):
    """Finds out who clients are, as far as the policy in force has use for it."""

    def __init__(
        self, enforcer: Enforcer, opener: Opener, limits: Limits | None = None, mark: int | None = None
    ) -> None:
        """As any gate."""
        super().__init__(enforcer, opener, limits, mark)
        self._links: Final = Links(partial(enforcer.failed, "links"))

    def identity(self, connection: Connection) -> Identity | None:
        """Who the client is besides its address."""
        link = self._links.identify(connection.client, connection.peer, self.enforcer.snapshot.identifies)
        if connection.tunnel is not None:
            person: Identity | None = connection.tunnel.identity
        else:
            person = connection.greeting.identity if isinstance(connection.greeting, Introduction) else None
        return link if person is None else joined(link, person)

    def close_all(self) -> None:
        """Close everything, at once."""
        super().close_all()
        self._links.close()

    def arrival(self, connection: Connection) -> Arrival:
        """The connection in the words of admission."""
        arrival = super().arrival(connection)
        identity = self.identity(connection)
        return arrival if identity is None else replace(arrival, identity=identity)

    def _takes_short_way(self, connection: Connection, name: str, destination: Address, hello: ClientHello) -> bool:
        """The short way asks nobody who they are: it is for those of whom the policy says the same whoever they are."""
        identity = self.identity(connection)
        if identity is not None:
            membership, peer = self.enforcer.snapshot.membership, connection.peer
            if membership(peer, identity) is not membership(peer):
                return False
        return super()._takes_short_way(connection, name, destination, hello)


def gate_for(snapshot: Snapshot, enforcer: Enforcer, opener: Opener, limits: Limits | None, mark: int | None) -> Gate:
    """The gate that a policy needs, for as long as it has this one."""
    kind = IdentifyingGate if snapshot.identifies.links or snapshot.settings.proxy_auth is not None else Gate
    return kind(enforcer, opener, limits, mark)
