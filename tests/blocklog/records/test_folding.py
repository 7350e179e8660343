"""Folding: repeats are counted, counts add up exactly whatever happens when, and what is open is bounded."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs.builders import at, present
from tokgate.blocklog.records.folding import NAMES_COUNTED, WINDOW, Fold, Folding, Shares, key_of
from tokgate.policy.decision import Decision, Reason, Signal, Verdict
from tokgate.policy.observation import Stage

NOON = at("2023-03-10T11:00:00Z")
BLOCKED = Decision(Verdict.BLOCK, Reason.BAN_BLOCK, service="clips", rule="suffix:clips.example.org", ban="ban")


@pytest.mark.parametrize(("now", "closed"), [(WINDOW - 0.001, 0), (WINDOW, 1), (WINDOW + 0.001, 1)])
def test_the_minute_is_half_open(now: float, closed: int) -> None:
    """A fold is open for 60 seconds, and not at the sixtieth."""
    folding: Folding[str] = Folding()
    folding.open(("k",), "event", 0.0)
    assert len(list(folding.due(now))) == closed
    assert len(folding) == 1 - closed


def test_one_more_closes_the_oldest() -> None:
    """What is open is bounded, and what had to be closed is handed out with its count."""
    folding: Folding[str] = Folding(limit=2)
    assert folding.open(("a",), "a", 0.0) is None
    assert folding.open(("b",), "b", 1.0) is None
    folding.repeat(("a",), NOON)
    closed = present(folding.open(("c",), "c", 2.0))
    assert (closed.event, closed.count, len(folding)) == ("a", 1, 2)


def test_a_wall_clock_that_jumps_back_loses_nothing() -> None:
    """First and last are as the wall clock showed them; the count and the minute don't depend on it."""
    folding: Folding[str] = Folding()
    folding.open(("k",), "event", 0.0)
    folding.repeat(("k",), NOON)
    folding.repeat(("k",), NOON.subtract(hours=1))
    (fold,) = folding.due(WINDOW)
    assert (fold.count, fold.first, fold.last) == (2, NOON, NOON.subtract(hours=1))


@pytest.mark.parametrize(
    "other",
    [
        replace(BLOCKED, verdict=Verdict.WARN),
        replace(BLOCKED, ban="other"),
        replace(BLOCKED, rule="suffix:example.org"),
        replace(BLOCKED, reason=Reason.BAN_OVERDUE),
        replace(BLOCKED, network="office"),
        replace(BLOCKED, exemption="press"),
        replace(BLOCKED, signal=Signal.DNS_NAME),
        replace(BLOCKED, service="other"),
    ],
    ids=str,
)
def test_what_reviewers_tell_apart_is_not_folded(other: Decision) -> None:
    """Events that a summary would count in different rows have different keys."""
    assert key_of("192.0.2.7", "a", BLOCKED, Stage.TLS) != key_of("192.0.2.7", "a", other, Stage.TLS)


def test_who_what_and_where_are_not_folded() -> None:
    """Another client, name, stage, or way of refusing is another event."""
    key = key_of("192.0.2.7", "a", BLOCKED, Stage.TLS)
    assert key == key_of("192.0.2.7", "a", replace(BLOCKED, next_change=NOON), Stage.TLS)
    assert len(
        {
            key,
            key_of("192.0.2.8", "a", BLOCKED, Stage.TLS),
            key_of("192.0.2.7", "b", BLOCKED, Stage.TLS),
            key_of("192.0.2.7", "a", BLOCKED, Stage.QUIC),
            key_of("192.0.2.7", "a", BLOCKED, Stage.TLS, opened=True),
            key_of("192.0.2.7", "a", BLOCKED, Stage.TLS, mismatch=True),
        }
    ) == 6  # fmt: skip


@pytest.mark.parametrize("names", [False, True])
def test_events_with_different_names(names: bool) -> None:
    """They are counted up to a bound: a scan of all names takes no memory. A fold of one name keeps none."""
    folding: Folding[str] = Folding()
    folding.open(("k",), "event", 0.0, names=names)
    for number in range(NAMES_COUNTED + 2):
        fold = present(folding.repeat(("k",), NOON))
        fold.meet(f"n{number}")
    (fold,) = folding.close()
    assert fold.count == NAMES_COUNTED + 2
    assert fold.names == ({f"n{number}": None for number in range(NAMES_COUNTED)} if names else None)


def test_a_clients_share() -> None:
    """So many records of its own a minute; what one client has had takes nothing from another, nor from the next."""
    shares = Shares(2)
    asked = [("a", 0.0), ("a", 1.0), ("a", 2.0), ("b", 2.0), ("a", WINDOW - 1), ("a", WINDOW), ("a", WINDOW + 1)]
    assert [shares.take(client, now) for client, now in asked] == [True, True, False, True, False, True, True]
    assert not shares.take("a", 2 * WINDOW - 1)
    assert shares.take("a", 2 * WINDOW)


steps = st.one_of(
    st.tuples(st.just("event"), st.sampled_from("abcde")),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.5, 20.0, 59.0, 60.0, 200.0])),
)


@given(st.lists(steps, max_size=80), st.integers(1, 4))
def test_counts_add_up(script: list[tuple[str, str | float]], limit: int) -> None:
    """Over any history: records (each 1, or what it tells) are the events, per key."""
    folding: Folding[str] = Folding(limit=limit)
    now, events, told = 0.0, Counter[str](), Counter[str]()

    def close(fold: Fold[str] | None) -> None:
        if fold is not None:
            told[fold.event] += fold.count

    for _, value in script:
        if isinstance(value, float):
            now += value
            continue
        for fold in folding.due(now):
            close(fold)
        events[value] += 1
        if folding.repeat((value,), NOON) is None:
            told[value] += 1
            close(folding.open((value,), value, now))
        assert len(folding) <= limit
    for fold in folding.close():
        close(fold)
    assert told == events
