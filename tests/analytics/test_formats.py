"""Other systems' formats: right to the letter, also with text that tries to break out of its field."""

import csv
import io
from pathlib import Path

import duckdb
import pytest

from labs.command_line import Command
from labs.logs import WriteLog, refusal, repeats
from labs.samples import SNAPSHOT, stamp
from tokgate.analytics.columns import COLUMNS
from tokgate.blocklog.records.lifecycle import started
from tokgate.policy.observation import Stage


@pytest.fixture
def log(write_log: WriteLog) -> Path:
    """One record of each kind."""
    return write_log(
        [
            refusal(),
            refusal(stage=Stage.HTTP, moment="2023-03-10T11:01:00Z"),
            refusal(stage=Stage.DNS, moment="2023-03-10T11:02:00Z"),
            repeats(41, "2023-03-10T11:03:00Z", "2023-03-10T11:03:59Z"),
            started(stamp(), 1, SNAPSHOT.policy),
        ]
    )


def exported(tokgate: Command, log: Path, form: str) -> list[str]:
    outcome = tokgate("log", "export", "--log", str(log), "--format", form)
    assert outcome.code == 0
    return outcome.out.splitlines()


def test_csv_has_every_column_and_every_record(tokgate: Command, log: Path, tmp_path: Path) -> None:
    """A header, RFC 4180, instants in UTC, and a file that is private like the log."""
    target = tmp_path / "out.csv"
    assert tokgate("log", "export", "--log", str(log), "--format", "csv", "-o", str(target)).code == 0
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8"), newline="")))
    assert list(rows[0]) == [column.name for column in COLUMNS]
    assert [row["events"] for row in rows] == ["1", "1", "1", "41", "1"]
    assert rows[0]["time"] == "2023-03-10T11:00:00.000000Z"
    assert rows[0]["traffic"] == "true"
    assert target.stat().st_mode & 0o007 == 0


def test_csv_gives_a_spreadsheet_nothing_to_run(tokgate: Command, write_log: WriteLog) -> None:
    record = refusal(stage=Stage.HTTP)
    record["user_agent"]["original"] = '=HYPERLINK("https://example.org")'
    rows = list(csv.DictReader(exported(tokgate, write_log([record]), "csv")))
    assert rows[0]["user_agent"] == '\'=HYPERLINK("https://example.org")'


def test_parquet_holds_the_view(tokgate: Command, log: Path, tmp_path: Path) -> None:
    """The same columns and rows, readable by anything that reads Parquet."""
    target = tmp_path / "it's.parquet"
    assert tokgate("log", "export", "--log", str(log), "--format", "parquet", "-o", str(target)).code == 0
    with duckdb.connect() as connection:
        found = connection.execute("SELECT count(*), sum(events) FROM read_parquet(?)", [str(target)]).fetchone()
        names = [row[0] for row in connection.execute("DESCRIBE FROM read_parquet(?)", [str(target)]).fetchall()]
    assert found == (5, 45)
    assert names == [column.name for column in COLUMNS]
    assert tokgate("log", "export", "--log", str(log), "--format", "parquet").code == 2


def test_an_export_never_overwrites_the_log(tokgate: Command, log: Path) -> None:
    """By whatever name it is called."""
    before = log.read_bytes()
    other = log.with_name("link.csv")
    other.symlink_to(log)
    assert tokgate("log", "export", "--log", str(log), "--format", "csv", "-o", str(other)).code == 2
    assert log.read_bytes() == before


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_export_says_what_is_not_in_it(tokgate: Command, log: Path, tmp_path: Path, form: str) -> None:
    """Lines that hold no record, with their places."""
    with log.open("ab") as stream:
        stream.write(b"not json\n")
    outcome = tokgate("log", "export", "--log", str(log), "--format", form, "-o", str(tmp_path / "out"))
    assert outcome.code == 0
    assert f"tokgate: {log}:6: not a record" in outcome.err
