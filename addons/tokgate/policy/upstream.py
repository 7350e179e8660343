"""Parent proxies: by which of them a destination is reached. `gate/egress/parent_handshake.py` has what they hear."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefix_table import IPNetwork

type Destination = IPNetwork | str
"""A prefix, or a name with those below it."""


class UpstreamKind(StrEnum):
    """The protocol that a parent proxy speaks."""

    HTTP = "http"
    SOCKS5 = "socks5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A parent proxy. `credentials` is the path of a file with `user:password`; no `destinations` are all."""

    kind: UpstreamKind
    host: str
    port: int
    credentials: str | None = None
    destinations: tuple[Destination, ...] = ()
    exclusions: tuple[Destination, ...] = ()

    def __str__(self) -> str:
        """The parent proxy and its destinations, as `tokgate diff` shows them."""
        parts = (
            ("credentials", self.credentials and [self.credentials]),
            ("for", self.destinations),
            ("except", self.exclusions),
        )
        more = (f" {key} {', '.join(map(str, values))}" for key, values in parts if values)
        return f"{self.kind}://{self.host}:{self.port}{''.join(more)}"

    def carries(self, hosts: Collection[str]) -> bool:
        """Whether a destination that is known by these names and addresses is reached by this proxy."""
        wanted = not self.destinations or _any(self.destinations, hosts)
        return wanted and not _any(self.exclusions, hosts)


def upstream_for(upstreams: Iterable[Upstream], hosts: Iterable[str | None]) -> Upstream | None:
    """The first proxy that carries a destination, by the names and addresses known of it; None: none does."""
    known = [host.lower().rstrip(".") for host in hosts if host]
    return next((each for each in upstreams if each.carries(known)), None)


def _any(destinations: Iterable[Destination], hosts: Collection[str]) -> bool:
    return any(_within(host, destination) for destination in destinations for host in hosts)


def _within(host: str, destination: Destination) -> bool:
    if isinstance(destination, str):
        return host == destination or host.endswith(f".{destination}")
    address = parse_address(host)
    return address is not None and address.version == destination.version and address in destination
