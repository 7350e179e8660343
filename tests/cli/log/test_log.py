"""`tokgate log`: what a person sees, what a program reads, and logs that are damaged, hostile or not there."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labs.command_line import Command
from labs.logs import refusal, write
from labs.samples import stamp
from tokgate.blocklog.read.reader import Junk, Line, read
from tokgate.blocklog.records.coverage import coverage_counted
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.log_state import log_gap
from tokgate.blocklog.records.record import encode
from tokgate.cli.log import tail
from tokgate.policy.observation import Stage

EVENTS = [
    refusal("192.0.2.7", "2023-03-10T11:00:00Z"),
    refusal("192.0.2.8", "2023-03-10T12:00:00Z", Stage.DNS) | {"user": {"name": "alice"}},
    refusal("192.0.2.7", "2023-03-11T11:00:00Z"),
]
SENTENCE = (
    "192.0.2.7 (office) was refused www.clips.example.org: The ban [ban], decided by Example Council (Circular 7), "
    "until 2023-09-10 00:00 Europe/Brussels."
)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "block.ndjson"
    path.write_bytes(b"".join(map(encode, EVENTS)))
    return path


def test_tail_is_a_line_an_event(log: Path, tokgate: Command) -> None:
    """When, which verdict, and the sentence: nothing wrapped, nothing coloured in a pipe."""
    outcome = tokgate("log", "tail", "-n", "1")
    assert outcome.out == f"2023-03-11 11:00:00Z  block     {SENTENCE}\n"
    assert (outcome.code, outcome.err) == (0, "")
    assert len(tokgate("log", "tail").out.splitlines()) == 3
    assert tokgate("log", "tail", "-n", "0").out == ""


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("current", [0, 1])
def test_tail_goes_back_into_rotated_files(log: Path, tokgate: Command, ending: str, current: int) -> None:
    """As far as it takes, in order, each record once; also where a filter accepts few, and not before `--since`."""
    log.unlink()
    for number, event in enumerate(EVENTS):
        write(log.with_name(f"block-2023031{number + 2}T000000.000000Z.ndjson{ending}"), [event])
    later = [refusal("192.0.2.9", "2023-03-16T11:00:00Z")] * current
    write(log, later)
    expected = [*EVENTS, *later]
    for count in (1, 2, 3, 4, 20):
        lines = tokgate("log", "tail", "--json", "-n", str(count)).out.splitlines()
        assert [json.loads(line) for line in lines] == expected[-count:]
    lines = tokgate("log", "tail", "--json", "--client", "192.0.2.7").out.splitlines()
    assert [json.loads(line) for line in lines] == EVENTS[::2]
    log.with_name(f"block-20230312T000000.000000Z.ndjson{ending}").write_bytes(b"not opened")
    outcome = tokgate("log", "tail", "--json", "--since", "2023-03-12T00:00Z")
    assert (len(outcome.out.splitlines()), outcome.err) == (current, "")


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_tail_where_a_rotated_file_can_not_be_read(
    log: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    """Deleted or renamed just now, it is passed over; where it may not be read, that is told. The others are shown."""
    write(log.with_name("block-20230312T000000.000000Z.ndjson.gz"), EVENTS)

    def guarded(paths: list[Path], *opener: Any) -> Iterator[Line | Junk]:
        if paths[0].suffix == ".gz":
            raise error(13, "Permission denied", str(paths[0]))
        yield from read(paths, *opener)

    monkeypatch.setattr(tail, "read", guarded)
    outcome = tokgate("log", "tail")
    assert (outcome.code, len(outcome.out.splitlines())) == (0, len(EVENTS))
    assert ("Permission denied" in outcome.err) == (error is PermissionError)


def test_tail_of_files_that_are_named(log: Path, tokgate: Command) -> None:
    """A rotated file that is named beside the log is read once, and one alone is not followed by others."""
    for number in (2, 3):
        write(log.with_name(f"block-2023031{number}T000000.000000Z.ndjson.zst"), [EVENTS[0]])
    named = "block-20230313T000000.000000Z.ndjson.zst"
    assert len(tokgate("log", "tail", "block.ndjson", named).out.splitlines()) == len(EVENTS) + 2
    assert len(tokgate("log", "tail", named).out.splitlines()) == 1


def test_tail_as_json_gives_the_lines_themselves(log: Path, tokgate: Command) -> None:
    assert tokgate("log", "tail", "--json").out.encode() == log.read_bytes()


def test_tail_joins_files_by_time(log: Path, tokgate: Command, tmp_path: Path) -> None:
    """The last records of several workers' files, in the order in which they happened."""
    other = tmp_path / "other.ndjson"
    other.write_bytes(encode(refusal("192.0.2.99", "2023-03-10T11:30:00Z")))
    for named in (("--log", str(log), str(other)), (str(other), "--log", str(log))):
        lines = tokgate("log", "tail", "-n", "3", "--json", *named).out.splitlines()
        assert [json.loads(line)["source"]["ip"] for line in lines] == ["192.0.2.99", "192.0.2.8", "192.0.2.7"]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--client", "192.0.2.7"], 2),
        (["--client", "192.0.2.8/31"], 1),
        (["--since", "2023-03-10T12:00:00Z"], 2),
        (["--until", "2023-03-10T12:00"], 1),
        (["--name", "EXAMPLE.org."], 3),
        (["--name", "example.net"], 0),
        (["--action", "dns-query-blocked"], 1),
        (["--verdict", "block", "--ban", "ban", "--network", "office"], 3),
        (["--user", "alice"], 1),
        (["--user", "Alice"], 0),
    ],
)
def test_filters(log: Path, tokgate: Command, options: list[str], count: int) -> None:
    """All commands take the same filters and agree."""
    assert len(tokgate("log", "tail", *options).out.splitlines()) == count
    assert json.loads(tokgate("log", "summary", "--json", *options).out)["events"] == count
    assert len(tokgate("log", "query", "--json", *options).out.splitlines()) == count


