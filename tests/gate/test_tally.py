"""Counts in shared memory: what they hold, who may read them, and that they outlive whoever counts."""

import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokgate.blocklog.observation import Visibility
from tokgate.gate.counters import Counters, Kind, decisions_in, errors_in
from tokgate.gate.tally import OVERFULL, Tally
from tokgate.policy.decision import Verdict


@pytest.fixture
def tally() -> Iterator[Tally]:
    """A small one."""
    made = Tally(size=4096)
    yield made
    made.close()


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_what_is_counted(keys: list[tuple[str, str]]) -> None:
    """Whatever the keys are: they read as often as they were counted, here and by who shares the memory."""
    mine = Tally(size=65536)
    other = Tally(os.dup(mine.share()))
    for key in keys:
        mine.count(*key)
    assert mine.read() == other.read() == Counter(keys)
    mine.close()
    other.close()


def test_what_has_no_room_is_counted_together(tally: Tally) -> None:
    """A full tally loses no count, only names."""
    for number in range(500):
        tally.count("key", str(number), number=2)
    counts = tally.read()
    assert sum(counts.values()) == 1000
    assert counts[OVERFULL] > 2


def test_a_killed_process_leaves_its_counts(tally: Tally) -> None:
    """Not even the last count before SIGKILL is lost."""
    pid = os.fork()
    if not pid:
        counters = Counters(tally)
        for _ in range(1234):
            counters.cells[counters.plain["office"]] += 1
        counters.errors["gate"] += 1
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    counts = tally.read()
    assert decisions_in(counts) == {Kind("office", Visibility.SNI, Verdict.ALLOW): 1234}
    assert errors_in(counts) == {"gate": 1}


def test_a_descriptor_is_shared_until_it_is_closed(tally: Tally) -> None:
    """Afterwards asking for it is an error, and counting goes on."""
    assert tally.share() >= 0
    tally.keep()
    tally.keep()
    with pytest.raises(ValueError, match="closed"):
        tally.share()
    tally.count("key")
    assert tally.read() == {("key",): 1}


def test_counters_in_words() -> None:
    """Errors are a mapping, and loops and timeouts numbers, in the same memory."""
    counters = Counters()
    assert not counters.errors
    counters.errors["decide"] += 2
    counters.errors["record"] += 1
    del counters.errors["record"]
    counters.loops += 1
    counters.timeouts += 1
    counters.timeouts += 1
    counters.count(None, Visibility.NONE, Verdict.ALLOW)
    assert counters.errors == {"decide": 2}
    assert repr(counters.errors) == "{'decide': 2}"
    assert (counters.loops, counters.timeouts) == (1, 2)
    assert counters.decisions == {Kind("-", Visibility.NONE, Verdict.ALLOW): 1}
