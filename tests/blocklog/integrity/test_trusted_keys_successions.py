"""The first public key verifies what retention left, and nobody who has today's key passes for an earlier one."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from whenever import Instant

from labs.appending import AppenderRuns
from labs.builders import at
from labs.samples import OBSERVER
from tokgate.blocklog.integrity.chain_state import Finding
from tokgate.blocklog.integrity.checkpoint import (
    Checkpoint,
    key_text,
    parse_checkpoints,
    read_key,
    read_public_key,
    sign,
)
from tokgate.blocklog.integrity.trusted_keys import checkpoints_in
from tokgate.blocklog.paths import key_path_for, public_path_for, successions_path_for
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.log_state import log_checkpoint, log_continued, log_deleted
from tokgate.blocklog.records.record import encode, new_stamp, timestamp
from tokgate.blocklog.write.checkpointer import LogOptions, append_succession
from tokgate.blocklog.write.segment import Rotation

NAMED = "block-20230101T000000.000000Z.ndjson"
"""A file that a forger says retention deleted."""


class Log(AppenderRuns):
    """A log whose key signs once and whose files are kept for three days."""

    def __init__(self, folder: Path, days: int = 0, *, forward_secure: bool = True) -> None:
        self.kept: list[str] = []
        options = LogOptions(forward_secure=forward_secure, retention_days=3, outlets=(self.kept.append,))
        super().__init__(folder / "block.ndjson", Rotation(), options, "2023-03-01T12:00Z")
        for _ in range(days):
            self.run_for_a_day()
        assert not self.troubles
        self.successions = successions_path_for(self.path)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return list(parse_checkpoints(self.successions.read_text().splitlines()))

    def findings(self, *, whole: bool = True, elsewhere: bool = False) -> list[Finding]:
        """What who holds the first public key finds."""
        first = read_public_key(public_path_for(key_path_for(self.path)))
        lines = self.successions.read_text().splitlines() if self.successions.exists() else ()
        beside = checkpoints_in(lines, str(self.successions))
        return self.found(first, kept=self.kept if elsewhere else (), whole=whole, successions=beside)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """Ten days of records, a file and a key each, of which retention left five."""
    return Log(tmp_path_factory.mktemp("log"), 10)


@pytest.fixture
def log(written: Log, tmp_path: Path) -> Log:
    """The same, for a test of its own."""
    shutil.copytree(written.path.parent, tmp_path, dirs_exist_ok=True)
    log = Log(tmp_path)
    log.now, log.kept = written.now, [*written.kept]
    return log


def codes(found: Sequence[Finding]) -> set[str]:
    return {one.code.value for one in found}


def test_the_first_key_verifies_what_retention_left(log: Log) -> None:
    """The keys between were kept, one for each checkpoint; without them nothing leads to the present ones."""
    assert len(log.files) == 5
    assert [one.epoch for one in log.checkpoints] == list(range(10))
    assert log.findings() == log.findings(elsewhere=True) == []
    log.successions.unlink()
    assert codes(log.findings()) == {"key", "missing"}


@pytest.mark.parametrize("gone", [0, 1, 3])
def test_a_file_that_retention_did_not_delete_is_missing(log: Log, gone: int) -> None:
    """Whichever it is, and although its keys were kept."""
    log.files[gone].unlink()
    assert "missing" in codes(log.findings())


@dataclass
class Forger:
    """Somebody who took the key that is there now, and may write to the folder. `name` is the chain that is forged."""

    log: Log
    name: str
    number: int
    at: Instant

    def __post_init__(self) -> None:
        self.key, self.epoch = read_key(key_path_for(self.log.path))

    def signed(self, head: Head) -> Checkpoint:
        """A checkpoint by the stolen key, and the next key to go on with."""
        following = Ed25519PrivateKey.generate()
        made = sign(self.key, head, timestamp(self.at), self.epoch, key_text(following.public_key()))
        self.key, self.epoch = following, self.epoch + 1
        return made

    def write(self) -> None:
        """A log in the place of what is there: it continues a file that a record of it says was deleted."""
        for path in self.log.files:
            path.unlink()
        stamp = new_stamp(self.at, OBSERVER)
        head = Head(self.name, self.number - 1, "0" * 64)
        begins = [log_continued(stamp, file=NAMED, records=1, size=1, why="the day was over", last=head)]
        records = [*(begins if self.number > 1 else ()), stopped(stamp, 1, "SIGTERM")]
        lines = []
        for record in [*records, log_deleted(stamp, [NAMED], 1), None]:
            linked, head = link(head, log_checkpoint(stamp, self.signed(head).as_json()) if record is None else record)
            lines.append(encode(linked))
        self.log.path.write_bytes(b"".join(lines))


def test_todays_key_signs_nothing_earlier(log: Log) -> None:
    """A log that begins where the true one does, in its chain, signed anew: that key was not in force there."""
    first = json.loads(log.files[0].read_bytes().splitlines()[0])
    Forger(log, log.checkpoints[0].head.chain, first["event"]["sequence"], log.now).write()
    assert "key" in codes(log.findings())
    assert "key" in codes(log.findings(whole=False))


def own_succession(log: Log, forger: Forger) -> None:
    """One more line for the keys that were kept, of long ago."""
    now, forger.at = forger.at, at("2023-01-01T00:00Z")
    append_succession(log.successions, forger.signed(Head(forger.name, forger.number - 5, "0" * 64)).message())
    forger.at = now


@pytest.mark.parametrize("prepare", [lambda log, forger: None, own_succession], ids=["nothing", "a line of its own"])
@pytest.mark.parametrize("name", ["the true chain", "another"])
@pytest.mark.parametrize("number", [1, 1000])
def test_a_deletion_by_who_has_todays_key(
    log: Log, prepare: Callable[[Log, Forger], object], name: str, number: int
) -> None:
    """All was deleted a day later, says a signed record: but what earlier keys signed was not that old."""
    chain = log.checkpoints[-1].head.chain
    forger = Forger(log, chain if name == "the true chain" else "c", number, log.now.subtract(hours=1))
    prepare(log, forger)
    forger.write()
    found = log.findings()
    assert codes(found) & {"missing", "key"}
    assert codes(log.findings(elsewhere=True)) & {"missing", "key", "cut"}
    if number > 1:
        assert any("so late" in one.message for one in found)


def test_a_date_before_an_earlier_keys(log: Log) -> None:
    """Also of single files: what today's key signed is not older than what the keys before it signed."""
    Forger(log, log.checkpoints[-1].head.chain, 1000, at("2023-03-05T00:00Z")).write()
    assert codes(log.findings(whole=False)) == {"clock"}


