"""Prefixes of addresses: which contain an address, what they cover together, what is left of some without others."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final

from tokgate.policy.values.hostname import IPAddress

IPNetwork = IPv4Network | IPv6Network


def within(inner: IPNetwork, outer: IPNetwork) -> bool:
    """Whether all of `inner` lies in `outer`; prefixes of different IP versions never do."""
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


_NO_HOSTS: Final = 2
"""Addresses of an IPv4 prefix that no host has: the network's and the broadcast."""


def last_host(prefix: IPNetwork) -> IPAddress:
    """The last address of a prefix that a host may have."""
    return prefix[-_NO_HOSTS] if prefix.num_addresses > _NO_HOSTS else prefix[0]


@dataclass(frozen=True, slots=True)
class PrefixEntry[T]:
    """A prefix and the value stored under it."""

    prefix: IPNetwork
    value: T


class PrefixTable[T, R]:
    """Immutable map from addresses to what `answer` makes of all prefixes that contain them; these may nest and repeat.

    Prefixes are flattened into disjoint segments, so that a look-up is one binary search.
    `answer` gets the entries longest prefix first. It is called once for each distinct combination, while building.
    """

    __slots__ = ("_v4", "_v6")

    def __init__(
        self, entries: Iterable[tuple[IPNetwork, T]], answer: Callable[[tuple[PrefixEntry[T], ...]], R]
    ) -> None:
        """Build in O(n log n); `entries` need no order."""
        made = [PrefixEntry(prefix, value) for prefix, value in entries]
        self._v4: Final = _Family([e for e in made if e.prefix.version == 4], answer)  # noqa: PLR2004  (IPv4)
        self._v6: Final = _Family([e for e in made if e.prefix.version == 6], answer)  # noqa: PLR2004  (IPv6)

    def find(self, address: IPAddress) -> R:
        """The answer for `address`: shared between all addresses with the same containing prefixes."""
        family = self._v4 if isinstance(address, IPv4Address) else self._v6
        return family.answers[bisect_right(family.starts, int(address)) - 1]


class _Family[T, R]:
    """The segments of one address family."""

    __slots__ = ("answers", "starts")

    def __init__(self, entries: list[PrefixEntry[T]], answer: Callable[[tuple[PrefixEntry[T], ...]], R]) -> None:
        """Sweep the prefixes in order of address, with a stack of those that contain the current one."""
        self.starts: Final[list[int]] = [0]
        self.answers: Final[list[R]] = [answer(())]
        interned: dict[tuple[int, ...], R] = {(): self.answers[0]}
        stack: list[PrefixEntry[T]] = []

        def segment(start: int) -> None:
            key = tuple(map(id, stack))
            if key not in interned:
                interned[key] = answer(tuple(reversed(stack)))  # the last opened is the narrowest
            if self.starts[-1] == start:
                self.answers[-1] = interned[key]
            else:
                self.starts.append(start)
                self.answers.append(interned[key])

        def close(before: int | None) -> None:
            while stack and (before is None or _end(stack[-1]) <= before):
                end = _end(stack[-1])
                while stack and _end(stack[-1]) == end:
                    stack.pop()
                segment(end)

        for entry in sorted(entries, key=lambda entry: (int(entry.prefix.network_address), entry.prefix.prefixlen)):
            start = int(entry.prefix.network_address)
            close(start)
            stack.append(entry)
            segment(start)
        close(None)


def _end(entry: PrefixEntry[Any]) -> int:
    """The first address after the prefix."""
    return int(entry.prefix.broadcast_address) + 1


class Cover:
    """The union of prefixes, however these nest and adjoin; a look-up is one binary search."""

    __slots__ = ("_ranges",)

    def __init__(self, prefixes: Iterable[IPNetwork]) -> None:
        """Merge the prefixes of each address family: what is left contains any prefix that is covered as a whole."""
        given = list(prefixes)
        self._ranges: Final = {version: list(zip(*_ranges(given, version), strict=True)) for version in (4, 6)}

    def __bool__(self) -> bool:
        return any(self._ranges.values())

    def holds(self, prefix: IPNetwork) -> bool:
        """Whether all of `prefix` is covered."""
        return self._last(prefix, prefix.network_address) >= int(prefix.broadcast_address)

    def meets(self, prefix: IPNetwork) -> bool:
        """Whether any of `prefix` is covered."""
        return self._last(prefix, prefix.broadcast_address) >= int(prefix.network_address)

    def _last(self, prefix: IPNetwork, address: IPAddress) -> int:
        """The last address of the range that begins at or before `address`; -1 without one."""
        if not self._ranges[prefix.version]:
            return -1
        starts, ends = self._ranges[prefix.version]
        index = bisect_right(starts, int(address)) - 1
        return ends[index] if index >= 0 else -1


