"""Policies of a git revision: read without touching the work tree, with places that name the revision."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from whenever import Instant

from labs.command_line import POLICY, Command
from tokgate.cli.policy_source import find_revision, open_source

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

ASKED = ("explain", "--client", "192.0.2.7", "--host", "clips.example.org", "--at", "2023-05-02T08:00Z", "--policies")


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=Example", "-c", "user.email=user@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(("git", *identity, *arguments), check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(policies: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose first revision blocks and whose work tree only logs."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    git("init", "--quiet", "--initial-branch", "main")
    git("add", ".")
    git("commit", "--quiet", "--message", "Block")
    git("tag", "v1/first")
    (policies / "policy.yaml").write_text(POLICY.replace("duration: P6M", "action: monitor"))
    return policies


def test_explain_by_a_revision(repository: Path, tokgate: Command) -> None:
    """The revision's policy decides, its places are told as REV:DIR, and nothing of it stays."""
    before = sorted(Path().rglob("*"))
    outcome = tokgate(*ASKED, "HEAD:policies")
    assert outcome.code == 0
    assert outcome.out.startswith("block: ")
    assert "[HEAD:policies/policy.yaml:15]" in outcome.out
    assert tokgate(*ASKED, "policies").out.startswith("monitor: ")
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("source", ["v1/first:policies", "main:policies/policy.yaml", "HEAD:./policies", "@:policies"])
def test_ways_to_name_a_revision(repository: Path, tokgate: Command, source: str) -> None:
    """Tags with a slash, branches, a single file, a path from here."""
    assert tokgate(*ASKED, source).out.startswith("block: ")


def test_simulate_and_timeline_by_a_revision(repository: Path, tokgate: Command) -> None:
    """Whatever reads policies to answer a question takes them from a revision, too."""
    Path("queries").write_text('{"client": "192.0.2.7", "host": "clips.example.org", "at": "2023-05-02T08:00Z"}\n')
    assert '"verdict": "block"' in tokgate("simulate", "queries", "--policies", "HEAD:policies").out
    assert '"verdict": "monitor"' in tokgate("simulate", "queries", "--policies", "policies").out
    window = ("--from", "2023-03-02", "--to", "2023-03-20")
    assert "announced -> block" in tokgate("timeline", *window, "--policies", "HEAD:policies").out
    assert "announced -> monitor" in tokgate("timeline", *window, "--policies", "policies").out


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("HEAD", 1, "there are no policies at HEAD: name them with --policies (REV:DIR in git)"),
        ("HEAD:elsewhere", 3, "HEAD:elsewhere: there is no such folder or file in this revision"),
        ("nowhere", 1, "there are no policies at nowhere: name them with --policies"),
        ("nowhere:policies", 3, ""),
        *((source, 2, "") for source in ("HEAD:/etc", "HEAD:../policies", "--help:policies", ":policies")),
    ],
)
def test_sources_that_are_none(repository: Path, tokgate: Command, source: str, code: int, said: str) -> None:
    """One line says why, and git takes none of it for an option."""
    outcome = tokgate("diff", "policies", "--", source)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (code, "", 1)
    assert outcome.err.startswith(f"tokgate: {said}")


def test_errors_in_a_revision(repository: Path, tokgate: Command) -> None:
    (repository / "policy.yaml").write_text("version: 2\n")
    git("commit", "--all", "--quiet", "--message", "Break")
    outcome = tokgate(*ASKED, "HEAD:policies")
    assert outcome.code == 1
    assert "HEAD:policies/policy.yaml:1:10: error: " in outcome.err


def test_outside_a_repository(policies: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(policies.parent.parent))
    outcome = tokgate("diff", "HEAD:policies", "policies")
    assert (outcome.code, "not a git repository" in outcome.err) == (3, True)
    assert find_revision("policies", "0" * 12, Instant.from_utc(2023, 5, 1)) is None


def test_a_link_out_of_the_folder(repository: Path, tokgate: Command) -> None:
    (repository / "out.yaml").symlink_to("/etc/hostname")
    git("add", ".")
    git("commit", "--quiet", "--message", "Link")
    outcome = tokgate(*ASKED, "HEAD:policies")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("tokgate: HEAD:policies: ")


def test_the_revision_of_a_version_is_found(repository: Path, tokgate: Command) -> None:
    """The latest revision with that version, among those that changed the folder; None for what never was."""
    now = Instant.from_utc(2023, 5, 1)
    version = open_source("HEAD:policies", now).version
    revision = git("rev-parse", "--short", "HEAD").strip()
    git("commit", "--all", "--quiet", "--message", "Only log")
    assert find_revision("policies", version, now) == f"{revision}:policies"
    assert tokgate(*ASKED, f"{revision}:policies").out.startswith("block: ")
    assert find_revision("policies", "0" * 12, now) is None
    assert find_revision("nowhere", version, now) is None
    assert find_revision(str(repository), version, now) is None


def test_threads_that_read_revisions_move_nobody(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The review page reads revisions in threads: nobody's relative paths lead elsewhere meanwhile."""

    def forbidden(_: object) -> None:
        raise AssertionError("the working directory was changed")

    monkeypatch.setattr(os, "chdir", forbidden)
    monkeypatch.setattr(os, "fchdir", forbidden)
    version = open_source("HEAD:policies", Instant.now()).version
    assert find_revision("policies", version, Instant.now()) is not None
