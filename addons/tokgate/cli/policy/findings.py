"""The findings of a check in one list: diagnostics, warnings of what ends soon, and failed tests."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whenever import Instant

from tokgate.cli.decision_query import DecisionQuery, member, who, zone_of
from tokgate.cli.decision_steps import step_lines, steps
from tokgate.cli.policy.free_addresses import free_addresses
from tokgate.cli.policy.held import held_bans
from tokgate.cli.policy.outlook import Ending, endings, outlook, source_line
from tokgate.cli.policy_source import compile_patiently, load_patiently
from tokgate.cli.terminal import shown
from tokgate.config.catalogue import own_definitions
from tokgate.config.diagnostics import Code, Diagnostic, Level
from tokgate.config.loader import Loaded
from tokgate.policy.services import Service
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.text import both
from tokgate.traffic.policy_tests import TestResult, run_tests


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """A diagnostic; for a failed test with the steps of its decision, a line each."""

    diagnostic: Diagnostic
    trace: tuple[str, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether this finding sets exit code 1."""
        return self.diagnostic.level is Level.ERROR


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check. `snapshot` is None if the policy is invalid."""

    loaded: Loaded
    snapshot: Snapshot | None
    results: tuple[TestResult, ...]
    endings: tuple[Ending, ...]
    findings: tuple[CheckFinding, ...]
    now: Instant
    own: tuple[Service, ...] = ()
    """Services that the files define although the catalogue has them."""

    @property
    def failed(self) -> int:
        """The tests whose decision is not the expected one."""
        return sum(not result.passed for result in self.results)

    @property
    def warnings(self) -> int:
        """The findings that are no errors: probable mistakes, and what ends soon."""
        return sum(not finding.is_error for finding in self.findings)

    @property
    def summary(self) -> str:
        """The last line of output. Its format is fixed, so that programs may parse it."""
        return (
            f"{len(self.loaded.files)} files, {len(self.loaded.errors)} errors, {self.warnings} warnings, "
            f"{len(self.results) - self.failed} tests passed, {self.failed} failed"
        )


def examine(path: Path, now: Instant, authority: Path | None = None, confdir: Path | None = None) -> CheckResult:
    """Load and compile a policy, run its tests, and look for warnings; with `authority` also of untrusted names.

    `confdir` is the folder of a running tokgate, which may hold bans back; None is the default one.
    """
    loaded = load_patiently(path, now)
    found = [CheckFinding(diagnostic) for diagnostic in loaded.diagnostics]
    if loaded.policy is None:
        return CheckResult(loaded, None, (), (), tuple(found), now)
    snapshot = compile_patiently(loaded.policy)
    results, ending = run_tests(snapshot, loaded.tests), endings(snapshot, now)
    found += [_failure(snapshot, result) for result in results if not result.passed]
    found += [CheckFinding(diagnostic) for diagnostic in outlook(snapshot, ending)]
    found += [CheckFinding(diagnostic) for diagnostic in free_addresses(snapshot, now)]
    found += [CheckFinding(diagnostic) for diagnostic in held_bans(loaded.policy, path, now, confdir)]
    if authority is not None:
        from tokgate.cli.policy.untrusted_names import untrusted

        found += [CheckFinding(diagnostic) for diagnostic in untrusted(loaded.policy, authority)]
    return CheckResult(loaded, snapshot, results, ending, tuple(found), now, own_definitions(loaded.policy))


def _failure(snapshot: Snapshot, result: TestResult) -> CheckFinding:
    test = result.test
    zone = zone_of(snapshot, member(snapshot, test.client, test.identity))
    message = (
        f"expected {'; '.join(result.failures)} for "
        f"{shown(test.client)}{who(test.identity)} {shown(test.url or test.host)} at {both(test.at, zone)}"
    )
    line = source_line(test.origin)
    length = 0 if line is None else len(line) - test.origin.column + 1
    diagnostic = Diagnostic(Level.ERROR, test.origin, message, Code.TEST_FAILED, line, length)
    return CheckFinding(diagnostic, tuple(_trace(snapshot, result)))


def _trace(snapshot: Snapshot, result: TestResult) -> Iterator[str]:
    test = result.test
    query = DecisionQuery(test.client, None if test.url else test.host, test.at, test.url, test.identity)
    for step in steps(snapshot, query):
        yield from step_lines(step)
