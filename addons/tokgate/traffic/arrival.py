"""A connection as it arrives: who, and where to as far as is known before its first byte. Values only."""

from dataclasses import dataclass

from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint, Transport
from tokgate.policy.values.hostname import parse_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A client connection, flow of datagrams or question, before anything of its content is known."""

    client: Endpoint
    destination: Endpoint | None = None
    """Host and port: an address for redirected connections, a name or an address literal in a CONNECT tunnel."""
    connect: str | None = None
    """The host that was asked for with CONNECT, as it was sent."""
    connection: str | None = None
    """The id of the connection, in all of its records."""
    identity: Identity | None = None
    """Who the client is besides its address, as far as the policy has use for it."""
    transport: Transport = Transport.TCP

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """The signals known before the connection's first byte."""
        host = self.destination.ip if self.destination is not None else None
        address = (Sighting(Signal.ADDRESS, host),) if host and parse_address(host) is not None else ()
        return (Sighting(Signal.HTTP_HOST, self.connect), *address) if self.connect else address

    @property
    def names_its_host(self) -> bool:
        """Whether CONNECT named the destination, so that a ClientHello without a name hides nothing."""
        return self.connect is not None and parse_address(self.connect) is None

    @property
    def endpoint(self) -> Endpoint | None:
        """The destination as the log wants it: an address, or nothing."""
        if self.destination is None or parse_address(self.destination.ip) is None:
            return None
        return self.destination
