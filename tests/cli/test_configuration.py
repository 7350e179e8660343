"""One configuration: every command finds policies, log and tokgate's own folder by the file or the environment."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.command_line import Command
from labs.logs import refusal
from tokgate.blocklog.records.record import encode
from tokgate.cli.commands import COMMANDS, CommandError
from tokgate.cli.configuration import default_confdir, default_log, default_policies
from tokgate.cli.main import build_parser
from tokgate.cli.setup.completion import _parsers

PACKAGED = Path(__file__).parents[2] / "deploy" / "deb" / "tokgate.conf"
SAYS_OTHERWISE = {"tokgate authority init", "tokgate authority rotate", "tokgate log verify"}
"""Whose --confdir is where something is put besides, or whose --policies is a question of its own."""


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKGATE_CONF", str(tmp_path / "tokgate.conf"))
    return tmp_path / "tokgate.conf"


def options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options of a parser that the configuration is about."""
    yield from (each for each in parser._actions if {"--policies", "--log", "--confdir"} & set(each.option_strings))


def test_every_command_has_the_defaults(conf: Path) -> None:
    """Whatever command has one of the three options, it takes what the file of the package says."""
    conf.write_text(PACKAGED.read_text())
    stated = (default_policies(), default_log(), default_confdir())
    assert stated == tuple(
        map(Path, ("/etc/tokgate/policies", "/var/log/tokgate/block.ndjson", "/var/lib/tokgate/.tokgate"))
    )
    parsers = [each for each in _parsers(build_parser(COMMANDS)) if each.prog not in SAYS_OTHERWISE]
    found = {
        (parser.prog, option.dest): (option.default, option.help or "")
        for parser in parsers
        for option in options(parser)
    }
    assert len(found) > 40
    for (_, dest), (default, said) in found.items():
        place = str(dict(zip(("policies", "log", "confdir"), stated, strict=True))[dest])
        assert str(default) == place or (dest == "log" and not default)
        assert (
            f"(default: {place})" in said
            or said in ("the same, as an option", f"default: {place}")
            or "block logs" in said
        )


def test_it_is_used(policies: Path, conf: Path, tokgate: Command) -> None:
    """Commands without options read where the file says; the environment goes before it, and an option before both."""
    log, elsewhere = policies.parent / "there.ndjson", policies.parent / "elsewhere"
    log.write_bytes(encode(refusal()))
    conf.write_text(f"TOKGATE_POLICIES='{policies.rename(elsewhere)}'  # moved\nTOKGATE_LOG={log}\n")
    explain = ("explain", "--client", "192.0.2.7", "--host", "clips.example.org", "--at", "2023-05-02T08:00Z")
    assert tokgate(*explain).out.startswith("block")
    assert tokgate("check").code == 0
    assert "192.0.2.7" in tokgate("log", "tail").out
    assert "tokgate: 1 lines, " in tokgate("log", "verify").err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKGATE_POLICIES", "nowhere")
        missing = tokgate(*explain)
        assert missing.code == 1
        assert (
            "no policies at nowhere: name them with --policies (REV:DIR in git), or TOKGATE_POLICIES in " in missing.err
        )
        assert tokgate(*explain, "--policies", str(elsewhere)).code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("TOKGATE_POLICY=/etc/x", "1: unknown name TOKGATE_POLICY; did you mean `TOKGATE_POLICIES`?"),
        ("TOKGATE_LOG=block.ndjson", "1: TOKGATE_LOG is a whole path: /…"),
        ("TOKGATE_LOG=/a /b", "1: a line is NAME=VALUE, with quotes around spaces"),
        ("[tokgate]", "1: a line is NAME=VALUE"),
        ("TOKGATE_LOG='/a", "1: No closing quotation"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_what_can_not_be_read(conf: Path, tokgate: Command, line: str, said: str) -> None:
    """A mistake is told with its line by every command that would take a default: none goes on with another folder."""
    conf.write_text(f"{line}\n", errors="surrogateescape")
    for command in (("check",), ("log", "tail"), ("status",)):
        outcome = tokgate(*command)
        assert (outcome.code, outcome.out) == (2, "")
        assert said in outcome.err
    with pytest.raises(CommandError):
        default_policies()


@pytest.mark.parametrize(
    "words",
    [
        ("check",),
        ("explain", "--client", "192.0.2.7", "--host", "www.example.org"),
        ("timeline",),
        ("override", "list"),
        ("service", "show", "clips"),
        ("ruleset",),
        ("simulate", "/dev/null"),
        ("export", "mdm", "--service", "clips"),
    ],
    ids=" ".join,
)
def test_the_folder_as_an_argument(policies: Path, conf: Path, tokgate: Command, words: tuple[str, ...]) -> None:
    """Commands that read policies take their folder without --policies; of two folders none wins silently."""
    elsewhere = policies.rename(policies.parent / "elsewhere")
    assert tokgate(*words, str(elsewhere)).code == 0
    twice = tokgate(*words, "--policies", "b", str(elsewhere))
    assert twice.code == 2
    assert "the policies are named twice: " in twice.err
