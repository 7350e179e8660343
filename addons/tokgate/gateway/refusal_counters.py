"""The table's named counters of what the kernel refuses, which no gate sees: declared, read, summed."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tokgate.policy.observation import KernelRefusal

_PREFIX: Final = "refused_"


def counting(kind: KernelRefusal) -> str:
    """The statement of a rule that counts."""
    return f"counter name {_PREFIX}{kind}"


def declared() -> Iterator[Iterable[str]]:
    """All counters, whatever the policy: so they keep their values when it changes."""
    for kind in KernelRefusal:
        yield (f"counter {_PREFIX}{kind} {{", "}")


def packets(listing: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The packets by kind, from what `list counters table` returns."""
    found = [each["counter"] for each in listing if "counter" in each]
    return {str(each["name"]).removeprefix(_PREFIX): int(each["packets"]) for each in found}


class RefusalTotals:
    """Sums that only grow, also where a counter begins anew because its table was lost."""

    def __init__(self, now: Mapping[str, int]) -> None:
        """Counting begins with the values that the kernel's counters have `now`."""
        self._seen = dict(now)
        self.totals: Final[dict[str, int]] = {kind.value: 0 for kind in KernelRefusal}

    def take(self, now: Mapping[str, int]) -> None:
        """Add what came since the last call."""
        for kind in self.totals:
            number, seen = now.get(kind, 0), self._seen.get(kind, 0)
            self.totals[kind] += number - seen if number >= seen else number
        self._seen = dict(now)
