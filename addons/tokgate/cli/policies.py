"""From `--policies` to a snapshot, for the commands that decide: nothing is decided with a policy that has errors."""

import argparse
import sys
from pathlib import Path

from whenever import Instant

from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.terminal import Patience, narrate, shown, wants_color
from tokgate.config.diagnostics import render
from tokgate.config.loader import Loaded, load
from tokgate.policy.snapshot import Policy, Snapshot, compile_policy


def add_policies_option(parser: argparse.ArgumentParser) -> None:
    """`--policies`, with the default of all commands."""
    parser.add_argument(
        "--policies",
        metavar="DIR",
        type=Path,
        default=Path("policies"),
        help="folder (or one file) of policies (default: ./policies)",
    )


def open_policy(path: Path, now: Instant) -> Policy:
    """Load a policy; when it is wrong, show all its errors on stderr and end the command with exit code 1."""
    loaded = load_patiently(path, now)
    if loaded.policy is None:
        for diagnostic in loaded.errors:
            narrate(render(diagnostic, color=wants_color(sys.stderr)))
        raise CommandError(f"{shown(str(path))} holds no valid policy: nothing to decide with", Exit.FINDINGS)
    return loaded.policy


def open_snapshot(path: Path, now: Instant) -> Snapshot:
    """Load and compile a policy, as `open_policy`."""
    return compile_patiently(open_policy(path, now))


def load_patiently(path: Path, now: Instant) -> Loaded:
    """Load, with progress on a terminal."""
    with Patience("reading files") as progress:
        return load(path, now, progress)


def compile_patiently(policy: Policy) -> Snapshot:
    """Compile, with progress on a terminal."""
    with Patience("compiling bans") as progress:
        return compile_policy(policy, progress)
