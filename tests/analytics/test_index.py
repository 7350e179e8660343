"""The index holds what the files hold: while they grow, rotate, are packed, cut short, damaged or removed."""

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labs.builders import present
from labs.logs import refusal, repeats, write
from labs.review_page import _eager, numbered
from labs.samples import stamp
from tokgate.analytics import index as module
from tokgate.analytics.columns import KEPT, rows_of
from tokgate.analytics.engine import LogDatabase
from tokgate.analytics.index import Index, IndexedFile, LogFile, QueryTimeout
from tokgate.analytics.sql import LogError
from tokgate.blocklog.paths import whole_log
from tokgate.blocklog.read.reader import Filter, client_filter
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.record import encode
from tokgate.webui.log_query import LogQuery

__all__ = ["_eager"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the log is, once something is written to it."""
    return tmp_path / "block.ndjson"


@pytest.fixture
def index(log: Path) -> Iterator[Index]:
    with closing(Index([log])) as opened:
        yield opened


def event(number: int) -> str:
    return str(numbered(number)["event"]["id"])


def append(path: Path, *parts: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(b"".join(parts))


def held(index: Index) -> list[str]:
    """The ids that are held, in the order in which they came."""
    index.catch_up(30)
    return [str(row[0]) for row in index.ask("SELECT event_id FROM lines WHERE readable ORDER BY rowid")]


def test_a_log_that_grows(log: Path, index: Index) -> None:
    """Not there at first; each line once, a half one when it is whole; the version tells of every change."""
    assert held(index) == []
    first = index.state.version
    append(log, encode(numbered(1)), encode(numbered(2))[:50])
    assert held(index) == [event(1)]
    assert index.state.version > first
    append(log, encode(numbered(2))[50:], b"no record\n", encode(numbered(3)))
    assert held(index) == [event(1), event(2), event(3)]
    assert index.ask("SELECT count(*) FROM lines WHERE NOT readable") == [(1,)]
    version = index.state.version
    assert index.catch_up(1).version == version


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_line_is_found_in_its_file(log: Path, index: Index, suffix: str) -> None:
    """Whatever it is packed in, with its number and as it was written."""
    rotated = log.with_name("block-20230310T120000.000000Z.ndjson")
    write(rotated.with_name(rotated.name + suffix), [numbered(n) for n in range(1, 5)])
    assert len(held(index)) == 4
    found = present(index.line(event(3)))
    assert (found.number, found.record, found.raw + b"\n") == (3, numbered(3), encode(numbered(3)))
    assert index.line("00000000-0000-0000-0000-000000000000") is None
    assert index.line("no id") is None


def test_the_last_line_with_an_id_counts(log: Path, index: Index) -> None:
    """Only the event's own id is looked for, not one that it mentions."""
    repeat = repeats(3, "2023-03-10T11:00:00Z", "2023-03-10T11:00:30Z")
    write(log, [refusal(), repeat])
    index.catch_up(30)
    found = present(index.line(str(refusal()["event"]["id"])))
    assert found.number == 1


def test_a_damaged_file_is_read_as_far_as_it_goes(log: Path, index: Index) -> None:
    """And where that ends is told."""
    packed = log.with_name("block-20230310T120000.000000Z.ndjson.gz")
    write(packed, [numbered(n) for n in range(2000)])
    packed.write_bytes(packed.read_bytes()[:-2000])
    append(log, encode(numbered(5000)))
    count = len(held(index))
    assert 1 < count < 2001
    assert [junk.file for junk in index.state.damage] == [str(packed)]


def test_what_duckdb_can_not_read_is_read_otherwise(log: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files together, each by itself, and what is appended: nothing is lost, and nothing read twice."""
    refused: list[str] = []

    def picky(files: Iterable[tuple[Path, int]]) -> Iterator[str]:
        for file in files:
            if not file[0].name.startswith("rescued"):
                refused.append(file[0].name)
                yield "SELECT * FROM there_is_no_such_table"
            yield from rows_of([file])

    monkeypatch.setattr(module, "rows_of", picky)
    for number in (1, 2):
        rotated = log.with_name(f"block-2023031{number}T120000.000000Z.ndjson")
        append(rotated, encode(numbered(number)))
        os.utime(rotated, (1, 1))
    append(log, encode(numbered(3)))
    assert sorted(held(index)) == [event(1), event(2), event(3)]
    append(log, encode(numbered(4)), b"no record\n")
    assert sorted(held(index)) == [event(1), event(2), event(3), event(4)]
    assert index.ask("SELECT count(*) FROM lines WHERE NOT readable") == [(1,)]
    assert index.state.damage == ()
    assert len(refused) == 5  # the two together, each alone, and twice what was appended


@pytest.mark.parametrize("lost", ["has_grown", "keep"])
def test_a_file_renamed_while_it_is_read(log: Path, index: Index, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """Between a look at its folder and its opening, or just after: its lines are there once."""
    append(log, encode(numbered(1)))
    assert held(index) == [event(1)]
    append(log, encode(numbered(2)))
    original = getattr(IndexedFile, lost)

    def vanish(kept: IndexedFile, file: LogFile) -> Any:
        if file.path == log:
            log.rename(log.with_name("block-20230310T120000.000000Z.ndjson"))
            monkeypatch.setattr(IndexedFile, lost, original)
        return original(kept, file)

    monkeypatch.setattr(IndexedFile, lost, vanish)
    held(index)
    assert held(index) == [event(1), event(2)]


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("rotated", [True, False])
def test_records_that_come_between_a_look_and_the_reading(
    log: Path, index: Index, monkeypatch: pytest.MonkeyPatch, settled: bool, rotated: bool
) -> None:
    """A file that is written to or rotated after it was looked up: each record is held once."""
    write(log, [numbered(1)])
    if settled:
        os.utime(log, (0, 0))
    files, log_files = iter([[LogFile(log, log.stat())]]), index._log_files

    def meanwhile() -> Iterator[LogFile]:
        for looked in files:
            if rotated:
                log.rename(log.with_name("block-20230310T120000.000000Z.ndjson"))
                os.utime(log.with_name("block-20230310T120000.000000Z.ndjson"), (0, 0) if settled else None)
            append(log, *(encode(numbered(number)) for number in (2, 3)))
            return iter(looked)
        return log_files()

    monkeypatch.setattr(index, "_log_files", meanwhile)
    held(index)
    assert sorted(held(index)) == [event(1), event(2), event(3)]


def test_a_file_that_can_not_be_opened_is_told(log: Path, index: Index) -> None:
    """Nothing else is lost for it, whatever its place among the others."""
    for number in (1, 3):
        rotated = log.with_name(f"block-2023031{number}T120000.000000Z.ndjson")
        append(rotated, encode(numbered(number)))
        os.utime(rotated, (1, 1))
    log.with_name("block-20230312T120000.000000Z.ndjson").mkdir()
    append(log, encode(numbered(4)))
    assert sorted(held(index)) == [event(1), event(3), event(4)]
    (damage,) = index.state.damage
    assert "directory" in damage.problem
    version = index.state.version
    assert len(held(index)) == 3
    assert index.state.version == version


@pytest.mark.parametrize("folder", ["a[b]c", "star*", "quo'te", "sp ace"])
def test_any_name_of_a_folder(tmp_path: Path, folder: str) -> None:
    """DuckDB takes no name for a pattern or for SQL."""
    (tmp_path / folder).mkdir()
    log = tmp_path / folder / "block.ndjson"
    append(log, encode(numbered(1)))
    os.utime(log, (1, 1))  # long settled, so read where it is
    with closing(Index([log])) as index:
        assert held(index) == [event(1)]


def test_a_link_to_a_file_elsewhere(tmp_path: Path, log: Path, index: Index) -> None:
    (tmp_path / "elsewhere").mkdir()
    append(tmp_path / "elsewhere/real.ndjson", encode(numbered(1)))
    os.utime(tmp_path / "elsewhere/real.ndjson", (1, 1))
    log.symlink_to(tmp_path / "elsewhere/real.ndjson")
    assert held(index) == [event(1)]


def test_nothing_is_left_behind(log: Path) -> None:
    """The folder for what doesn't fit in memory goes away."""
    index = Index([log])
    folder = index._folder
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0
    index.close()
    assert not folder.exists()


def test_the_index_is_closed_to_everything_else(index: Index) -> None:
    """No other file, no network, no change of settings."""
    for sql in ("SELECT * FROM read_text('/etc/passwd')", "SET lock_configuration = false", "INSTALL httpfs"):
        with pytest.raises(LogError):
            index.ask(sql)


def test_a_question_that_takes_too_long_is_given_up(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one is answered."""
    monkeypatch.setattr(module, "QUERY_SECONDS", 0.1)
    with pytest.raises(QueryTimeout, match="narrow the time"):
        index.ask(
            "SELECT count(*) FROM range(100000) a, range(100000) b, range(1000) c WHERE a.range + b.range > c.range"
        )
    monkeypatch.undo()
    assert index.ask("SELECT 1") == [(1,)]


steps = st.lists(st.sampled_from(["append", "tear", "rotate", "gzip", "delete", "rewrite", "look"]), max_size=14)


@given(steps)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_index_holds_what_the_files_hold(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """After any history, looked at in between or not, its rows are those that DuckDB reads from the files."""
    log = tmp_path_factory.mktemp("history") / "block.ndjson"
    number = 0
    with closing(Index([log])) as index:
        for step in [*steps, "append", "look"]:
            number += 1
            rotated = sorted(log.parent.glob("block-*.ndjson"))
            if step == "append":
                append(log, *(encode(numbered(100 * number + n)) for n in range(3)), encode(stopped(stamp(), 1, "x")))
            elif step == "tear":
                append(log, encode(numbered(number))[:40], b"\n")
            elif step == "rotate" and log.exists():
                log.rename(log.with_name(f"block-20230310T12{number:04}.000000Z.ndjson"))
            elif step == "gzip" and rotated:
                target = rotated[0].with_name(rotated[0].name + ".gz")
                target.write_bytes(gzip.compress(rotated[0].read_bytes()))
                rotated[0].unlink()
            elif step == "delete" and rotated:
                rotated[0].unlink()
            elif step == "rewrite":  # as logrotate's copytruncate does, shorter than before or longer
                write(log, [numbered(100 * number + n) for n in range(1 + number % 2 * 9)])
            elif step == "look":
                index.catch_up(30)
        assert sorted_rows(index) == files_rows(log)
        version = index.state.version
        there = {str(id) for (id,) in index.ask("SELECT event_id FROM lines WHERE readable")}
        for id in (event(100 * step) for step in range(1, number + 1)):
            line = index.line(id)
            assert (line is not None) == (id in there)  # in the file where it is by now
            assert line is None or (Path(line.file).exists() and line.record["event"]["id"] == id)
        assert index.catch_up(1).version == version


def sorted_rows(index: Index) -> list[tuple[Any, ...]]:
    columns = ", ".join(f'CAST("{name}" AS VARCHAR)' for name in KEPT)
    return sorted(index.ask(f"SELECT {columns} FROM lines WHERE readable"), key=str)


def files_rows(log: Path) -> list[tuple[Any, ...]]:
    held = ("CASE WHEN NOT traffic THEN message END" if name == "message" else f'"{name}"' for name in KEPT)
    columns = ", ".join(f"CAST({name} AS VARCHAR)" for name in held)
    with LogDatabase(whole_log([log])) as database:
        return sorted(database.answer(f"SELECT {columns} FROM events").rows, key=str)


def test_filters_by_client_agree_with_the_reader(log: Path, index: Index) -> None:
    """The macros that compare addresses are there."""
    clients = ("192.0.2.7", "192.0.2.8", "2001:db8:1::7", "p689-abcdefghijklmnop")
    records = [dict(refusal(), source={"ip" if "." in ip or ":" in ip else "address": ip}) for ip in clients]
    write(log, records)
    index.catch_up(30)
    for text in ("192.0.2.0/24", "192.0.2.8", "2001:db8::/32", "p689-abcdefghijklmnop", "10.0.0.0/8"):
        chosen = LogQuery().with_filter("client", text).chosen()
        wanted = Filter(client=client_filter(text))
        expected = sum(wanted.accepts(record) for record in records)
        assert index.ask(f"SELECT count(*) FROM lines WHERE {chosen.where}", chosen.said) == [(expected,)]
