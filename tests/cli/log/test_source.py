"""`--clickhouse`: the commands over a server say what they say over files, and keep the password to themselves."""

import json
import re
from contextlib import closing
from pathlib import Path

import pytest
from day import Gateway, Traffic

from labs.command_line import Command
from labs.siem import needs_chdb

EVENT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f-]{17}")


@needs_chdb
def test_the_same_of_a_server(tokgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A summary, a query, an export and a report; the look is recorded, with the server and without the password."""
    from labs.clickhouse import PASSWORD, ClickHouse

    monkeypatch.chdir(tmp_path)
    Gateway(Traffic(events=300, clients=10)).write(Path("block.ndjson"))
    here = json.loads(tokgate("log", "summary", "--json").out)
    exported = tokgate("log", "export", "--format", "csv").out
    with closing(ClickHouse(tmp_path / "clickhouse")) as server:
        server.take(Path("block.ndjson").absolute())
        Path("password").write_text(f"{PASSWORD}\n")
        options = ("--clickhouse", str(server.address), "--clickhouse-password", "password")
        assert json.loads(tokgate("log", "summary", "--json", *options).out) == here
        count = tokgate(
            "log", "query", "--json", "--sql", "SELECT sum(events) AS n FROM events WHERE traffic", *options
        )
        assert json.loads(count.out) == {"n": here["events"]}
        there = tokgate("log", "export", "--format", "csv", *options).out  # in an order of its own
        assert len(there.splitlines()) == len(exported.splitlines())
        assert sorted(EVENT_ID.findall(there)) == sorted(EVENT_ID.findall(exported))
        done = tokgate("log", "report", "-o", "day.html", "--policies", "none", "--why", "a test", *options)
        assert done.code == 0, done.err
        page = Path("day.html").read_text()
        assert "read from ClickHouse, which holds no lines" in page
        looks = Path("block.access.ndjson").read_text()
        assert str(server.address) in looks
        assert PASSWORD not in looks + page + done.err
        wrong = tokgate("log", "summary", *options[:2])
        assert (wrong.code, wrong.out) == (3, "")
        assert "Authentication failed" in wrong.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("block.ndjson", "--clickhouse", "https://ch.example.org"), "give FILE or --clickhouse"),
        (("--clickhouse", "https://a:secret@ch.example.org"), "does not belong into a command line"),
        (("--clickhouse", "https://ch.example.org", "--clickhouse-password", "none"), "can't be read"),
    ],
)
def test_what_is_refused(
    tokgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    """One line says why, before anybody is asked and anything is recorded."""
    monkeypatch.chdir(tmp_path)
    done = tokgate("log", "summary", *words)
    assert done.code in (2, 3)
    assert said in done.err
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_parquet_is_made_of_files(tokgate: Command, tmp_path: Path) -> None:
    target = tmp_path / "out"
    words = ("--clickhouse", "https://ch.example.org", "--access-log", str(tmp_path / "access"))
    done = tokgate("log", "export", "--format", "parquet", "-o", str(target), *words)
    assert (done.code, done.out) == (2, "")
    assert "parquet is made of files" in done.err
    assert not target.exists()
