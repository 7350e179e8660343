"""The program around the commands: help, usage errors, exit codes, and what happens when something goes wrong."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labs.command_line import Command
from labs.waiting import DEADLINE
from tokgate.cli.commands import COMMANDS, CommandError, Exit
from tokgate.cli.main import build_parser, main
from tokgate.cli.policy import explain
from tokgate.cli.setup.completion import _parsers

ASKED = ("explain", "--client", "192.0.2.7", "--host", "www.example.org")


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen((sys.executable, "-m", "tokgate", *arguments), text=True, **options)


def test_help_names_every_command(tokgate: Command) -> None:
    outcome = tokgate("--help")
    assert outcome.code == 0
    assert all(f"    {command} " in outcome.out for command in COMMANDS)
    assert "examples:" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("expain",), "unknown command 'expain'; did you mean `explain`?"),
        (("explain", "--clint", "192.0.2.7"), "usage: tokgate explain "),
        (("explain", "--clint", "192.0.2.7"), "tokgate explain: error: unrecognized arguments: --clint"),
        (("override", "list", "--every"), "tokgate override list: error: unrecognized arguments: --every"),
    ],
)
def test_what_was_meant(tokgate: Command, arguments: tuple[str, ...], said: str) -> None:
    """A misspelt command is guessed; an unknown option is answered by the command that does not have it."""
    outcome = tokgate(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err


@pytest.mark.parametrize("parser", list(_parsers(build_parser(COMMANDS))), ids=lambda parser: parser.prog)
def test_each_command_teaches(parser: argparse.ArgumentParser) -> None:
    """The help of each command, and of each below it, has examples; one on two lines says so to the shell."""
    examples = parser.format_help().partition("\nexample")[2]
    assert f"  {parser.prog}" in examples
    assert not any(line.startswith("  tokgate") and "   --" in line for line in examples.splitlines())


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize("parser", list(_parsers(build_parser(COMMANDS))), ids=lambda parser: parser.prog)
def test_help_fits_the_terminal(parser: argparse.ArgumentParser, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider than the terminal, but a command that would be no longer one when broken."""
    monkeypatch.setenv("COLUMNS", columns)
    wide = [line for line in parser.format_help().splitlines() if len(line) > int(columns)]
    assert [line for line in wide if len(line.split()) > 1] == []


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("no-such-command",),
        ("explain",),
        ("explain", "--client", "192.0.2.7"),
        ("explain", "--client", "192.0.2.7", "--host", "a.example", "--at", "yesterday"),
        ("explain", "--client", "192.0.2.7", "--host", "a.example", "--at", "2023-02-30"),
        ("explain", "--cli", "192.0.2.7", "--host", "a.example"),
        ("simulate",),
        ("timeline", "--limit", "0"),
        ("timeline", "--from", "2023-03-02", "--to", "2023-03-01"),
        ("schema", "everything"),
    ],
)
def test_usage_errors(policies: Path, tokgate: Command, arguments: tuple[str, ...]) -> None:
    """Exit code 2, nothing on stdout, and the usage on stderr."""
    outcome = tokgate(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "usage: tokgate" in outcome.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CommandError("no luck", Exit.FINDINGS), 1, "tokgate: no luck\n"),
        (PermissionError(13, "Permission denied", "secret"), 3, "tokgate: secret: Permission denied\n"),
        (RuntimeError("a defect"), 3, "tokgate: internal error: RuntimeError: a defect\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_goes_wrong_is_one_line(
    policies: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    """Errors become an exit code and a line; a trace only when asked for."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.delenv("TOKGATE_DEBUG", raising=False)
    monkeypatch.setattr(explain, "open_source", fail)
    outcome = tokgate(*ASKED)
    assert outcome.code == code
    assert outcome.err.startswith(said)
    assert "Traceback" not in outcome.err
    if code == 3:
        assert "Traceback" in tokgate(*ASKED, "--debug").err
        monkeypatch.setenv("TOKGATE_DEBUG", "1")
        assert "Traceback" in tokgate(*ASKED).err


def test_no_valid_policy(policies: Path, tokgate: Command) -> None:
    """All errors are shown on stderr, and the exit code is 1."""
    (policies / "policy.yaml").write_text("version: 1\nbans: {b: {title: t, services: [nowhere]}}\n")
    outcome = tokgate(*ASKED)
    assert (outcome.code, outcome.out) == (1, "")
    assert "unknown-service" in outcome.err
    assert "missing-key" in outcome.err


def test_a_reader_that_stops(policies: Path) -> None:
    """A closed pipe ends the program silently, as other tools end."""
    process = start("ruleset", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(DEADLINE) == Exit.READER_GONE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("ruleset",), ("--help",), ("check", "--help"), ("--version",)], ids=" ".join)
def test_a_full_disk(policies: Path, arguments: tuple[str, ...]) -> None:
    """Output that cannot be written is a failure, not a success."""
    with Path("/dev/full").open("w") as full:
        process = start(*arguments, stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert errors.startswith("tokgate: No space left on device")


def test_closed_streams(policies: Path) -> None:
    """Without stdout and stderr a command does the same, unseen; no file of its own takes their place."""
    (policies / "policy.yaml").write_text("bans: {b: {}}\n")
    for closed in ((1,), (2,), (0, 1, 2)):

        def close(streams: tuple[int, ...] = closed) -> None:
            for number in streams:
                os.close(number)

        process = start("check", stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=close)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert (bool(out), bool(errors)) == (1 not in closed, 2 not in closed)


def test_help_is_quick() -> None:
    """Help of everything needs no command's libraries; explaining needs no mitmproxy."""
    code = "import sys; from tokgate.cli.main import main; main({}); print(*sys.modules)"
    loaded = {}
    for asked in (["--help"], ["explain", "--help"]):
        done = subprocess.run((sys.executable, "-c", code.format(asked)), check=True, capture_output=True, text=True)
        loaded[asked[0]] = set(done.stdout.splitlines()[-1].split())
    assert not loaded["--help"] & {"pydantic", "whenever", "yaml", "tokgate.policy.snapshot"}
    assert not loaded["explain"] & {
        "mitmproxy",
        "tldextract",
        "holidays",
        "duckdb",
        "tokgate.blocklog.write.writer",
    }


def test_help_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`tokgate help`, alone and before a command, prints what `--help` prints."""
    for asked, same in ((["help"], ["--help"]), (["help", "log", "tail"], ["log", "tail", "--help"])):
        assert main(asked) == 0
        said = capsys.readouterr().out
        assert main(same) == 0
        assert capsys.readouterr().out == said
