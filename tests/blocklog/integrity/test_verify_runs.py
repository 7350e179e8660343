"""What a log says of runs, and bounds of what is read: a tail that fits is not enough, a file without end no trap."""

import gzip
import math
from pathlib import Path

import pytest

from labs.appending import AppenderRuns, append
from labs.builders import snapshot
from labs.logs import refusal
from tokgate.blocklog.integrity import verify
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.records import lifecycle
from tokgate.blocklog.records.coverage import coverage_counted
from tokgate.blocklog.records.log_state import clock_set_forward, log_deleted, log_gap
from tokgate.blocklog.records.record import Record

type Found = list[tuple[int, str]]


class Log(AppenderRuns):
    """A log of whole runs, from `started` to `stopped`."""

    def whole_run(self, *records: Record, ended: bool = True) -> None:
        """Write a run; one that has not `ended` was killed after its first checkpoint."""
        run = self.begin()
        append(run, lifecycle.started(self.stamp(), 1, snapshot().policy))
        self.write(run, 0, attest=True)
        append(run, *records)
        if ended:
            append(run, lifecycle.stopped(self.stamp(), 1, "SIGTERM"))
            self.write(run, 0, attest=True)
        run.leave("closed")

    def faults(self, at_least: float = 0) -> Found:
        return [(one.line, one.code.value) for one in self.found(at_least=at_least)]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Two runs, of five lines each."""
    log = Log(tmp_path / "block.ndjson")
    for _ in range(2):
        log.whole_run(refusal())
    assert log.faults() == []
    return log


def test_forty_records_after_the_end(log: Log) -> None:
    """Nobody was there to write them, although their numbers and hashes fit; what begins the next run may be there."""
    log.forge(*[refusal()] * 40)
    assert log.faults() == [(11 + number, "foreign") for number in range(40)]
    log.forge(lifecycle.started(log.stamp(), 1, snapshot().policy))
    assert log.faults()[:40] == [(11 + number, "foreign") for number in range(40)]


def test_how_a_run_may_begin(log: Log) -> None:
    """The log's own records come before `started`, and accuse nobody while no checkpoint has followed."""
    log.forge(log_gap(log.stamp(), 1, log.now, log.now), clock_set_forward(log.stamp(), log.now))
    assert log.faults() == []


@pytest.mark.parametrize(("count", "found"), [(299, []), (300, [(311, "unsigned")])])
def test_a_start_that_nobody_signed(log: Log, count: int, found: Found) -> None:
    """The writer signs a run's first batch at once: what is longer was made up, or the key can't be used."""
    log.forge(lifecycle.started(log.stamp(), 1, snapshot().policy), *[refusal()] * count)
    assert log.faults() == found


def test_a_run_that_was_killed(log: Log) -> None:
    """Its last records stand unsigned, and that is no finding; nor is a record after an end that the key signs."""
    log.whole_run(*[refusal()] * 300, ended=False)
    assert log.faults() == []
    log.whole_run()
    assert log.faults() == []
    run = log.begin()
    append(run, refusal())
    log.write(run, 0, attest=True)
    assert log.faults() == []


@pytest.mark.parametrize(
    ("late", "between", "found"),
    [(0, None, []), (2, None, []), (3, None, [(14, "missing")]), (3600, None, [(14, "missing")]), (3600, "gap", [])],
)
def test_each_hour_is_counted(log: Log, late: int, between: str | None, found: Found) -> None:
    """A count begins where the one before it ended, unless records were lost or the clock was set."""
    counts, since = [], log.now
    for hour in (1, 2):
        log.now = log.now.add(hours=1)
        counts.append(coverage_counted(log.stamp(), {}, since.add(seconds=late if hour == 2 else 0)))
        if between and hour == 1:
            counts.append(log_gap(log.stamp(), 1, log.now, log.now))
        since = log.now
    log.now = log.now.subtract(hours=2)
    log.whole_run(*counts)
    assert [one for one in log.faults() if one[1] != "clock"] == found


@pytest.mark.parametrize(("at_least", "found"), [(0, []), (30, []), (31, ["deleted"]), (math.inf, ["deleted"])])
def test_a_deletion_before_the_policys_time(log: Log, at_least: float, found: list[str]) -> None:
    """A signed one, too: who has the key can state fewer days than the policy does."""
    log.now = log.now.add(hours=24 * 60)
    log.whole_run(log_deleted(log.stamp(), ["block-20230310T120000.000000Z.ndjson"], 30))
    assert [code for _, code in log.faults(at_least)] == found


def test_a_file_that_expands_without_end(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, what comes after it is verified, and it takes neither memory nor time."""
    monkeypatch.setattr(verify, "_ROOM", 100_000)
    bomb = log.path.with_name("bomb.ndjson.gz")
    for content in (b"\0" * (1 << 16) + b"\n", b"{}\n"):
        bomb.write_bytes(gzip.compress(content * ((1 << 21) // len(content))))
        verifier = Verifier()
        (told,) = [one for one in verifier.run([bomb, log.path]) if one.code == "unreadable"]
        assert "more of it than of any log" in told.message
        assert verifier.lines < 300_000


def test_lines_without_end_that_are_none(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand in a row are enough to tell."""
    monkeypatch.setattr(verify, "_MOST_TORN", 10)
    log.path.write_bytes(b"\n" * 1000 + log.path.read_bytes())
    assert log.faults() == [(13, "unreadable"), *((number, "torn") for number in range(1, 12))]
