"""A process that died is started again, at once or later: a program that can't start must not take all processors."""

from tokgate.service.children import Role
from tokgate.service.process_health import FIRST_DELAY, LONGEST_DELAY, STEADY, Restarts

SLOT = (Role.GATE, 1)


def delay_after(restarts: Restarts, lived: float) -> float:
    """Seconds between a death at the instant 1000 and the next start."""
    restarts.postpone(*SLOT, "gate-1 ended with signal 9", 1000.0, lived=lived)
    due = restarts.states[SLOT].not_before
    assert restarts.due(*SLOT, due)
    assert not restarts.due(*SLOT, due - 0.001)
    return due - 1000.0


def test_delays_grow_to_a_bound_and_begin_anew() -> None:
    """Doubled with each death in a row; who lived for a while before it died is started at once again."""
    restarts = Restarts(lambda what: None)
    assert restarts.due(*SLOT, 0.0)
    delays = [round(delay_after(restarts, 0.0), 6) for _ in range(12)]
    assert delays[:4] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY, 8 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY
    assert round(delay_after(restarts, STEADY), 6) == LONGEST_DELAY
    assert round(delay_after(restarts, STEADY + 1), 6) == FIRST_DELAY


def test_deaths_are_told_and_counted() -> None:
    """Of this slot only; those that hung among them."""
    told: list[str] = []
    restarts = Restarts(told.append)
    restarts.postpone(*SLOT, "gate-1 hung", 5.0, lived=1.0, hung=True)
    restarts.postpone(*SLOT, "gate-1 ended with signal 9", 6.0, lived=1.0)
    state = restarts.states[SLOT]
    assert (state.deaths, state.hangs, state.last) == (2, 1, "gate-1 ended with signal 9")
    assert [*state.recent] == [5.0, 6.0]
    assert told == ["gate-1 hung", "gate-1 ended with signal 9"]
    assert restarts.due(Role.GATE, 0, 6.0)
