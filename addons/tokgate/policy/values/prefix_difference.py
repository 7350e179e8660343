"""The addresses of some prefixes without those of others, as prefixes."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, summarize_address_range

from tokgate.policy.values.prefix_table import IPNetwork

_Range = tuple[int, int]
"""The first and the last address."""


def difference(prefixes: Iterable[IPNetwork], without: Iterable[IPNetwork]) -> Iterator[IPNetwork]:
    """Disjoint prefixes in order, IPv4 first; in O(n log n) for n prefixes of both kinds and in the result."""
    inside, outside = list(prefixes), list(without)
    for start, end in _ranges(_v4(inside), _v4(outside)):
        yield from summarize_address_range(IPv4Address(start), IPv4Address(end))
    for start, end in _ranges(_v6(inside), _v6(outside)):
        yield from summarize_address_range(IPv6Address(start), IPv6Address(end))


def _v4(prefixes: Iterable[IPNetwork]) -> list[_Range]:
    held = collapse_addresses(each for each in prefixes if isinstance(each, IPv4Network))
    return [(int(each.network_address), int(each.broadcast_address)) for each in held]


def _v6(prefixes: Iterable[IPNetwork]) -> list[_Range]:
    held = collapse_addresses(each for each in prefixes if isinstance(each, IPv6Network))
    return [(int(each.network_address), int(each.broadcast_address)) for each in held]


def _ranges(inside: list[_Range], outside: list[_Range]) -> Iterator[_Range]:
    """What is left of ranges: both lists are in order, and neither overlaps itself."""
    at = 0
    for start, end in inside:
        while at < len(outside) and outside[at][1] < start:
            at += 1
        cut = at
        while cut < len(outside) and outside[cut][0] <= end:
            if start < outside[cut][0]:
                yield start, outside[cut][0] - 1
            start = outside[cut][1] + 1
            cut += 1
        if start <= end:
            yield start, end
