"""When coverage is told, and that each count is told once."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs import builders
from tokgate.blocklog.records.record import Observer, new_stamp
from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Visibility
from tokgate.runtime.instance import CoverageReporter
from tokgate.traffic.counters import UNREADABLE, DecisionKey

START = builders.at("2023-03-10T09:59:59Z")
OBSERVER = Observer(hostname="gateway.example.org", version="0")
KINDS = [DecisionKey(n, v, w) for n in ("office", "-") for v in (Visibility.SNI, Visibility.NONE) for w in Verdict]


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2023-03-10T09:59:59.999999Z", False),
        ("2023-03-10T10:00:00Z", True),
        ("2023-03-10T12:30:00Z", True),
        ("2023-03-10T09:00:00Z", False),
        ("2023-03-10T08:59:59Z", True),
    ],
)
def test_due_with_each_hour_of_the_clock(now: str, due: bool) -> None:
    """Also when the clock was set back."""
    assert CoverageReporter(START).due(builders.at(now)) is due


def told(teller: CoverageReporter, counts: Counter[DecisionKey], now: Instant) -> dict[str, Any]:
    return teller.tell(counts, now)(new_stamp(now, OBSERVER))


def test_tells_only_what_is_new(valid_record: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Since the last record; verdicts are added up; an hour without traffic is a record as well."""
    teller = CoverageReporter(START)
    counts = Counter({KINDS[0]: 3, KINDS[1]: 2, KINDS[-1]: 1})
    first = valid_record(told(teller, counts, builders.at("2023-03-10T10:00:00Z")))
    assert first["tokgate"]["coverage"] == {"office": {"sni": 5}, "-": {"none": 1}}
    assert first["tokgate"]["since"] == "2023-03-10T09:59:59.000000Z"
    counts[KINDS[0]] += 4
    second = valid_record(told(teller, counts, builders.at("2023-03-10T11:00:00Z")))
    assert second["tokgate"]["coverage"] == {"office": {"sni": 4}}
    assert second["tokgate"]["since"] == first["@timestamp"]
    third = valid_record(told(teller, counts, builders.at("2023-03-10T08:00:00Z")))
    assert third["tokgate"]["coverage"] == {}
    assert third["tokgate"]["since"] == third["@timestamp"]  # the clock was set back


def test_what_could_not_be_read_is_told_once(valid_record: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """It is part of the traffic, and has a sentence and a number of its own."""
    teller, kind = CoverageReporter(START), DecisionKey("office", Visibility.NONE, UNREADABLE)
    first = valid_record(told(teller, Counter({kind: 3, KINDS[0]: 1}), START))
    assert first["tokgate"]["coverage"] == {"office": {"none": 3, "sni": 1}}
    assert first["tokgate"]["unreadable"] == 3
    assert "Refused under no ban, since it could not be read: 3." in first["message"]
    second = valid_record(told(teller, Counter({kind: 3, KINDS[0]: 2}), START))
    assert "unreadable" not in second["tokgate"]
    assert "under no ban" not in second["message"]


def test_what_the_kernel_refused_is_told_once() -> None:
    """Only what came since the last record, and no kind of which nothing came."""
    teller = CoverageReporter(START)

    def gateway(**refused: int) -> Any:
        return teller.tell({}, START, refused)(new_stamp(START, OBSERVER))["tokgate"].get("gateway")

    assert gateway(quic=3, unknown_clients=0) == {"refused": {"quic": 3}}
    assert gateway(quic=3, unknown_clients=0) is None
    assert gateway(quic=4, unknown_clients=2) == {"refused": {"quic": 1, "unknown_clients": 2}}


@given(st.lists(st.lists(st.sampled_from(KINDS)), max_size=8))
def test_records_add_up(hours: list[list[DecisionKey]]) -> None:
    """However counting and telling alternate, all records together are all that was counted."""
    teller, counts, sums = CoverageReporter(START), Counter[DecisionKey](), Counter[str]()
    for hour in hours:
        counts.update(hour)
        for visible in told(teller, counts, START)["tokgate"]["coverage"].values():
            sums.update(visible)
    expected = Counter[str]()
    for kind, number in counts.items():
        expected[kind.visibility.value] += number
    assert sums == expected
