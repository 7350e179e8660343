"""Coverage as the log tells it, hour by hour and from every gateway, added up."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any


def added_up(records: Iterable[tuple[Any, int]]) -> dict[str, dict[str, int]]:
    """Counts by network and visibility from `(coverage as JSON, how many such records)`, in order of names.

    What has another shape says nothing here.
    """
    sums: Counter[tuple[str, str]] = Counter()
    for said, times in records:
        networks = json.loads(said or "null")  # not every engine tells absent from empty
        for network, visible in networks.items() if isinstance(networks, dict) else ():
            for visibility, number in visible.items() if isinstance(visible, dict) else ():
                sums[network, visibility] += number * times if isinstance(number, int) else 0
    found: dict[str, dict[str, int]] = {}
    for (network, visibility), number in sorted(sums.items()):
        found.setdefault(network, {})[visibility] = number
    return found