def difference(prefixes: Iterable[IPNetwork], without: Iterable[IPNetwork]) -> Iterator[IPNetwork]:
    """The addresses of some prefixes without those of others, as disjoint prefixes in order, IPv4 first.

    In O(n log n) for n prefixes of both kinds and in the result.
    """
    inside, outside = list(prefixes), list(without)
    for kind, version, bits in ((IPv4Network, 4, 32), (IPv6Network, 6, 128)):
        for start, end in _left(_ranges(inside, version), _ranges(outside, version)):
            first = start
            while first <= end:  # the longest that begins here and is not longer than what is left
                size = min(first & -first or 1 << bits, 1 << (end - first + 1).bit_length() - 1)
                yield kind((first, bits - size.bit_length() + 1))
                first += size


def disjoint(prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
    """Disjoint prefixes that hold the same addresses, as few as can be, in order, IPv4 first.

    As `ipaddress.collapse_addresses`, twice as fast.
    """
    return list(difference(prefixes, ()))


def _ranges(prefixes: Iterable[IPNetwork], version: int) -> list[tuple[int, int]]:
    of_version = [(int(each.network_address), each) for each in prefixes if each.version == version]
    return merged((first, first + (1 << each.max_prefixlen - each.prefixlen) - 1) for first, each in of_version)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that hold the same numbers and neither overlap nor adjoin, in order: first and last number of each."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def _left(inside: list[tuple[int, int]], outside: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
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


WELL_KNOWN_NAT64: Final = IPv6Network("64:ff9b::/96")
"""RFC 6052 §2.1."""
NAT64_LENGTHS: Final = (32, 40, 48, 56, 64, 96)
"""The lengths that a translator's prefix may have (RFC 6052 §2.2)."""

_LAST_32_BITS: Final = (
    IPv6Network("::/96"),  # IPv4-compatible (RFC 4291 §2.5.5.1), but for `::` and `::1`
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped (RFC 4291 §2.5.5.2)
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated (RFC 2765 §2.1)
)
_UNSPECIFIED_AND_LOOPBACK: Final = (IPv6Address(0), IPv6Address(1))
_U_OCTET: Final = 8
"""The octet that holds no part of an address (RFC 6052 §2.2)."""


def embedded_ipv4(address: IPAddress, nat64_prefixes: Iterable[IPv6Network] = ()) -> tuple[IPv4Address, ...]:
    """The addresses that `address` stands for, each once; none for most. `nat64_prefixes`: what translators here use,
    out of `64:ff9b:1::/48` (RFC 8215) too: its addresses don't show how long a prefix is.

    NAT64 (RFC 6052; the well-known prefix always counts), 6to4 (RFC 3056), the client of a Teredo address (RFC 4380),
    IPv4-compatible, -mapped and -translated addresses.
    """
    if isinstance(address, IPv4Address) or address in _UNSPECIFIED_AND_LOOPBACK:
        return ()
    found = [IPv4Address(address.packed[12:]) for prefix in (*_LAST_32_BITS, WELL_KNOWN_NAT64) if address in prefix]
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.append(address.teredo[1])
    found += [_behind(address, prefix.prefixlen) for prefix in nat64_prefixes if address in prefix]
    return tuple(dict.fromkeys(found))


def _behind(address: IPv6Address, length: int) -> IPv4Address:
    """The four octets behind a prefix of `length` bits, in which the u-octet doesn't count."""
    octets = bytearray(address.packed)
    start = length // 8
    if start <= _U_OCTET:
        del octets[_U_OCTET]
    return IPv4Address(bytes(octets[start : start + 4]))
