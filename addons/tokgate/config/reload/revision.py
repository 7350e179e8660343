"""Finds who wrote the policy files last, where they are in a git work tree."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PATIENCE: Final = 5.0
"""Seconds for each call of git."""
_QUIET: Final = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
"""Nothing that a repository configures is run, and no lock is taken: a pull at the same moment would fail for it."""


@dataclass(frozen=True, slots=True)
class Revision:
    """The last commit that changed the policy files. `uncommitted`: they were changed since, nobody knows by whom."""

    commit: str
    author: str
    uncommitted: bool = False


def revision_of(policies: Path) -> Revision | None:
    """The revision of a folder or file of policies; None without git, outside a work tree, or without a commit."""
    folder, inside = (policies, ".") if policies.is_dir() else (policies.parent, policies.name)
    try:
        last = _git(folder, "log", "-1", "--no-show-signature", "--format=%h%x00%an <%ae>", "--", inside)
        commit, separator, author = last.strip().partition("\0")
        if not separator:
            return None
        return Revision(commit, author, bool(_git(folder, "status", "--porcelain", "--", inside).strip()))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ("git", *_QUIET, "-C", str(folder), *arguments)
    done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    return done.stdout.decode("utf-8", "replace")
