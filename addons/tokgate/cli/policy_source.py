"""Opens the policy of `--policies` for the commands that decide. They use no policy with errors."""

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
    """Add `--policies` with the default of all commands."""
    parser.add_argument(
        "--policies",
        metavar="DIR",
        type=Path,
        default=Path("policies"),
        help="folder (or one file) of policies (default: ./policies)",
    )


def open_policy(path: Path, now: Instant, base: Path | None = None) -> Policy:
    """Load a policy. If it is invalid, print all errors on stderr and end the command with exit code 1.

    Files below `base` are named relative to it.
    """
    loaded = load_patiently(path, now, base)
    if loaded.policy is None:
        for diagnostic in loaded.errors:
            narrate(render(diagnostic, color=wants_color(sys.stderr)))
        named = path if base is None else path.relative_to(base)
        raise CommandError(f"{shown(str(named))} holds no valid policy: nothing to decide with", Exit.FINDINGS)
    return loaded.policy


def open_snapshot(path: Path, now: Instant, base: Path | None = None) -> Snapshot:
    """Load and compile a policy, as `open_policy`."""
    return compile_patiently(open_policy(path, now, base))


def snapshot_if_valid(path: Path, now: Instant, otherwise: str) -> Snapshot | None:
    """The compiled policy; None where there is none, or an invalid one: then stderr says what is done `otherwise`."""
    if not path.exists():
        return None
    policy = load_patiently(path, now).policy
    if policy is None:
        narrate(f"tokgate: {path} has errors (see `tokgate check`): {otherwise}")
        return None
    return compile_patiently(policy)


def load_patiently(path: Path, now: Instant, base: Path | None = None) -> Loaded:
    """Load, with progress on a terminal."""
    with Patience("reading files") as progress:
        return load(path, now, progress, base=base)


def compile_patiently(policy: Policy) -> Snapshot:
    """Compile, with progress on a terminal."""
    with Patience("compiling bans") as progress:
        return compile_policy(policy, progress)
