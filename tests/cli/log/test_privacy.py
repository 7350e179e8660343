"""`tokgate log pseudonyms` and `log reidentify`: what two people type, and what one can't."""

from pathlib import Path

import pytest

from labs.command_line import Command
from tokgate.blocklog.paths import secret_path_for
from tokgate.blocklog.write.pseudonyms import prefix, read_secret, with_alias

REIDENTIFY = ("log", "reidentify", "--why", "a complaint")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokgate: Command) -> str:
    """A secret and its halves in a working directory of its own; the pseudonym of 192.0.2.7."""
    monkeypatch.chdir(tmp_path)
    outcome = tokgate("log", "pseudonyms", "a.half", "b.half", "--days", "7")
    assert (outcome.code, outcome.out) == (0, "")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    return read_secret(secret_path_for(Path("block.ndjson"))).pseudonym("192.0.2.7")


def test_both_halves_tell(made: str, tokgate: Command) -> None:
    """The address, from a network or from a file."""
    Path("known.txt").write_text("203.0.113.1\nnot an address\n192.0.2.7\n")
    for among in ("192.0.2.0/24", "known.txt"):
        outcome = tokgate(*REIDENTIFY, "--half", "b.half", "--half", "a.half", "--among", among, made)
        assert (outcome.code, outcome.out) == (0, f"{made}\t192.0.2.7\n")


def test_users(made: str, tokgate: Command) -> None:
    """They have pseudonyms of their own, which both halves open among names in a file."""
    record = {"source": {"ip": "192.0.2.7", "mac": "00-53-00-00-00-03"}, "user": {"name": "alice"}}
    hidden = with_alias(record, read_secret(secret_path_for(Path("block.ndjson"))).pseudonym)
    assert (hidden["source"], "alice" in str(hidden)) == ({"address": made}, False)
    assert with_alias(record, prefix)["user"] == {"name": "withheld"}
    Path("people").write_text("192.0.2.7\nbob\n\nalice\n")
    user = hidden["user"]["name"]
    outcome = tokgate(*REIDENTIFY, "--half", "a.half", "--half", "b.half", "--among", "people", user)
    assert (outcome.code, outcome.out) == (0, f"{user}\talice\n")


def test_one_half_does_not(made: str, tokgate: Command) -> None:
    assert tokgate(*REIDENTIFY, "--half", "a.half", "--among", "192.0.2.0/24", made).code == 2
    outcome = tokgate(*REIDENTIFY, "--half", "a.half", "--half", "a.half", "--among", "192.0.2.0/24", made)
    assert (outcome.code, outcome.out) == (3, "")


def test_none_of_these(made: str, tokgate: Command) -> None:
    """Exit code 1, and who it isn't is told."""
    halves = ("--half", "a.half", "--half", "b.half")
    outcome = tokgate(*REIDENTIFY, *halves, "--among", "198.51.100.0/24", made)
    assert (outcome.code, outcome.out) == (1, "")
    assert made in outcome.err
    assert tokgate(*REIDENTIFY, *halves, "--among", "2001:db8::/32", made).code == 2
    assert tokgate(*REIDENTIFY, *halves, "--among", "192.0.2.0/24", "192.0.2.7").code == 2


def test_a_secret_is_never_overwritten(made: str, tokgate: Command) -> None:
    """Old pseudonyms would be lost with it."""
    assert tokgate("log", "pseudonyms", "c.half", "d.half").code == 3
    assert not Path("c.half").exists()
