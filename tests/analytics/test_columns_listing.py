"""`tokgate log query`: what a person sees, and what a program reads."""

import csv
import json
from pathlib import Path

import pytest

from labs.command_line import Command
from labs.logs import WriteLog, refusal, repeats


@pytest.fixture
def log(write_log: WriteLog) -> str:
    """Refusals of two clients, one many times."""
    return str(
        write_log(
            [
                refusal("192.0.2.8", "2023-03-10T12:00:00Z"),
                refusal(),
                repeats(9, "2023-03-10T11:00:01Z", "2023-03-10T11:00:50Z"),
            ]
        )
    )


def test_a_table_in_order_of_time(tokgate: Command, log: str) -> None:
    """One line a record, cut at the limit, which is told on stderr."""
    outcome = tokgate("log", "query", "--log", log, "--limit", "2")
    rows = [line.split() for line in outcome.out.splitlines() if "192.0.2." in line]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("2023-03-10T11:00:00.000000Z", "1", "192.0.2.7"),
        ("2023-03-10T11:00:50.000000Z", "9", "192.0.2.7"),
    ]
    assert outcome.err == "tokgate: the first 2 rows; --limit N for more, --limit 0 for all\n"
    assert tokgate("log", "query", "--log", log).err == ""


def test_json_and_csv_have_everything(tokgate: Command, log: str) -> None:
    """Every column, types kept where the format has them."""
    records = [json.loads(line) for line in tokgate("log", "query", "--log", log, "--json").out.splitlines()]
    assert [record["events"] for record in records] == [1, 1, 9]
    assert records[0]["names"] == {"sni": ["www.clips.example.org"]}
    assert records[0]["mismatch"] is False
    assert records[0]["exemption"] is None
    rows = list(csv.DictReader(tokgate("log", "query", "--log", log, "--csv").out.splitlines()))
    assert [row["client"] for row in rows] == [record["client"] for record in records]


def test_sql_sees_what_the_filters_leave(tokgate: Command, log: str) -> None:
    """A question over the view, with a filter before it."""
    sql = "SELECT client, sum(events) AS n, min(time) AS first FROM events GROUP BY client ORDER BY n DESC"
    out = tokgate("log", "query", "--log", log, "--json", "--sql", sql, "--client", "192.0.2.7").out
    assert [json.loads(line) for line in out.splitlines()] == [
        {"client": "192.0.2.7", "n": 10, "first": "2023-03-10T11:00:00.000000Z"}
    ]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--client", "192.0.2.8"),
        ("--sql", "SELECT count(*) FROM events"),
        ("--sql", "SELECT count(*) FROM events WHERE client IS NOT NULL AND traffic"),
        ("--sql", "SELECT a.client FROM events a JOIN events b USING (event_id) WHERE b.verdict = 'block'"),
    ],
)
def test_lines_that_an_answer_leaves_out_are_told(tokgate: Command, log: str, options: tuple[str, ...]) -> None:
    """An answer that is short of what could not be read doesn't pass for a whole one."""
    with Path(log).open("ab") as stream:
        stream.write(b"not json\n" * 7)
    outcome = tokgate("log", "query", "--log", log, *options)
    assert outcome.code == 0
    assert f"tokgate: {log}:4: not a record" in outcome.err
    assert outcome.err.endswith("tokgate: 2 more lines could not be read\n")


def test_rows_too_wide_for_a_table_are_shown_one_by_one(tokgate: Command, log: str) -> None:
    """A name and a value a line, nothing folded, without what is empty; a table again where there is room."""
    out = tokgate("log", "query", "--log", log, "--sql", "FROM events", "--limit", "2").out
    first, second = out.split("\n\n")
    rows = dict(line.split(maxsplit=1) for line in first.splitlines())
    assert rows["client"] == "192.0.2.8"
    assert rows["message"].startswith("192.0.2.8 (office) was refused www.clips.example.org")
    assert "exemption" not in rows
    assert "192.0.2.7" in second
    assert tokgate("log", "query", "--log", log, "--sql", "SELECT client FROM events").out.split()[0] == "client"


@pytest.mark.parametrize("sql", ["SELECT nonsense FROM events", "DROP VIEW events", "SELECT * FROM '/etc/passwd'"])
def test_a_question_without_an_answer_is_an_error(tokgate: Command, log: str, sql: str) -> None:
    """One sentence on stderr, nothing on stdout, exit code 3."""
    outcome = tokgate("log", "query", "--log", log, "--sql", sql)
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith("tokgate: ")
    assert "internal error" not in outcome.err


def test_what_clients_say_has_no_power_over_the_terminal(tokgate: Command, write_log: WriteLog) -> None:
    """Control characters are shown, not obeyed, in data and in columns' names."""
    record = refusal()
    record["destination"]["domain"] = "\x1b[2J.example.org"
    path = str(write_log([record]))
    outcome = tokgate("log", "query", "--log", path)
    assert "\x1b" not in outcome.out
    assert "\x1b" not in tokgate("log", "query", "--log", path, "--sql", 'SELECT 1 AS "\x1b[2J"').out
