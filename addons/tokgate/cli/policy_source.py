"""Opens the policies of `--policies`: a folder, a file, or with git a folder in a revision, written as `REV:DIR`.

Commands that decide use no policy with errors. `git archive` extracts a revision into a temporary folder; the work tree
is not touched.
"""

import argparse
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Final

from whenever import Instant

from tokgate.cli.commands import CommandError, Exit
from tokgate.cli.configuration import FILE, POLICIES, default_policies
from tokgate.cli.terminal import Patience, narrate, visible, wants_color
from tokgate.config.diagnostics import render
from tokgate.config.loader import load
from tokgate.policy.snapshot import Policy, Snapshot, compile_policy


class _Named(argparse.Action):
    """Takes the policies' place from `--policies` or the argument; naming two is an error."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        known = getattr(namespace, "named_policies", None)
        if known is not None:
            parser.error(f"the policies are named twice: {visible(str(known))} and {visible(str(values))}")
        namespace.policies = namespace.named_policies = values


SOURCE: Final = "DIR|REV:DIR"
"""The metavar of a policy source."""


def add_policies_option(parser: argparse.ArgumentParser, *, revisions: bool = False, argument: bool = True) -> None:
    """Add `--policies`, and as the last of the arguments the same without it.

    With `revisions` it also takes a revision, and is text.
    """
    metavar, read = (SOURCE, str) if revisions else ("DIR", Path)
    default = default_policies()
    said = f"folder (or one file) of policies (default: {default})"
    parser.add_argument("--policies", metavar=metavar, type=read, default=read(default), action=_Named, help=said)
    if argument:
        parser.add_argument(
            "policies", metavar=metavar, nargs="?", type=read, default=argparse.SUPPRESS, action=_Named,
            help="the same, in short",
        )  # fmt: skip


def open_policy(path: Path, now: Instant, base: Path | None = None) -> Policy:
    """Load a policy. If it is invalid, print all errors on stderr and end the command with exit code 1.

    Files below `base` are named relative to it.
    """
    if not path.exists():
        hint = f"name them with --policies (REV:DIR in git), or {POLICIES} in {FILE}; `tokgate init` writes some"
        raise CommandError(f"there are no policies at {visible(str(path))}: {hint}", Exit.FINDINGS)
    loaded = load(path, now, base=base)
    if loaded.policy is None:
        for diagnostic in loaded.errors:
            narrate(render(diagnostic, color=wants_color(sys.stderr)))
        named = path if base is None else path.relative_to(base)
        raise CommandError(f"{visible(str(named))} holds no valid policy: nothing to decide with", Exit.FINDINGS)
    return loaded.policy


def open_snapshot(path: Path, now: Instant, base: Path | None = None) -> Snapshot:
    """Load and compile a policy, as `open_policy`."""
    return compile_policy(open_policy(path, now, base))


def snapshot_if_valid(path: Path, now: Instant, otherwise: str) -> Snapshot | None:
    """The compiled policy; None where there is none, or an invalid one: then stderr says what is done `otherwise`."""
    if not path.exists():
        return None
    policy = load(path, now).policy
    if policy is None:
        narrate(f"tokgate: {path} has errors (see `tokgate check`): {otherwise}")
        return None
    return compile_policy(policy)


LOOKED_BACK: Final = 100
"""Maximum revisions that are searched for a version."""


def open_source(source: str, now: Instant) -> Snapshot:
    """Load and compile the policies of a source. If they are invalid, print the errors and end with exit code 1.

    An existing file or folder takes precedence over a revision of that name. Positions in a revision are shown as
    `REV:DIR/file.yaml:LINE`.
    """
    path = Path(source)
    revision, colon, folder = source.partition(":")
    if path.exists() or not colon:
        return open_snapshot(path, now)
    with _checked_out(revision, folder) as (root, name):
        return open_snapshot(root / name, now, root)


def find_revision(source: str, version: str, now: Instant) -> str | None:
    """The latest git revision of a folder with policies of this version, as `REV:DIR`.

    Searches the last revisions that changed the folder; None if none of them has it, or there is no git.
    """
    if not Path(source).exists() or Path(source).is_absolute():
        return None
    try:
        listed = _git("rev-list", "--abbrev-commit", f"--max-count={LOOKED_BACK}", "HEAD", "--", source).decode()
        with Patience("looking through revisions") as show:
            for done, revision in enumerate(listed.split()):
                show(done, LOOKED_BACK)
                with _checked_out(revision, source) as (root, name):
                    policy = load(root / name, now, base=root).policy
                if policy is not None and policy.version == version:
                    return name
    except CommandError:  # no repository, or a revision without the folder
        return None
    return None


@contextmanager
def _checked_out(revision: str, folder: str) -> Iterator[tuple[Path, str]]:
    """A temporary folder that holds the revision's policies, under a name that reads `REV:DIR` there."""
    inside = PurePosixPath(folder)
    if not revision or revision.startswith("-") or inside.is_absolute() or ".." in inside.parts:
        raise CommandError(f"{visible(f'{revision}:{folder}')} is no folder in a git revision: REV:DIR", Exit.USAGE)
    top = _git("rev-parse", "--show-toplevel").decode().rstrip("\n")
    prefix = _git("rev-parse", "--show-prefix").decode().rstrip("\n")
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    if not _git("ls-tree", "--name-only", commit, "--", str(inside)):
        raise CommandError(f"{visible(f'{revision}:{folder}')}: there is no such folder or file in this revision")
    archive = _git("-C", top, "archive", "--format=tar", commit, "--", str(PurePosixPath(prefix) / inside))
    with TemporaryDirectory(prefix="tokgate-") as temporary:
        # The archive's own paths stand below a folder called `REV:`, so that origins name the revision.
        root = Path(temporary).resolve()
        name = f"{revision}:{inside}"
        place = root / "archive"
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(place, filter="data")
        except tarfile.TarError as error:  # a link that leads out of the folder
            raise CommandError(f"{visible(name)}: {visible(str(error))}", Exit.FINDINGS) from None
        target = root / "shown" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (place / prefix / inside).rename(target)
        yield root / "shown", name


def _git(*arguments: str) -> bytes:
    """The output of git. An error of git ends the command."""
    try:
        done = subprocess.run(("git", *arguments), capture_output=True, check=True)  # noqa: S607  (the user's own git)
    except FileNotFoundError:
        raise CommandError("git is not installed: it is needed to read policies of a revision") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().removeprefix("fatal: ")
        raise CommandError(f"git {arguments[0]}: {visible(said or 'there is no such revision')}") from None
    return done.stdout
