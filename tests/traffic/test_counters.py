"""Counters: in memory that outlives the process, exact while others read; and what becomes of connections."""

import errno
import mmap
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Visibility
from tokgate.traffic.counters import (
    BOUNDS,
    CONNECT_SECONDS,
    ERROR,
    OVERFULL,
    OWN,
    ConnectError,
    Counters,
    DecisionKey,
    Histogram,
    ProcessCounters,
    SharedCounters,
    connect_error,
    cumulated,
    decisions_in,
    errors_in,
)


@pytest.fixture
def shared() -> Iterator[SharedCounters]:
    made = SharedCounters(size=4096)
    yield made
    made.close()


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_what_is_counted(keys: list[tuple[str, str]]) -> None:
    """Whatever the keys are: they read as often as they were counted, here, by who shares the memory, and later."""
    mine = SharedCounters(size=65536)
    other = SharedCounters(os.dup(mine.share()))
    mine.slot("not counted yet")
    for key in keys:
        mine.cells[mine.slot(*key)] += 1
    late = SharedCounters(os.dup(mine.share()))
    assert mine.read() == other.read() == late.read() == Counter(keys)
    for each in (mine, other, late):
        each.close()


def test_what_has_no_room_is_counted_together(shared: SharedCounters) -> None:
    """Counters without room for more names lose no count, only names."""
    for number in range(500):
        shared.cells[shared.slot("key", str(number))] += 2
    counts = shared.read()
    assert sum(counts.values()) == 1000
    assert counts[OVERFULL] > 2


def test_a_killed_process_leaves_its_counts(shared: SharedCounters) -> None:
    """Not even the last count before SIGKILL is lost."""
    pid = os.fork()
    if not pid:
        counters = Counters(shared)
        for _ in range(1234):
            counters.cells[counters.plain["office"]] += 1
        counters.add(ERROR, "gate")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    counts = shared.read()
    assert decisions_in(counts) == {DecisionKey("office", Visibility.SNI, Verdict.ALLOW): 1234}
    assert errors_in(counts) == {"gate": 1}


def test_a_descriptor_is_shared_until_it_is_closed(shared: SharedCounters) -> None:
    """Afterwards asking for it is an error, and counting goes on."""
    descriptor = shared.share()
    os.fstat(descriptor)
    shared.keep()
    shared.keep()
    with pytest.raises(ValueError, match="closed"):
        shared.share()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    shared.cells[shared.slot("key")] += 1
    assert shared.read() == {("key",): 1}


def test_reading_again_takes_no_memory(shared: SharedCounters) -> None:
    """Whoever reads each second for a year holds each key once."""
    for key in ("one", "two"):
        shared.cells[shared.slot(key)] += 1
        assert shared.read() == shared.read()
    assert len(shared._entries) == 2


def test_counters_in_words() -> None:
    """Errors are a mapping, and loops and timeouts numbers, in the same memory."""
    counters = Counters()
    assert not counters.errors
    for where in ("decide", "decide", "record"):
        counters.add(ERROR, where)
    counters.loops += 1
    counters.timeouts += 1
    counters.timeouts += 1
    counters.count(None, Visibility.NONE, Verdict.ALLOW)
    counters.add("connect-error", "refused")
    assert counters.shared.read()["connect-error", "refused"] == 1
    with pytest.raises(ValueError, match="closed"):
        counters.shared.share()
    assert (counters.errors, counters.errors["gate"]) == ({"decide": 2, "record": 1}, 0)
    assert (counters.loops, counters.timeouts) == (1, 2)
    assert counters.decisions == {DecisionKey("-", Visibility.NONE, Verdict.ALLOW): 1}


def test_the_sum_over_processes(shared: SharedCounters) -> None:
    """Metrics add up what all gates count; when one ends and another takes its number, no counter goes back."""
    processes, other = ProcessCounters(), SharedCounters(size=4096)
    assert processes.total() == Counter()
    for pid, counters, number in ((17, shared, 5), (18, other, 7)):
        processes.begin(pid, counters)
        counters.cells[counters.slot("key")] += number
    assert processes.total() == {("key",): 12}
    processes.end(17)
    assert processes.total() == {("key",): 12}
    again = SharedCounters(size=4096)
    processes.begin(18, again)
    again.cells[again.slot("key")] += 1
    assert processes.total() == {("key",): 13}
    processes.end(18)


