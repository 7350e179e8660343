"""The addresses that a set of prefixes covers together, however these nest and adjoin."""

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from tokgate.policy.values.prefix_table import IPNetwork

_Ranges = tuple[list[int], list[int]]
"""First and last addresses of disjoint ranges, in order."""


class Cover:
    """The union of prefixes; a look-up is one binary search."""

    __slots__ = ("_ranges",)

    def __init__(self, prefixes: Iterable[IPNetwork]) -> None:
        """Merge the prefixes of each address family."""
        held = list(prefixes)
        self._ranges: Final[dict[int, _Ranges]] = {
            4: _merged(collapse_addresses(p for p in held if isinstance(p, IPv4Network))),
            6: _merged(collapse_addresses(p for p in held if isinstance(p, IPv6Network))),
        }

    def __bool__(self) -> bool:
        return any(starts for starts, _ in self._ranges.values())

    def holds(self, prefix: IPNetwork) -> bool:
        """Whether all of `prefix` is covered."""
        starts, ends = self._ranges[prefix.version]
        index = bisect_right(starts, int(prefix.network_address)) - 1
        return index >= 0 and ends[index] >= int(prefix.broadcast_address)

    def meets(self, prefix: IPNetwork) -> bool:
        """Whether any of `prefix` is covered."""
        starts, ends = self._ranges[prefix.version]
        index = bisect_right(starts, int(prefix.broadcast_address)) - 1
        return index >= 0 and ends[index] >= int(prefix.network_address)


def _merged(prefixes: Iterable[IPNetwork]) -> _Ranges:
    ordered = sorted((int(prefix.network_address), int(prefix.broadcast_address)) for prefix in prefixes)
    starts: list[int] = []
    ends: list[int] = []
    for start, end in ordered:
        if ends and start == ends[-1] + 1:
            ends[-1] = end
        else:
            starts.append(start)
            ends.append(end)
    return starts, ends
