"""Checkpoints that were kept outside the log: what they attest, and which of them contradict each other."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tokgate.blocklog.integrity.checkpoint import Checkpoint, sign
from tokgate.blocklog.integrity.trusted_keys import Attestations, ExternalCheckpoint
from tokgate.blocklog.records.chain import Head

AT = "2023-03-10T11:00:00.000000Z"
MINE, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2))


def signed(number: int, digest: str = "a", key: Ed25519PrivateKey = MINE, chain: str = "c") -> Checkpoint:
    """A checkpoint of a record."""
    return sign(key, Head(chain, number, digest * 64), AT, 0)


def kept(*checkpoints: Checkpoint) -> Attestations:
    """Those that were kept, a line each."""
    return Attestations(
        (ExternalCheckpoint(each, ("kept", at)) for at, each in enumerate(checkpoints, 1)), lambda _: True
    )


def test_this_very_checkpoint() -> None:
    """One by another key over the same record is another one: it vouches for no key."""
    found = kept(signed(5))
    assert found.holds(signed(5))
    assert not found.holds(signed(5, key=OTHER))
    assert not found.holds(signed(6))
    assert not found.holds(signed(5, "b"))
    assert not found.holds(signed(5, chain="d"))


def test_what_contradicts() -> None:
    """Another hash for the same number of the same chain, in the log or among those that were kept."""
    found = kept(signed(5), signed(7), signed(5, "b"), signed(5), signed(3, chain="d"))
    contradicted = found.against(Head("c", 7, "b" * 64))
    assert contradicted is not None
    assert contradicted.place == ("kept", 2)
    for head in (Head("c", 7, "a" * 64), Head("c", 6, "b" * 64), Head("e", 7, "b" * 64)):
        assert found.against(head) is None
    assert [(first.place[1], other.place[1]) for first, other in found.conflicts()] == [(1, 3)]
    assert [each.place[1] for each in found.last()] == [2, 5]


def test_what_is_not_believed_is_counted() -> None:
    """A signature that doesn't fit, and a key that isn't accepted."""
    forged = Checkpoint(head=Head("c", 9), at=AT, epoch=0, key=signed(1).key, next_key=None, signature="AA==")
    found = Attestations(
        [ExternalCheckpoint(each, ("kept", 1)) for each in (forged, signed(5), signed(6, key=OTHER))],
        lambda checkpoint: checkpoint.key == signed(1).key,
    )
    assert found.strange == 2
    assert [each.checkpoint.head.sequence for each in found.last()] == [5]
