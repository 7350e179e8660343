"""Looks into the log with commands: who, when, at what and why is kept before anything is shown."""

import argparse
import getpass
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from labs.command_line import Command
from labs.logs import refusal, write
from tokgate.cli.log.access import record_look


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "block.ndjson"
    write(path, [refusal()])
    return path


def looks(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.with_name("block.access.ndjson").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    "command", [("query", "--json"), ("export", "--format", "csv"), ("report", "-o", "r.html")], ids=lambda c: c[0]
)
def test_a_look_is_kept(log: Path, tokgate: Command, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The user, the command, its filters, the purpose and the ticket; also whom sudo says that it is for."""
    monkeypatch.setenv("SUDO_USER", "alice")
    purpose = ("--why", "complaint of 3 April", "--ticket", "HR-17")
    assert tokgate("log", *command, "--log", str(log), "--client", "192.0.2.7", *purpose).code == 0
    assert tokgate("log", command[0], *command[1:], "--log", str(log)).code == 0
    first, second = looks(log)
    assert first["user"]["name"] == f"alice as {getpass.getuser()}"
    review = first["tokgate"]["review"]
    assert review["page"] == f"tokgate log {command[0]}"
    assert review["filters"]["client"] == "192.0.2.7/32"
    assert (review["why"], review["ticket"]) == ("complaint of 3 April", "HR-17")
    assert "why" not in second["tokgate"]["review"]


def test_a_look_that_cannot_be_kept(log: Path, tokgate: Command) -> None:
    """An analyst who may only read is told, and sees; elsewhere it can be kept all the same."""
    log.with_name("block.access.ndjson").mkdir()
    outcome = tokgate("log", "query", "--log", str(log))
    assert outcome.code == 0
    assert "this look can't be recorded" in outcome.err
    assert "this look" not in tokgate("log", "query", "--log", str(log), "--access-log", "looks").err
    assert len(Path("looks").read_text("utf-8").splitlines()) == 1


def test_a_log_that_is_not_there(log: Path, tokgate: Command) -> None:
    """A mistyped name leaves no file behind."""
    before = set(log.parent.iterdir())
    assert tokgate("log", "query", "bolck.ndjson").code == 3
    assert set(log.parent.iterdir()) == before


def test_a_mistyped_name_hides_no_look(log: Path, tokgate: Command) -> None:
    """Whatever a command reads of several logs, or of one whose files are all rotated, the look is kept."""
    log.rename(log.with_name("block-20230310T000000Z.ndjson"))
    for number, names in enumerate((["block.ndjson"], ["bolck.ndjson", "block.ndjson"]), 1):
        assert "192.0.2.7" in tokgate("log", "query", "--json", *names).out
        assert len(looks(log)) == number
    assert not log.with_name("bolck.access.ndjson").exists()


def test_waiting_for_a_log_is_kept(log: Path) -> None:
    """`tail --follow` shows what is written later."""
    log.unlink()
    args = argparse.Namespace(log=[log], follow=True, access_log=None, why=None, ticket=None)
    record_look(args, "tokgate log tail")
    assert [look["tokgate"]["review"]["page"] for look in looks(log)] == ["tokgate log tail"]


def test_a_folder_that_is_not_listed(log: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may read the log, but not list its folder, sees its latest records; the look is kept."""

    def locked(path: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", locked)
    assert tokgate("log", "tail", str(log)).code == 0
    assert len(looks(log)) == 1


def test_reidentifying_is_kept_or_not_done(log: Path, tokgate: Command) -> None:
    """Who asks for a person says why, and nothing is told that isn't recorded."""
    assert tokgate("log", "pseudonyms", "--log", str(log), "a.half", "b.half").code == 0
    asked = ("log", "reidentify", "--half", "a.half", "--half", "b.half", "--among", "192.0.2.0/30")
    assert tokgate(*asked, "p1-aaaaaaaaaaaaaaaa").code == 2
    assert tokgate(*asked, "--why", "a complaint", "p1-aaaaaaaaaaaaaaaa").code in (1, 2, 3)
    (look,) = looks(log)
    assert look["tokgate"]["review"]["why"] == "a complaint"
    assert look["tokgate"]["review"]["filters"] == {"pseudonyms": "p1-aaaaaaaaaaaaaaaa"}
    log.with_name("block.access.ndjson").unlink()
    log.with_name("block.access.ndjson").mkdir()
    outcome = tokgate(*asked, "--why", "a complaint", "p1-aaaaaaaaaaaaaaaa")
    assert (outcome.code, outcome.out) == (3, "")
