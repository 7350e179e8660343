"""All that a check found, in one list: what loading says, what lies ahead, and the tests that failed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whenever import Instant

from tokgate.cli.outlook import Ending, endings, outlook, source_line
from tokgate.cli.policies import compile_patiently, load_patiently
from tokgate.cli.queries import Query, member, who, zone_of
from tokgate.cli.steps import step_lines, steps
from tokgate.cli.terminal import shown
from tokgate.config.diagnostics import Code, Diagnostic, Level
from tokgate.config.loader import Loaded
from tokgate.config.policy_tests import TestResult, run_tests
from tokgate.policy.instants import both
from tokgate.policy.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Finding:
    """One diagnostic; of a failed test with the steps that led to the decision, a line each."""

    diagnostic: Diagnostic
    trace: tuple[str, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether it makes the exit code 1."""
        return self.diagnostic.level is Level.ERROR


@dataclass(frozen=True, slots=True)
class Report:
    """What one check found."""

    loaded: Loaded
    snapshot: Snapshot | None
    results: tuple[TestResult, ...]
    endings: tuple[Ending, ...]
    findings: tuple[Finding, ...]
    now: Instant

    @property
    def failed(self) -> int:
        """Tests that were decided otherwise than expected."""
        return sum(not result.passed for result in self.results)

    @property
    def warnings(self) -> int:
        """What is probably not meant, or soon to be decided."""
        return sum(not finding.is_error for finding in self.findings)

    @property
    def summary(self) -> str:
        """The last line; its form is fixed, programs may read it."""
        return (
            f"{len(self.loaded.files)} files, {len(self.loaded.errors)} errors, {self.warnings} warnings, "
            f"{len(self.results) - self.failed} tests passed, {self.failed} failed"
        )


def examine(path: Path, now: Instant, authority: Path | None = None) -> Report:
    """Load, compile, test, and look ahead; with the page's `authority` also whether devices believe it."""
    loaded = load_patiently(path, now)
    found = [Finding(diagnostic) for diagnostic in loaded.diagnostics]
    if loaded.policy is None:
        return Report(loaded, None, (), (), tuple(found), now)
    snapshot = compile_patiently(loaded.policy)
    results, ending = run_tests(snapshot, loaded.tests), endings(snapshot, now)
    found += [_failure(snapshot, result) for result in results if not result.passed]
    found += [Finding(diagnostic) for diagnostic in outlook(snapshot, ending)]
    if authority is not None:
        from tokgate.cli.trust import untrusted

        found += [Finding(diagnostic) for diagnostic in untrusted(loaded.policy, authority)]
    return Report(loaded, snapshot, results, ending, tuple(found), now)


def _failure(snapshot: Snapshot, result: TestResult) -> Finding:
    test, decision = result.test, result.decision
    zone = zone_of(snapshot, member(snapshot, test.client, test.identity))
    message = (
        f"expected {test.expect}, got {decision.verdict} ({decision.reason}) for "
        f"{shown(test.client)}{who(test.identity)} {shown(test.url or test.host)} at {both(test.at, zone)}"
    )
    line = source_line(test.origin)
    length = 0 if line is None else len(line) - test.origin.column + 1
    diagnostic = Diagnostic(Level.ERROR, test.origin, message, Code.TEST_FAILED, line, length)
    return Finding(diagnostic, tuple(_trace(snapshot, result)))


def _trace(snapshot: Snapshot, result: TestResult) -> Iterator[str]:
    test = result.test
    query = Query(test.client, None if test.url else test.host, test.at, test.url, test.identity)
    for step in steps(snapshot, query):
        yield from step_lines(step)
