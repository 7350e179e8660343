"""Held bans in `check` and `explain`: what these files say is not all that is in force."""

from pathlib import Path

import pytest

from labs.builders import at, policy_in
from labs.command_line import POLICY, Command
from tokgate.policy.analysis.held_bans import restricted
from tokgate.runtime.held_file import HeldFile

NOW = "2023-05-01T00:00Z"


@pytest.fixture
def confdir(policies: Path, tmp_path: Path) -> Path:
    """The folder of a tokgate that holds a ban which was taken out of the files."""
    policy = policy_in(policies, at(NOW))
    HeldFile.of(tmp_path / "keys", policies).write(restricted(policy, ("spring-ban",)))
    (policies / "policy.yaml").write_text(POLICY.partition("bans:")[0])
    return tmp_path / "keys"


def test_check_warns_of_a_held_ban(confdir: Path, policies: Path, tokgate: Command) -> None:
    """Whoever checks the files hears that a ban is in force which they no longer state; not once it is lifted."""
    outcome = tokgate("check", "--at", NOW, "--confdir", str(confdir))
    assert "the ban `spring-ban` stays in force although these files no longer state it" in outcome.out
    assert (outcome.code, "[ban-held]" in outcome.out) == (0, True)
    assert "[ban-held]" not in tokgate("check", "--at", "2024-05-01T00:00Z", "--confdir", str(confdir)).out
    (policies / "lifted.yaml").write_text("lifted: {ban: spring-ban, reason: Repealed}")
    assert "[ban-held]" not in tokgate("check", "--at", NOW, "--confdir", str(confdir)).out


def test_explain_tells_of_a_held_ban(
    confdir: Path, policies: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision by the files alone comes with a word on what is held besides, if that is still in force."""
    monkeypatch.setenv("HOME", str(confdir.parent))
    held = HeldFile.of(confdir.rename(confdir.parent / ".tokgate"), policies)
    asked = ("explain", "--client", "192.0.2.7", "--host", "clips.example.org")
    assert "[ban-held]" not in tokgate(*asked).err  # it ended in September 2023
    written = held.path.read_text()
    held.path.write_text(written.replace(', "duration": "P6M"', ""))
    assert held.path.read_text() != written
    outcome = tokgate(*asked)
    assert (outcome.code, outcome.out.startswith("allow")) == (0, True)
    assert "the ban `spring-ban` stays in force although" in outcome.err