@pytest.mark.parametrize(
    "wrong",
    [
        ["--client", "office"],
        ["--name", "a..b"],
        ["--since", "yesterday"],
        ["--since", "2023-03-11", "--until", "2023-03-10"],
        ["--verdict", "no"],
        ["-n", "-1"],
        ["--acti", "started"],
    ],
)
def test_wrong_options_are_usage_errors(log: Path, tokgate: Command, wrong: list[str]) -> None:
    outcome = tokgate("log", "tail", *wrong)
    assert outcome.code == 2
    assert outcome.err
    assert outcome.out == ""


def test_a_log_that_is_not_there_is_an_error(log: Path, tokgate: Command) -> None:
    """Nothing to read isn't the same as nothing happened."""
    for command in ("tail", "summary", "query", "export --format csv", "report -o x.html"):
        outcome = tokgate("log", *command.split(), "--log", "nowhere.ndjson")
        assert outcome.code == 3
        assert outcome.err.startswith("tokgate: there is no log at nowhere.ndjson")


def test_summary_as_json(log: Path, tokgate: Command) -> None:
    """One object; `--by` and `--top` choose tables and rows, and what is cut off is in `other`."""
    with log.open("ab") as stream:
        stream.write(encode(log_gap(stamp(), 4, stamp().at, stamp().at)))
    document = json.loads(tokgate("log", "summary", "--json", "--by", "client", "--top", "1").out)
    assert document == {
        "first": "2023-03-10T11:00:00.000000Z",
        "last": "2023-03-11T11:00:00.000000Z",
        "records": 4,
        "events": 3,
        "dropped": 4,
        "coverage": None,
        "unreadable": 0,
        "tables": {
            "client": {
                "keys": 2,
                "rows": [
                    {
                        "client": "192.0.2.7",
                        "count": 2,
                        "first": "2023-03-10T11:00:00.000000Z",
                        "last": "2023-03-11T11:00:00.000000Z",
                    }
                ],
                "other": 1,
            }
        },
    }
    told = tokgate("log", "summary").out
    assert told.startswith("3 events from 2023-03-10T11:00:00.000000Z to 2023-03-11T11:00:00.000000Z, in 4 records\n")
    assert "4 records were dropped" in told


def test_summary_tells_coverage(log: Path, tokgate: Command) -> None:
    """Hours are added up; what has another shape is left out."""
    hour = coverage_counted(stamp(), {"office": {"sni": 3, "none": 1}}, stamp().at)
    hour["tokgate"]["coverage"]["bent"] = 7
    with log.open("ab") as stream:
        stream.write(encode(hour) * 2)
    assert json.loads(tokgate("log", "summary", "--json").out)["coverage"] == {
        "total": 8,
        "named": 6,
        "networks": {"office": {"none": 2, "sni": 6}},
    }


