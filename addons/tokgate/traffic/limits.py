"""The limits that keep one client from exhausting what others need.

A client is what `client_key` says: an IPv4 address, or an IPv6 prefix of 64 bits. Values only.
"""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from tokgate.policy.values.hostname import parse_address

SUBNET_BITS: Final = 64
"""Of an IPv6 address: within its subnet a host takes as many as it likes (RFC 4291 §2.5.1, RFC 8981)."""
_HOST_MASK: Final = (1 << (128 - SUBNET_BITS)) - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a process, a gate or an opener; those of gates are settings. Times in seconds."""

    connections: int = 50_000
    """Open connections of a gate."""
    per_client: int = 4_096
    greeting: float = 60.0
    """For a client to send its first message. Servers wait as long; how many connections wait is limited anyway."""
    connecting: float = 10.0
    """For a destination to answer."""
    idle: float = 3_600.0
    """Without a byte in either direction, before a connection is given up."""
    half_closed: float = 300.0
    """The same once one side has ended its direction: the other may be gone without a word."""
    parting: float = 2.0
    """For a client to receive a refusal."""


@dataclass(frozen=True, slots=True)
class OpenerLimits:
    """The limits of an opener, where a connection costs a hundred times what a relayed one does."""

    connections: int = 8_192
    """Open connections that were handed over to it."""
    per_client: int = 512
    head: int = 64 * 1024
    """Octets of a request that wait for the end of its head, or of requests sent ahead of their turn."""
    response_head: int = 256 * 1024
    """The same of responses: browsers accept as much."""
    unread_per_client: int = 4 << 20
    """Octets that wait so in all connections of a client."""
    unread: int = 64 << 20
    """Octets that wait so in all clients' connections."""
    resets: float = 400
    """Streams of HTTP/2 that a client may reset at once, in all its connections (RFC 9113 §10.5)."""
    resets_per_second: float = 20
    """Those that it may reset in the long run. A browser resets what a page that is left still loads."""
    idle_frames: float = 2_000
    """SETTINGS, PING, PRIORITY and empty DATA that a client may send at once, in all its connections."""
    idle_frames_per_second: float = 200
    """Those in the long run. gRPC's clients send a PING for each round trip of a download."""


@dataclass(frozen=True, slots=True)
class ResolverLimits:
    """Limits of names that a gate resolves for explicit clients."""

    lookups: int = 256
    """Lookups at a time. A name whose servers don't answer keeps one for ten seconds and more."""
    per_client: int = 8
    """At a time; fewer where few are left, but never none."""
    queued_per_client: int = 512
    """Names that wait for their turn."""
    failure_kept: float = 5.0
    """Seconds for which a name that was not found isn't asked for again."""
    failures: int = 4_096
    """Such names that are remembered."""


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """Limits of handshakes with destinations that are asked for their certificate. Times in seconds."""

    at_once: int = 64
    """Handshakes at a time."""
    per_client: int = 4
    """Handshakes at a time for one client."""
    per_minute: int = 120
    """Destinations asked for one client."""
    deadline: float = 3.0
    """How long a client waits for a destination's certificate, with what it waits for its turn."""
    kept: float = 300.0
    """How long a certificate is remembered."""
    failure_kept: float = 10.0
    """How long it is remembered that there was none."""
    size: int = 1_024
    """Destinations remembered."""


RECORDS_A_MINUTE: Final = 100
"""Events of one client that a process writes with a record of their own; those beyond share records that count them."""


def client_key(address: str) -> str:
    """Whom an address belongs to, as far as limits are concerned: itself, or the subnet of an IPv6 address.

    Link-local addresses share a prefix without sharing a host, so each stands for itself.
    """
    return _subnet(address) if ":" in address else address


@lru_cache(maxsize=4096)
def _subnet(address: str) -> str:
    parsed = parse_address(address)
    if not isinstance(parsed, IPv6Address) or parsed.is_link_local:
        return address if parsed is None else str(parsed)
    return f"{IPv6Address(int(parsed) & ~_HOST_MASK)}/{SUBNET_BITS}"
