"""The QUIC of a gate without sockets: what it would send, and to whom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from labs.proxy_lab import NOW, policy
from labs.records import Holder, Records, enforcer_of
from tokgate.gate.quic.carrier import QuicCarrier, QuicInheritance
from tokgate.gate.quic.flow_table import QuicLimits
from tokgate.gate.quic.sockets import Datagram, Front, Key, Outlets
from tokgate.policy.snapshot import Snapshot

KEY: Key = ("127.0.0.1", 40000, "203.0.113.9", 443)
SHORT = b"\x40" + bytes(40)
"""As packets of a connection that is established."""
EARLY = b"\xd0\x00\x00\x00\x01\x00\x00\x14" + bytes(20)
"""As early data."""
NO_ENDS = (SimpleNamespace(), SimpleNamespace(fileno=lambda: -1))
"""Of a channel to other gates, where there are none."""
HANDSHAKE = b"\xe0\x00\x00\x00\x01\x00\x00\x14" + bytes(20)


@dataclass
class Sent(Outlets):
    """Keeps what would be sent, and which flows the kernel forwards."""

    to_server: list[bytes] = field(default_factory=list)
    to_client: list[bytes] = field(default_factory=list)
    unreachable: list[Key] = field(default_factory=list)
    forwarded: set[Key] = field(default_factory=set)

    def carries(self, came: Datagram, payload: bytes, *, opens: bool) -> bool:
        """Into the set; a hop count of one is where there is no way."""
        if opens:
            self.forwarded.add(came.key)
        self.to_server.append(payload)
        return came.hops > 1

    def ends(self, key: Key) -> None:
        """Out of the set."""
        self.forwarded.discard(key)

    def answers(self, key: Key, payload: bytes) -> None:
        """Keep a refusal."""
        self.to_client.append(payload)

    def refuses(self, key: Key, payload: bytes) -> None:
        """Keep an error."""
        self.unreachable.append(key)


class QuicGate:
    """One gate's."""

    def __init__(
        self,
        records: Records,
        snapshot: Snapshot | None = None,
        limits: QuicLimits | None = None,
        *,
        fronts: Sequence[Front] = (),
        ends: Any = NO_ENDS,
        **identities: Any,
    ) -> None:
        """`ends`: those of `channel`. `identities`: who comes by which interface, as `i2=Identity(…)`."""
        self.now = 1000.0
        self.holder = Holder(snapshot or policy())
        self.enforcer = enforcer_of(self.holder, records, now=lambda: NOW)
        self.counters = self.enforcer.counters
        self.sent = Sent()
        identification: Any = SimpleNamespace(at=lambda interface, peer: identities.get(f"i{interface}"))
        self.watched: dict[int, Callable[[], None]] = {}
        loop: Any = SimpleNamespace(
            call_back=self.watched.__setitem__, call_no_more=lambda descriptor: self.watched.pop(descriptor, None)
        )
        context: Any = SimpleNamespace(enforcer=self.enforcer, loop=loop, identification=identification)
        given = QuicInheritance(fronts, self.sent, *ends)
        self.carrier = QuicCarrier(context, given, limits, monotonic=lambda: self.now)

    def comes(self, *payloads: bytes, key: Key = KEY, interface: int = 1) -> "QuicGate":
        """A client sends datagrams."""
        self.carrier.take(Datagram(key, payload, 0, 64, interface) for payload in payloads)
        return self

    def later(self, seconds: float) -> "QuicGate":
        """Time goes by."""
        self.now += seconds
        self.carrier.look()
        return self


def client(number: int) -> Key:
    """A flow of another client."""
    return (f"127.1.{number >> 8}.{number & 255}", 40000, "203.0.113.9", 443)


def flow(number: int) -> Key:
    """Another flow of the same client."""
    return ("127.0.0.1", 1024 + number, "203.0.113.9", 443)
