"""The clock of a chain, as its checkpoints tell it; two records that claim one number, in bounded memory."""

import pytest

from labs.builders import at, present
from tokgate.blocklog.integrity import chain_state
from tokgate.blocklog.integrity.chain_state import Clock, RecentRecord, RecentRecords
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.record import Record

NOON = at("2023-03-10T12:00:00Z")


def test_a_clock_that_is_a_little_off() -> None:
    """Two seconds back are no finding, more are; the next checkpoint is compared with the latest that has a time."""
    clock = Clock()
    assert clock.checkpoint(NOON) is None
    assert clock.checkpoint(NOON.subtract(seconds=2)) is None
    earlier = NOON.subtract(seconds=4, milliseconds=1)
    assert clock.checkpoint(None) is None
    assert clock.checkpoint(earlier) == NOON.subtract(seconds=2)
    assert clock.checkpoint(earlier) is None


def test_a_clock_that_was_set_back_aloud() -> None:
    """A record excuses one checkpoint, not those after it; how often it was is counted."""
    clock = Clock()
    clock.checkpoint(NOON)
    for number in (1, 2):
        clock.tell()
        assert clock.checkpoint(NOON.subtract(hours=number)) is None
        assert clock.steps == number
    assert clock.checkpoint(NOON.subtract(hours=3)) == NOON.subtract(hours=2)


MOST = 10


class Chain:
    """Records of one chain, as a verifier meets them line by line."""

    def __init__(self) -> None:
        record, head = link(Head("chain"), {"n": 0})
        self.lines = 1
        self.recent = RecentRecords(RecentRecord(head, ("log", 1)))
        assert self.recent.rival(record, head) is None

    def meet(self, record: Record, after: Head) -> Head:
        """The next line: a record that follows some head."""
        linked, head = link(after, record)
        self.lines += 1
        self.recent.add(head, ("log", self.lines), self.recent.rival(linked, head))
        return head

    def grow(self, count: int) -> None:
        """So many records that follow the last one."""
        for _ in range(count):
            self.meet({"n": self.lines}, self.recent.head.head)


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Chain:
    """A chain of one record, of which ten are held at most."""
    monkeypatch.setattr(chain_state, "_MOST", MOST)
    return Chain()


def test_a_log_without_checkpoints_takes_no_memory(chain: Chain) -> None:
    """What is too far back to be decided about is forgotten; what is held is known to the last record."""
    chain.grow(MOST - 1)
    first = present(chain.recent.hashes(1))
    assert len(first) == MOST - 1
    chain.grow(1)
    assert chain.recent.hashes(1) is None
    chain.grow(3)
    assert chain.recent.hashes(MOST) is None
    held = present(chain.recent.hashes(MOST + 1))
    assert len(held) == 3
    assert list(chain.recent.settle()) == []


def test_a_forged_record_is_never_forgotten(chain: Chain) -> None:
    """It is told of, by its line, also where a checkpoint comes later than any that tokgate writes."""
    chain.grow(2)
    true = chain.recent.head.head
    chain.meet({"n": "forged"}, true)
    chain.meet({"n": "forged too"}, chain.recent.head.head)
    chain.meet({"n": "true"}, true)
    chain.grow(2 * MOST)
    assert [node.place for node in chain.recent.settle()] == [("log", 4), ("log", 5)]
    assert list(chain.recent.settle()) == []
