"""`tokgate check`: what is wrong with policy files, whether their tests pass, and which bans are about to end."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.cli.exits import Exit
from tokgate.cli.instants import both, local, settle, time_argument, utc
from tokgate.cli.policies import compile_patiently, load_patiently
from tokgate.cli.queries import Query, outcome
from tokgate.cli.steps import step_lines, steps
from tokgate.cli.terminal import narrate, shown, wants_color
from tokgate.config.diagnostics import Diagnostic, render
from tokgate.config.loader import Loaded
from tokgate.config.policy_tests import TestResult, run_tests
from tokgate.policy.bans import OnExpiry
from tokgate.policy.snapshot import Snapshot, Track

EPILOG = """\
examples:
  tokgate check                       ./policies
  tokgate check policies/default.yaml one file (others may name what it lacks)
  tokgate check --strict --json       for CI: warnings count as findings
  tokgate check --at 2023-09-01T00:00Z  as of another day

The last line is always: N files, N errors, N warnings, N tests passed, N failed
Exit code 1: errors or failed tests (with --strict also warnings)."""

NEAR: Final = 30
"""Days before its end from which a ban is listed."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A ban that is about to end, in the networks of one time zone."""

    track: Track
    at: Instant


@dataclass(frozen=True, slots=True)
class Report:
    """All that a check found."""

    loaded: Loaded
    snapshot: Snapshot | None
    results: tuple[TestResult, ...]
    endings: tuple[Ending, ...]
    now: Instant

    @property
    def failures(self) -> tuple[TestResult, ...]:
        """Tests that were decided otherwise than expected."""
        return tuple(result for result in self.results if not result.passed)

    @property
    def summary(self) -> str:
        """The last line; its form is fixed, programs may read it."""
        failed = len(self.failures)
        return (
            f"{len(self.loaded.files)} files, {len(self.loaded.errors)} errors, {len(self.loaded.warnings)} warnings, "
            f"{len(self.results) - failed} tests passed, {failed} failed"
        )


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `check`."""
    summary = "find what is wrong with policies, and run their tests"
    parser = subparsers.add_parser("check", help=summary, description=summary, epilog=EPILOG)
    parser.add_argument(
        "dir", metavar="DIR", nargs="?", type=Path, default=Path("policies"), help="default: ./policies"
    )
    parser.add_argument("--at", type=time_argument, metavar="TIME", help="the instant that counts as now (wall: UTC)")
    parser.add_argument("--strict", action="store_true", help="exit 1 for warnings, too")
    parser.add_argument("--json", action="store_true", help="all of it as one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check one folder or file."""
    now = Instant.now() if options.at is None else settle(options.at, "UTC")
    report = examine(options.dir, now)
    if options.json:
        sys.stdout.write(json.dumps(_document(report), indent=2) + "\n")
    else:
        color = wants_color(sys.stdout)
        sys.stdout.writelines(f"{line}\n" for line in _text(report, color))
        if report.snapshot is None:
            narrate("tokgate: tests are run once there are no errors")
    findings = report.loaded.errors or report.failures or (options.strict and report.loaded.warnings)
    return Exit.FINDINGS if findings else Exit.DONE


def examine(path: Path, now: Instant) -> Report:
    """Load, compile and test."""
    loaded = load_patiently(path, now)
    if loaded.policy is None:
        return Report(loaded, None, (), (), now)
    snapshot = compile_patiently(loaded.policy)
    return Report(loaded, snapshot, run_tests(snapshot, loaded.tests), _endings(snapshot, now), now)


def _endings(snapshot: Snapshot, now: Instant) -> tuple[Ending, ...]:
    """Bans that end within days, the next first, by time zone."""
    limit = now.add(hours=24 * NEAR)
    near = [Ending(track, ends) for track in snapshot.tracks if (ends := track.schedule.ends) and now < ends <= limit]
    return tuple(sorted(near, key=lambda ending: ending.at))


def _text(report: Report, color: bool) -> Iterator[str]:
    for diagnostic in report.loaded.diagnostics:
        yield render(diagnostic, color=color)
    if report.snapshot is not None:
        for result in report.failures:
            yield from _failure(report.snapshot, result, color)
    for ending in report.endings:
        yield _ending_line(ending)
    yield report.summary


def _failure(snapshot: Snapshot, result: TestResult, color: bool) -> Iterator[str]:
    test, decision = result.test, result.decision
    label = "\x1b[1;31merror\x1b[0m" if color else "error"
    yield (
        f"{test.origin}: {label}: expected {test.expect}, got {decision.verdict} ({decision.reason}) for "
        f"{shown(test.client)} {shown(test.url or test.host)} at {utc(test.at)} [test-failed]"
    )
    query = Query(test.client, None if test.url else test.host, test.at, test.url)
    for step in steps(snapshot, query):
        yield from (f"   {line}" for line in step_lines(step))


def _ending_line(ending: Ending) -> str:
    track = ending.track
    where = "" if track.ban.origin is None else f"{track.ban.origin}: "
    after = "is then held until somebody decides" if track.ban.on_expiry is OnExpiry.HOLD else "then lapses"
    when = both(ending.at, track.zone)
    return (
        f"{where}note: the ban `{track.ban.name}` ends {when} for {', '.join(track.networks)}, and {after} [ban-ends]"
    )


def _document(report: Report) -> dict[str, object]:
    return {
        "at": utc(report.now),
        "version": None if report.snapshot is None else report.snapshot.version,
        "summary": report.summary,
        "files": [str(path) for path in report.loaded.files],
        "errors": len(report.loaded.errors),
        "warnings": len(report.loaded.warnings),
        "passed": len(report.results) - len(report.failures),
        "failed": len(report.failures),
        "diagnostics": _diagnostics(report.loaded.diagnostics),
        "tests": [_result(result) for result in report.results],
        "ending": [_end(ending) for ending in report.endings],
    }


def _diagnostics(diagnostics: Sequence[Diagnostic]) -> list[dict[str, object]]:
    return [
        {
            "level": each.level,
            "file": each.origin.file,
            "line": each.origin.line,
            "column": each.origin.column,
            "message": each.message,
            "code": each.code,
        }
        for each in diagnostics
    ]


def _result(result: TestResult) -> dict[str, object]:
    test = result.test
    return {
        "file": test.origin.file,
        "line": test.origin.line,
        "passed": result.passed,
        "expect": test.expect,
        "client": test.client,
        "host": test.host,
        "url": test.url,
        "at": utc(test.at),
        **outcome(result.decision),
    }


def _end(ending: Ending) -> dict[str, object]:
    track = ending.track
    return {
        "ban": track.ban.name,
        "networks": list(track.networks),
        "ends": utc(ending.at),
        "local": local(ending.at, track.zone),
        "zone": track.zone,
        "on_expiry": track.ban.on_expiry,
    }
