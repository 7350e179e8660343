"""Parquet loses nothing: every line comes back, and a file that can't be kept whole stays as it is."""

from pathlib import Path

import pytest

from labs.builders import at
from labs.command_line import Command
from labs.logs import WriteLog, refusal
from tokgate.analytics import compact as compacting
from tokgate.analytics.compact import compact, lines_of
from tokgate.analytics.sql import LogError
from tokgate.blocklog.paths import compacted
from tokgate.blocklog.records.record import encode
from tokgate.blocklog.write.retention import expired

OLD = "block-20230310T230000.000000Z.ndjson"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_every_line_comes_back(write_log: WriteLog, suffix: str) -> None:
    """Records, junk, empty lines and lines without meaning, byte for byte and in order."""
    lines = [
        encode(refusal()),
        b'junk, "quoted"\n',
        b"\n",
        b"[1]\n",
        b'{"a":"\\ud800"}\n',
        encode(refusal("192.0.2.8")),
    ]
    source = write_log(lines, OLD + suffix)
    made = compact(source, remove=False)
    assert made.target.name == OLD.replace(".ndjson", ".parquet")
    assert list(lines_of(made.target)) == lines
    assert made.lines == len(lines)
    assert source.exists()
    assert made.target.stat().st_mode == source.stat().st_mode


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (encode(refusal()) + b'{"torn', "torn"),
        (encode(refusal()) + b'{"a":"\xff\xfe"}\n', "stays as it is"),
        (encode(refusal())[:-1] + b"\r\n", "stays as it is"),
    ],
)
def test_what_cannot_be_kept_whole_stays(write_log: WriteLog, content: bytes, why: str) -> None:
    """A torn end, other bytes than UTF-8, other line ends: no Parquet, and the file is not removed."""
    source = write_log([content], OLD)
    with pytest.raises(LogError, match=why):
        compact(source, remove=True)
    assert source.read_bytes() == content
    assert [path.name for path in source.parent.iterdir()] == [OLD]


def test_nothing_is_removed_when_parquet_differs(write_log: WriteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading back is what counts: a line too few, and the original stays."""
    source = write_log([refusal(), refusal("192.0.2.8")], OLD)
    real = compacting.lines_of
    monkeypatch.setattr(compacting, "lines_of", lambda path: list(real(path))[1:])
    with pytest.raises(LogError, match="gives other lines back"):
        compact(source, remove=True)
    assert [path.name for path in source.parent.iterdir()] == [OLD]


def test_the_command(write_log: WriteLog, tokgate: Command) -> None:
    """Rotated files only, never the one being written; what is read afterwards is the same, and done is done."""
    current = write_log([refusal()])
    old = write_log([refusal("192.0.2.8")] * 2, OLD)
    before = tokgate("log", "summary", "--json", "--log", str(current)).out
    outcome = tokgate("log", "compact", "--remove", "--log", str(current))
    assert outcome.code == 0
    assert outcome.out.endswith("bytes, and the file is removed\n")
    assert current.exists()
    assert not old.exists()
    assert tokgate("log", "summary", "--json", "--log", str(current)).out == before
    assert "nothing to compact" in tokgate("log", "compact", "--log", str(current)).err


def test_removed_later(write_log: WriteLog, tokgate: Command) -> None:
    """What was compacted to be looked at first is removed by a second call, which verifies it again."""
    current, old = write_log([refusal()]), write_log([refusal("192.0.2.8")] * 2, OLD)
    assert tokgate("log", "compact", "--log", str(current)).code == 0
    made = compacted(old)
    assert made is not None
    made.write_bytes(b"damaged meanwhile")
    outcome = tokgate("log", "compact", "--remove", "--log", str(current))
    assert outcome.out.endswith("bytes, and the file is removed\n")
    assert not old.exists()
    assert sum(1 for _ in lines_of(made)) == 2


def test_names_that_rotation_gives_to_others_are_refused(write_log: WriteLog, tokgate: Command) -> None:
    """block.ndjson.1 will be block.ndjson.2: its Parquet would stand for the wrong file."""
    current = write_log([refusal()])
    numbered: Path = write_log([refusal()], "block.ndjson.1")
    outcome = tokgate("log", "compact", "--remove", "--log", str(current))
    assert outcome.code == 1
    assert "dateext" in outcome.err
    assert numbered.exists()


def test_the_lines_can_be_had_back(write_log: WriteLog, tokgate: Command, tmp_path: Path) -> None:
    """`export --format ndjson` gives what was written, from Parquet and from what was not compacted alike."""
    old = write_log([refusal("192.0.2.8"), b"junk\n"], OLD)
    current = write_log([refusal()])
    whole = old.read_bytes() + current.read_bytes()
    compact(old, remove=True)
    target = tmp_path / "whole.txt"
    assert tokgate("log", "export", "--format", "ndjson", "--log", str(current), "-o", str(target)).code == 0
    assert target.read_bytes() == whole
    assert tokgate("log", "export", "--format", "ndjson", "--log", str(current), "--ban", "ban").code == 2


def test_parquet_is_kept_no_longer_than_its_file(write_log: WriteLog) -> None:
    """Retention, which promises that people are forgotten, finds Parquet too."""
    current = write_log([refusal()])
    made = compact(write_log([refusal()], OLD), remove=True)
    assert expired(current, at("2023-03-10T22:59:59Z")).files == ()
    assert expired(current, at("2023-03-10T23:00:00Z")).files == (made.target,)


def test_unreadable_lines_keep_their_places(write_log: WriteLog, tokgate: Command) -> None:
    """Told from Parquet as from the file that it was made of."""
    path = write_log([refusal(), b"junk\n", refusal(), b"[1]\n"], OLD)
    target = compact(path, remove=True).target
    outcome = tokgate("log", "summary", "--json", "--log", str(target))
    assert outcome.err == (
        f"tokgate: {target}:2: not a record (5 bytes)\ntokgate: {target}:4: not a record (4 bytes)\n"
    )
    assert '"unreadable": 2' in outcome.out
