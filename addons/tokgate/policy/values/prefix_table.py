"""Which prefixes contain an address: a longest-prefix-match table for clients and for the addresses of services.

Nested prefixes are flattened into disjoint segments, so that a look-up is one binary search. Its result lists all
containing prefixes, longest first.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any, Final

from tokgate.policy.values.hostname import IPAddress

IPNetwork = IPv4Network | IPv6Network


def within(inner: IPNetwork, outer: IPNetwork) -> bool:
    """Whether all of `inner` lies in `outer`; prefixes of different IP versions never do."""
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class PrefixEntry[T]:
    """A prefix and the value stored under it."""

    prefix: IPNetwork
    value: T


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

        for held in sorted(entries, key=lambda held: (int(held.prefix.network_address), held.prefix.prefixlen)):
            start = int(held.prefix.network_address)
            close(start)
            stack.append(held)
            segment(start)
        close(None)

    def find(self, address: int) -> R:
        return self.answers[bisect_right(self.starts, address) - 1]


def _end(held: PrefixEntry[Any]) -> int:
    """The first address after the prefix."""
    return int(held.prefix.broadcast_address) + 1


class PrefixTable[T, R]:
    """Immutable map from addresses to what `answer` makes of all prefixes that contain them; these may nest and repeat.

    `answer` gets the entries longest prefix first. It is called once for each distinct combination, while building.
    """

    __slots__ = ("_v4", "_v6")

    def __init__(
        self, entries: Iterable[tuple[IPNetwork, T]], answer: Callable[[tuple[PrefixEntry[T], ...]], R]
    ) -> None:
        """Build in O(n log n); `entries` need no order."""
        held = [PrefixEntry(prefix, value) for prefix, value in entries]
        self._v4: Final = _Family([h for h in held if h.prefix.version == 4], answer)  # noqa: PLR2004  (IPv4)
        self._v6: Final = _Family([h for h in held if h.prefix.version == 6], answer)  # noqa: PLR2004  (IPv6)

    def find(self, address: IPAddress) -> R:
        """The answer for `address`: shared between all addresses with the same containing prefixes."""
        family = self._v4 if isinstance(address, IPv4Address) else self._v6
        return family.find(int(address))