def test_summary_reads_rotated_files_too(log: Path, tokgate: Command) -> None:
    """Rotation doesn't hide the past, unless it is asked to."""
    log.rename(log.with_name("block-20230311T120000.000000Z.ndjson"))
    assert json.loads(tokgate("log", "summary", "--json").out)["events"] == 3
    log.write_bytes(encode(EVENTS[0]))
    assert json.loads(tokgate("log", "summary", "--json").out)["events"] == 4
    assert json.loads(tokgate("log", "summary", "--json", "--no-rotated").out)["events"] == 1


def test_unreadable_lines_are_told_and_passed_over(log: Path, tokgate: Command) -> None:
    """The first few on stderr with their place, the rest as a number; data stays clean."""
    with log.open("ab") as stream:
        stream.write(b"junk\n" * 8 + b'{"torn":')
    outcome = tokgate("log", "tail")
    assert len(outcome.out.splitlines()) == 3
    assert outcome.err.count("not a record") == 5
    assert outcome.err.endswith("4 more lines could not be read\n")
    assert "9 lines could not be read" in tokgate("log", "summary").out


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_compressed_file_that_was_cut_short(log: Path, tokgate: Command, ending: str, left: int) -> None:
    """Empty, in its first block or its end: told on stderr by every command, what is in the others is shown."""
    cut = log.with_name(f"block-20230310T000000.000000Z.ndjson{ending}")
    write(cut, [stopped(stamp(), 1, "SIGTERM")] * 10)
    cut.write_bytes(cut.read_bytes()[:left])
    for command in (["query", "--csv"], ["summary"], ["tail"]):
        outcome = tokgate("log", *command)
        assert (outcome.code, outcome.out.count("192.0.2.8") > 0) == (0, True)
        assert f"{cut.name}:" in outcome.err
        assert "the rest can't be read" in outcome.err


def test_a_hostile_line_has_no_power_over_the_terminal(log: Path, tokgate: Command) -> None:
    """Even a line that somebody else wrote can't move the cursor or forge markup."""
    bent = json.loads(encode(stopped(stamp(), 1, "x")))
    bent["message"] = "\x1b[2J\u202e[bold]gone[/bold]\r"
    bent["event"]["action"] = "\x9b31m"
    log.write_text(json.dumps(bent) + "\n", encoding="utf-8")
    out = tokgate("log", "tail").out
    assert out.rstrip("\n").isprintable()
    assert "[bold]gone[/bold]" in out


def test_follow_shows_what_comes_and_ends_on_interrupt(log: Path) -> None:
    """`tail -f` prints the latest records, then new ones, also after rotation, and Ctrl-C is a normal end.

    What is rotated away meanwhile is not printed again.
    """
    write(log.with_name("block-20230310T000000.000000Z.ndjson.gz"), [refusal("192.0.2.49", "2023-03-10T10:00:00Z")])
    with subprocess.Popen(
        [sys.executable, "-m", "tokgate", "log", "tail", "-f", "-n", "4", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        assert process.stdout is not None
        days = [json.loads(process.stdout.readline())["@timestamp"][:13] for _ in range(4)]
        assert days == ["2023-03-10T10", "2023-03-10T11", "2023-03-10T12", "2023-03-11T11"]
        with log.open("ab") as stream:
            stream.write(encode(refusal("192.0.2.50", "2023-03-12T11:00:00Z")))
        assert json.loads(process.stdout.readline())["source"]["ip"] == "192.0.2.50"
        log.rename(log.with_name("block-20230312T120000.000000Z.ndjson"))
        log.write_bytes(encode(refusal("192.0.2.51", "2023-03-12T12:00:00Z")))
        assert json.loads(process.stdout.readline())["source"]["ip"] == "192.0.2.51"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        watchdog.cancel()
    assert (process.returncode, out, err) == (0, "", "")


def test_examples_count_clients_alone(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tokgate says about itself has no client, and is no event of anybody."""
    monkeypatch.setenv("COLUMNS", "200")
    examples = [line for line in tokgate("log", "query", "--help").out.splitlines() if "sum(events)" in line]
    assert len(examples) == sum("WHERE traffic" in line for line in examples) == 2