def test_lines_of_others_lead_nowhere(log: Log) -> None:
    """Neither rubbish, nor a stranger's checkpoint, nor a copy of an earlier one keeps the first key from verifying."""
    lines = log.successions.read_text().splitlines()
    chain = log.checkpoints[0].head.chain
    strange = sign(Ed25519PrivateKey.generate(), Head(chain, 99, "0" * 64), "2023", 0).message()
    changed = lines[0].replace('"epoch":0', '"epoch":99')
    log.successions.write_text("\n".join([strange, changed, "x", lines[0], *lines, lines[0]]))
    assert log.findings() == []


def test_a_line_that_was_cut_short(log: Log) -> None:
    """A full disk or a crash leaves part of a line; the next one begins a line all the same."""
    whole = log.successions.read_bytes()
    log.successions.write_bytes(whole + whole[:100])
    append_succession(log.successions, log.checkpoints[-1].message())
    assert [one.epoch for one in log.checkpoints] == [*range(10), 9]


def test_a_key_is_replaced_once_its_checkpoint_is_kept(log: Log, tmp_path: Path) -> None:
    """If it can't be, the key signs again, and the trouble is told; a link is not followed."""
    log.successions.rename(tmp_path / "aside")
    log.successions.symlink_to(tmp_path / "aside")
    (_, before), size = read_key(key_path_for(log.path)), (tmp_path / "aside").stat().st_size
    log.run()
    assert read_key(key_path_for(log.path))[1] == before
    assert {type(trouble) for trouble in log.troubles} == {OSError}
    assert (tmp_path / "aside").stat().st_size == size
    (tmp_path / "aside").replace(log.successions)
    log.run()
    assert read_key(key_path_for(log.path))[1] == before + 1
    assert log.findings() == []


def test_one_key_for_all(tmp_path: Path) -> None:
    """Without forward security no keys are kept, and checkpoints elsewhere show how late it was what is gone."""
    log = Log(tmp_path, 10, forward_secure=False)
    assert not log.successions.exists()
    assert log.findings() == log.findings(elsewhere=True) == []
    chain = next(parse_checkpoints(log.kept)).head.chain
    Forger(log, chain, 1000, log.now.subtract(hours=1)).write()
    assert log.findings() == []
    assert codes(log.findings(elsewhere=True)) == {"missing"}
