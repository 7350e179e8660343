"""A chain that goes on after a restart, and keys that take each other's place."""

from collections.abc import Callable
from pathlib import Path

import pytest
from whenever import Instant

from labs.samples import OBSERVER
from tokgate.blocklog.integrity.checkpoint import Signer, read_key
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.log_state import log_checkpoint
from tokgate.blocklog.records.record import Record, encode, new_stamp, timestamp
from tokgate.blocklog.write.checkpointer import Checkpointer, LogOptions

NOW = Instant.from_utc(2023, 3, 10)
AT = timestamp(NOW)
HEAD = Head("c0ffee", 7, "0" * 64)


@pytest.fixture
def checkpointer(tmp_path: Path) -> Checkpointer:
    """Of a run that has just begun."""
    return Checkpointer(tmp_path / "block.ndjson", LogOptions(), _unexpected)


def _unexpected(error: Exception) -> None:
    raise error


def _unsigned(record: Record) -> None:
    record["tokgate"]["checkpoint"]["signature"] = "A" * 86 + "=="


def _of_another_number(record: Record) -> None:
    record["event"]["sequence"] += 1


def _of_another_content(record: Record) -> None:
    record["message"] = "another"


def _of_no_chain(record: Record) -> None:
    del record["tokgate"]["chain"]


def _without_fields(record: Record) -> None:
    record["tokgate"]["checkpoint"] = "log-checkpoint"


@pytest.mark.parametrize(
    "forge", [_unsigned, _of_another_number, _of_another_content, _of_no_chain, _without_fields, None]
)
def test_whose_checkpoint_a_line_is(
    checkpointer: Checkpointer, tmp_path: Path, forge: Callable[[Record], None] | None
) -> None:
    """Where no journal is left, a run goes on after the last checkpoint that its key signed, and after no other's."""
    mine = checkpointer.checkpoint(HEAD, AT)
    assert mine is not None
    record, head = link(HEAD, log_checkpoint(new_stamp(NOW, OBSERVER), mine.as_json()))
    if forge is not None:
        forge(record)
    assert checkpointer.signed(encode(record)) == (head if forge is None else None)
    assert checkpointer.signed(encode(record)[:-9]) is None
    other = Signer(tmp_path / "other.key").sign(HEAD, AT)
    assert checkpointer.signed(encode(link(HEAD, log_checkpoint(new_stamp(NOW, OBSERVER), other.as_json()))[0])) is None
    after = Head(HEAD.chain, HEAD.sequence + 1, HEAD.hash)
    assert checkpointer.signed(encode(link(after, log_checkpoint(new_stamp(NOW, OBSERVER), mine.as_json()))[0])) is None


def test_an_evolving_key_is_replaced_once_its_checkpoint_is_on_the_disk(tmp_path: Path) -> None:
    """A checkpoint lost in a crash leaves the key that the last one on the disk announces: else nothing verifies."""
    path = tmp_path / "block.key"
    signer = Signer(path, evolving=True)
    first, again = signer.sign(HEAD, AT), signer.sign(HEAD, AT)
    assert (first.epoch, again.key, again.next_key) == (0, first.key, first.next_key)
    signer.used(first)
    second = signer.sign(HEAD, AT)
    assert (second.epoch, second.key) == (1, first.next_key)
    assert second.next_key not in (first.key, first.next_key)
    assert read_key(path)[1] == 1
    assert Signer(path, evolving=True).sign(HEAD, AT).key == first.next_key


@pytest.mark.parametrize("other", [lambda signer: signer, lambda signer: Signer(signer.path, evolving=True)])
def test_another_checkpoint_replaces_no_key(tmp_path: Path, other: Callable[[Signer], Signer]) -> None:
    """A checkpoint that announced another key, or whose key has taken over, must not use the next one up."""
    signer = Signer(tmp_path / "block.key", evolving=True)
    checkpoint = other(signer).sign(HEAD, AT)
    signer.sign(HEAD, AT)
    signer.used(checkpoint)
    kept = signer.path.read_bytes()
    expected = signer.sign(HEAD, AT)
    signer.used(checkpoint)
    assert signer.path.read_bytes() == kept
    assert signer.sign(HEAD, AT).key == expected.key


def test_a_key_that_stays(tmp_path: Path) -> None:
    """Without forward security all checkpoints are signed by the key whose public part was kept, and announce none."""
    signer = Signer(tmp_path / "block.key")
    kept = signer.path.read_bytes()
    checkpoint = signer.sign(HEAD, AT)
    signer.used(checkpoint)
    assert checkpoint.next_key is None
    assert signer.path.read_bytes() == kept
