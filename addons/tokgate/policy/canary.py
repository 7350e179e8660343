"""The canary of a gateway: a client of tokgate's own, whose two names are decided for it alone.

It shows that enforcement works from the first packet to the answer, whatever the policy bans.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final

from tokgate.policy.decision import Decision, Reason, Response, Verdict

BANNED: Final = "banned.canary.tokgate.invalid"
ALLOWED: Final = "allowed.canary.tokgate.invalid"
"""Names that no resolver knows (RFC 6761 §6.4)."""
INTERVAL: Final = 60
"""Seconds between two probes."""

CANARY_ADDRESSES: Final = 8
"""How many addresses its prefixes have at least: two links of four."""
_IPV4: Final = IPv4Network("198.18.116.0/29")
_IPV6: Final = IPv6Network("fd74:6f6b:6761:7465::/64")

_REFUSED: Final = Decision(Verdict.BLOCK, Reason.CANARY, response=Response.REFUSE)
_PASSES: Final = Decision(Verdict.ALLOW, Reason.CANARY)


@dataclass(frozen=True, slots=True)
class CanaryLink:
    """One of two links with four addresses of a prefix: the gateway's end, and the far one."""

    near: IPv4Address | IPv6Address
    far: IPv4Address | IPv6Address
    length: int
    """Of the link's prefix, in bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanarySettings:
    """How often the canary asks, and where it is: prefixes that nothing else here uses.

    The defaults are from the networks for benchmarks (RFC 2544) and for sites of one's own (RFC 4193).
    """

    enabled: bool = True
    seconds: int = INTERVAL
    ipv4: IPv4Network = _IPV4
    ipv6: IPv6Network = _IPV6

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> "CanarySettings":
        """The settings that `written` wrote."""
        return cls(seconds=said["seconds"], ipv4=IPv4Network(said["ipv4"]), ipv6=IPv6Network(said["ipv6"]))

    @property
    def written(self) -> dict[str, Any]:
        """The settings of a canary as JSON."""
        return {"seconds": self.seconds, "ipv4": str(self.ipv4), "ipv6": str(self.ipv6)}

    def client(self, version: int) -> CanaryLink:
        """The link on which the canary asks."""
        return self._link(version, 0)

    def server(self, version: int) -> CanaryLink:
        """The link on which it answers itself."""
        return self._link(version, 4)

    def _link(self, version: int, first: int) -> CanaryLink:
        prefix: IPv4Network | IPv6Network = self.ipv4 if version == 4 else self.ipv6  # noqa: PLR2004
        return CanaryLink(prefix[first + 1], prefix[first + 2], prefix.max_prefixlen - 2)

    def clients(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The addresses from which it asks."""
        return (IPv4Network(self.client(4).far), IPv6Network(self.client(6).far))

    def servers(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """The addresses at which it answers itself."""
        return tuple(self.server(version).far for version in (4, 6))

    def decisions(self) -> Mapping[str, Mapping[str, Decision]]:
        """What is decided for it, by its address and by the name or address that it asks for."""
        if not self.enabled:
            return {}
        own = {str(each): _PASSES for each in self.servers()}
        return {str(self.client(version).far): {BANNED: _REFUSED, ALLOWED: _PASSES, **own} for version in (4, 6)}
