"""Which chain an appender continues when it starts, and which key signs it."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from labs.appending import AppenderRuns, append
from tokgate.blocklog.paths import key_path_for
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.record import encode
from tokgate.blocklog.write.checkpointer import LogOptions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "block.ndjson"


def run(path: Path, *numbers: int, options: LogOptions | None = None) -> list[str]:
    """A run of tokgate that writes these records; what it complained of."""
    runs = AppenderRuns(path, options=options or LogOptions())
    appender = runs.begin()
    appender.ready()
    append(appender, *({"n": number, "event": {"action": "test"}, "tokgate": {}} for number in numbers))
    appender.attest()
    append(appender)
    appender.leave("closed")
    return [str(trouble) for trouble in runs.troubles]


def records(octets: bytes) -> list[dict[str, Any]]:
    """The records that were written."""
    return [json.loads(line) for line in octets.splitlines() if line.startswith(b"{")]


def chains(found: list[dict[str, Any]]) -> list[str]:
    """The chains of records, in order, each once."""
    return list(dict.fromkeys(record["tokgate"]["chain"] for record in found))


def sequences(found: list[dict[str, Any]]) -> list[int]:
    """Their numbers in them."""
    return [record["event"]["sequence"] for record in found]


def rotated(path: Path) -> Path:
    """The one file beside the log that was rotated."""
    (found,) = (each for each in path.parent.glob("block.ndjson.*"))
    return found


def test_a_damaged_rotated_file(path: Path) -> None:
    """What can't be read is told, and the chain goes on behind the last record that the writer knows of."""
    run(path, *range(1000))
    path.with_name("block.ndjson.1.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    last = sequences(records(path.read_bytes()))[-1]
    path.unlink()
    assert len(run(path, 1)) == 1
    assert sequences(records(path.read_bytes()))[0] == last + 1


def test_what_no_chain_can_be_read_from_is_not_continued(path: Path) -> None:
    """After a file that only a crash has left behind, a new chain begins: it must not seem to follow the last file."""
    run(path, 1)
    path.rename(path.with_name("block.ndjson.1"))
    path.write_bytes(b'{"n": 2, "ev')
    run(path, 3)
    before, after = records(rotated(path).read_bytes()), records(path.read_bytes().partition(b"\n")[2])
    assert after[0]["event"]["action"] == "log-recovered"
    assert sequences(after)[0] == 1
    assert not set(chains(before)) & set(chains(after))


@pytest.mark.parametrize(("last", "number", "unsigned"), [("stopped", 9, 8), ("log-checkpoint", 9, 0), (None, 1, 0)])
def test_whose_last_record_nothing_tells(path: Path, last: str | None, number: int, unsigned: int) -> None:
    """Without a journal or a checkpoint by its key a run goes on in the chain of the last record, if it is in one."""
    record = {"event": {"action": last}}
    linked = record if last is None else link(Head("c", 7, "ab" * 32), record)[0]
    path.write_bytes(encode(linked))
    runs = AppenderRuns(path)
    run = runs.begin()
    run.ready()
    assert run.unattested == unsigned
    runs.write(run)
    assert sequences(records(path.read_bytes())[1:]) == [number]


def test_a_slow_disk_is_not_signed_more_often(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that takes many writes gets one checkpoint, as one that takes a single write."""
    write, found = os.write, list[list[str]]()
    for limit in (1 << 20, 700):
        monkeypatch.setattr(os, "write", lambda fd, data, limit=limit: write(fd, data[:limit]))
        runs = AppenderRuns(path.with_name(f"{limit}.ndjson"), options=LogOptions(records=3))
        append(runs.begin(), *(stopped(runs.stamp(), 1, f"number {number}") for number in range(9)))
        found.append([record["event"]["action"] for record in records(runs.path.read_bytes())])
    assert found == [["stopped"] * 9 + ["log-checkpoint"]] * 2


def test_the_key_of_the_settings_signs(path: Path, tmp_path: Path) -> None:
    """With `settings.log.key` no second key lies beside the log, which whoever may change the log could use."""
    key = tmp_path / "keys" / "log.key"
    key.parent.mkdir()
    run(path, 1, options=LogOptions(key=key))
    assert key.exists()
    assert not key_path_for(path).exists()
    other = path.with_name("other.ndjson")
    run(other, 1)
    assert key_path_for(other).exists()
