"""The hourly record of near misses, in words and in fields."""

from collections.abc import Callable
from typing import Any

import pytest

from labs.builders import at
from labs.samples import stamp
from tokgate.blocklog.records.near_miss_record import near_misses
from tokgate.policy.analysis.likeness import How, Likeness

SINCE = at("2023-03-10T10:00:00Z")


@pytest.mark.parametrize(
    ("count", "what", "names"),
    [
        (1, "1 name resembles", "n0.example"),
        (3, "3 names resemble", "n0.example, n1.example, n2.example"),
        (5, "5 names resemble", "n0.example, n1.example, n2.example and 2 more"),
    ],
)
def test_near_misses(count: int, what: str, names: str, valid_record: Callable[[Any], Any]) -> None:
    """The message names the first three and counts the others; the fields have all of them."""
    found = [(Likeness(f"n{n}.example", "clips", "n", How.CONTAINS), n + 1) for n in range(count)]
    record = valid_record(near_misses(stamp(), found, SINCE))
    assert record["message"] == (
        f"From 2023-03-10T10:00:00.000000Z to 2023-03-10T11:00:00.123456Z {what} a banned service without matching a "
        f"rule of it: {names}. Nothing was refused for that."
    )
    told = record["tokgate"]["near_misses"]
    assert [(each["name"], each["count"]) for each in told["names"]] == [(f"n{n}.example", n + 1) for n in range(count)]
    assert told["names"][0] | {"service": "clips", "word": "n", "how": How.CONTAINS.value} == told["names"][0]
    assert "more" not in told
    assert near_misses(stamp(), found, SINCE, more=7)["tokgate"]["near_misses"]["more"] == 7
