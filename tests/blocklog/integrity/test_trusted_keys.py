"""Whose checkpoints are believed: given keys in their order, those that they announce, and without any the first."""

import pytest

from tokgate.blocklog.integrity.checkpoint import Checkpoint
from tokgate.blocklog.integrity.trusted_keys import SigningState, TrustedKeys
from tokgate.blocklog.records.chain import Head


def signed(key: str, epoch: int = 0, announces: str | None = None, number: int = 9) -> Checkpoint:
    """A checkpoint by a key."""
    return Checkpoint(head=Head("chain", number), at="2023-03-10T11:00:00Z", epoch=epoch, key=key, next_key=announces)


@pytest.mark.parametrize(
    ("given", "keys", "expected"),
    [
        ("", "aab", [True, True, False]),
        ("abc", "abc", [True, True, True]),
        ("abc", "acb", [True, True, False]),
        ("abc", "aabbcc", [True] * 6),
        ("abc", "bab", [True, False, True]),
        ("abcd", "abad", [True, True, False, True]),
        ("ab", "ax", [True, False]),
    ],
)
def test_keys_take_over_in_their_order(given: str, keys: str, expected: list[bool]) -> None:
    """Whoever has a key that was replaced can't sign again; a key that was left out is no gap."""
    trust, state = TrustedKeys(list(given)), SigningState(0)
    found = []
    for key in keys:
        found.append(trust.in_turn(state, signed(key)))
        if found[-1]:
            state.by(signed(key))
    assert found == expected
    assert bool(trust) is bool(given)


def test_keys_that_are_announced() -> None:
    """They are believed from then on, each of its own announcer only if that was believed itself."""
    trust = TrustedKeys(["a"])
    assert not trust.accepts(signed("b", announces="c"))
    assert not trust.accepts(signed("c"))
    assert trust.accepts(signed("a", announces="b"))
    assert trust.accepts(signed("b", announces="c"))
    assert trust.accepts(signed("c"))
    assert TrustedKeys().accepts(signed("x"))


def test_how_far_a_chain_is_signed() -> None:
    """To the record before a checkpoint; what follows the checkpoint's own record is not signed yet."""
    state = SigningState(0)
    state.by(signed("a", 4, "b", 9))
    assert (state.reach, state.key, state.next_key, state.epoch) == (10, "a", "b", 4)


def test_a_strange_key_is_told_of_once() -> None:
    """Also where it announces others: one intruder, one finding."""
    state = SigningState(0)
    keys = [signed("x", announces="y"), signed("x"), signed("y", announces="z"), signed("z"), signed("other")]
    assert [state.is_strange(each) for each in keys] == [False, True, True, True, False]