def test_what_was_reported_before_a_new_version(shared: SharedCounters) -> None:
    """Gates go on counting while the supervisor becomes another program, and no connection is told of twice."""
    processes = ProcessCounters()
    slot = shared.slot("key")
    shared.cells[slot] = 7
    processes.begin(17, shared, {("key",): 5})
    assert processes.total() == {("key",): 2}
    assert processes.of(17) is shared
    processes.keep()
    with pytest.raises(ValueError, match="closed"):
        shared.share()
    processes.end(17)
    assert processes.total() == {("key",): 2}


def test_a_takeover_that_failed(shared: SharedCounters) -> None:
    """What was reported once for the program that was to take over stands still until then, and not for ever."""
    processes = ProcessCounters()
    processes.begin(17, shared)
    slot = shared.slot("key")
    shared.cells[slot] = 5
    assert processes.freeze() == {17: {("key",): 5}}
    shared.cells[slot] = 7
    assert processes.total() == {("key",): 5}
    processes.thaw()
    assert processes.total() == {("key",): 7}


def test_memory_of_ended_processes_is_given_back() -> None:
    """A supervisor that restarts gates for months keeps neither a descriptor nor the memory of each."""
    processes, counters = ProcessCounters(), SharedCounters(size=4096)
    processes.begin(17, counters)
    processes.end(17)
    with pytest.raises(ValueError, match="closed"):
        counters.share()
    with pytest.raises(ValueError, match="released"):
        counters.read()
    assert counters._memory.closed


def test_memory_that_the_system_does_not_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks memory for a process tries again and again, and must not run out of descriptors by that."""
    made, opened = os.memfd_create, list[int]()

    def refused(*_: int) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    def memory(name: str) -> int:
        opened.append(made(name))
        return opened[-1]

    monkeypatch.setattr(os, "memfd_create", memory)
    monkeypatch.setattr(mmap, "mmap", refused)
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        SharedCounters()
    (left,) = opened
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(left)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ECONNREFUSED, ConnectError.REFUSED),
        (errno.ENETUNREACH, ConnectError.UNREACHABLE),
        (errno.ETIMEDOUT, ConnectError.TIMEOUT),
        (errno.EADDRNOTAVAIL, ConnectError.NO_PORT),
        (errno.EMFILE, ConnectError.NO_DESCRIPTOR),
        (errno.EPERM, ConnectError.FORBIDDEN),
        (errno.EIO, ConnectError.OTHER),
        (None, ConnectError.OTHER),
    ],
)
def test_kinds(number: int | None, kind: ConnectError) -> None:
    """What this machine lacks is told from what is the destination's."""
    assert connect_error(number) is kind
    assert (kind in OWN) == (number in (errno.EADDRNOTAVAIL, errno.EMFILE))


def test_a_histogram() -> None:
    """A bucket holds what is no longer than its bound; Prometheus' ones hold those below as well."""
    counters = Counters()
    histogram = Histogram(counters.shared, CONNECT_SECONDS)
    for seconds in (0.0, BOUNDS[0], 0.02, 60.0):
        histogram.add(seconds)
    counted = {key[1]: number for key, number in counters.shared.read().items() if key[0] == CONNECT_SECONDS}
    buckets, total = cumulated(counted)
    assert [number for _, number in buckets] == [2.0, 2.0, *([3.0] * (len(BOUNDS) - 2)), 4.0]
    assert buckets[-1][0] == "+Inf"
    assert total == pytest.approx(60.025)


def test_nothing_was_counted() -> None:
    """All buckets are there from the start, so that the first connection is an increase."""
    assert cumulated({}) == ([(str(bound), 0.0) for bound in BOUNDS] + [("+Inf", 0.0)], 0.0)
