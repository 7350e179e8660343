"""Sums over the log's `coverage-counted` records, of all hours and gateways."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any


def sum_coverage(records: Iterable[tuple[Any, int]]) -> dict[str, dict[str, int]]:
    """Counts by network and visibility, sorted by name, from pairs of `tokgate.coverage` as JSON and its records.

    A value of another shape counts as nothing.
    """
    sums: Counter[tuple[str, str]] = Counter()
    for text, times in records:
        networks = json.loads(text or "null")  # ClickHouse gives empty text where the field is absent
        for network, visible in networks.items() if isinstance(networks, dict) else ():
            for visibility, number in visible.items() if isinstance(visible, dict) else ():
                sums[network, visibility] += number * times if isinstance(number, int) else 0
    found: dict[str, dict[str, int]] = {}
    for (network, visibility), number in sorted(sums.items()):
        found.setdefault(network, {})[visibility] = number
    return found
