"""Which CIDRs contain an address: one longest-prefix structure for clients and for the addresses of services.

Nested prefixes are flattened once into disjoint segments, so that a look-up is one binary search whose result lists
all containing prefixes, narrowest first.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any, Final

from tokgate.policy.names import IPAddress

IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Held[T]:
    """A value held by the prefix that put it there."""

    prefix: IPNetwork
    value: T


class _Family[T, R]:
    """The segments of one address family."""

    __slots__ = ("answers", "starts")

    def __init__(self, entries: list[Held[T]], answer: Callable[[tuple[Held[T], ...]], R]) -> None:
        """Sweep the prefixes from low to high with a stack of those that are open."""
        self.starts: Final[list[int]] = [0]
        self.answers: Final[list[R]] = [answer(())]
        interned: dict[tuple[int, ...], R] = {(): self.answers[0]}
        stack: list[Held[T]] = []

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


def _end(held: Held[Any]) -> int:
    """The first address after the prefix."""
    return int(held.prefix.broadcast_address) + 1


class PrefixTable[T, R]:
    """Immutable map from addresses to what `answer` makes of all prefixes that contain them; these may nest and repeat.

    `answer` gets the holders narrowest first and is called once for each distinct combination, when the table is built.
    """

    __slots__ = ("_v4", "_v6")

    def __init__(self, entries: Iterable[tuple[IPNetwork, T]], answer: Callable[[tuple[Held[T], ...]], R]) -> None:
        """Build in O(n log n); `entries` need no order."""
        held = [Held(prefix, value) for prefix, value in entries]
        self._v4: Final = _Family([h for h in held if h.prefix.version == 4], answer)
        self._v6: Final = _Family([h for h in held if h.prefix.version == 6], answer)

    def find(self, address: IPAddress) -> R:
        """The answer for `address`: shared between all addresses with the same containing prefixes."""
        family = self._v4 if isinstance(address, IPv4Address) else self._v6
        return family.find(int(address))
