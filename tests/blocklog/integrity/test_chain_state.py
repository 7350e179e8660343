"""The clock of a chain, as its checkpoints and the records between them tell it."""

from labs.builders import at
from tokgate.blocklog.integrity.chain_state import Clock

NOON = at("2023-03-10T12:00:00Z")


def test_a_clock_that_is_a_little_off() -> None:
    """Two seconds back are no finding, more are, and the next checkpoint is compared with the latest."""
    clock = Clock()
    assert clock.checkpoint(NOON) is None
    assert clock.checkpoint(NOON.subtract(seconds=2)) is None
    earlier = NOON.subtract(seconds=4, milliseconds=1)
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


def test_a_checkpoint_without_a_time() -> None:
    """It tells nothing, and nothing is forgotten for it."""
    clock = Clock()
    clock.checkpoint(NOON)
    assert clock.checkpoint(None) is None
    assert clock.checkpoint(NOON.subtract(hours=1)) == NOON
