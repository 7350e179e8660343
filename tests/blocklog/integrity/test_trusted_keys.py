"""Whose checkpoints are believed, in which order, and what those attest that were kept outside the log."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tokgate.blocklog.integrity.checkpoint import Checkpoint, sign
from tokgate.blocklog.integrity.trusted_keys import Attestations, ExternalCheckpoint, SigningState, TrustedKeys
from tokgate.blocklog.records.chain import Head


def signed(key: str, epoch: int = 0, announces: str | None = None, number: int = 9) -> Checkpoint:
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


AT = "2023-03-10T11:00:00.000000Z"
MINE, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2))


def made(number: int, digest: str = "a", key: Ed25519PrivateKey = MINE, chain: str = "c") -> Checkpoint:
    return sign(key, Head(chain, number, digest * 64), AT, 0)


def kept(*checkpoints: Checkpoint) -> Attestations:
    """Those that were kept, a line each."""
    return Attestations(
        (ExternalCheckpoint(each, ("kept", at)) for at, each in enumerate(checkpoints, 1)), lambda _: True
    )


def test_this_very_checkpoint() -> None:
    """One by another key over the same record is another one: it vouches for no key."""
    found = kept(made(5))
    assert found.holds(made(5))
    assert not found.holds(made(5, key=OTHER))
    assert not found.holds(made(6))
    assert not found.holds(made(5, "b"))
    assert not found.holds(made(5, chain="d"))


def test_what_contradicts() -> None:
    """Another hash for the same number of the same chain, in the log or among those that were kept."""
    found = kept(made(5), made(7), made(5, "b"), made(5), made(3, chain="d"))
    contradicted = found.against(Head("c", 7, "b" * 64))
    assert contradicted is not None
    assert contradicted.place == ("kept", 2)
    for head in (Head("c", 7, "a" * 64), Head("c", 6, "b" * 64), Head("e", 7, "b" * 64)):
        assert found.against(head) is None
    assert [(first.place[1], other.place[1]) for first, other in found.conflicts()] == [(1, 3)]
    assert [each.place[1] for each in found.last()] == [2, 5]
