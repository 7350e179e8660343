"""`tokgate check`: errors in policy files, their tests, and warnings of what ends soon."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypedDict

from whenever import Instant

from tokgate.cli.arguments import settle, time_argument
from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.configuration import add_confdir_option
from tokgate.cli.decision_query import DecisionQuery, Outcome, member, outcome, who, zone_of
from tokgate.cli.decision_steps import step_lines, steps
from tokgate.cli.exits import Exit
from tokgate.cli.policy.warnings import (
    Ending,
    endings,
    free_addresses,
    held_bans,
    outlook,
    source_line,
    untrusted,
    without_authority,
)
from tokgate.cli.policy_source import add_policies_option, compile_patiently, load_patiently
from tokgate.cli.terminal import narrate, print_json, print_lines, visible, wants_color
from tokgate.config.catalogue import own_definitions
from tokgate.config.diagnostics import Code, Diagnostic, DiagnosticOutput, Level, as_json, render
from tokgate.config.format.test_model import TestTransport
from tokgate.config.loader import Loaded
from tokgate.gateway.ruleset import current
from tokgate.policy.bans import Action, OnExpiry
from tokgate.policy.services import Service
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.text import both, local, readable, utc
from tokgate.traffic.policy_tests import TestResult, run_tests

EPILOG = """\
examples:
  tokgate check                       ./policies
  tokgate check policy.yaml           one file that is a whole policy
  tokgate check --strict --json       for CI: warnings count as findings
  tokgate check --format github       annotations on a pull request
  tokgate check --at 2023-09-01T00:00Z  as of another day
  tokgate check --authority ~/.tokgate/mitmproxy-ca.pem
                                      also which names the block page can't be shown for (certs/README.md)

Services that bans name and no file defines come from the catalogue inside the package; a definition in a file goes
before it. Before the last line stands what was taken, and from which version of the catalogue.

Warns of bans and exemptions that end within 30 days (the longest of `settings.reminders`), of bans held past their
end, and of bans that another makes useless. The last line of text is always:
  N files, N errors, N warnings, N tests passed, N failed
Exit code 1: errors or failed tests (with --strict also warnings)."""


class OutputFormat(StrEnum):
    """The formats in which `check` prints its findings."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


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
    def without_reason(self) -> list[str]:
        """The bans that block, are not over, and say nowhere why."""
        tracks = () if self.snapshot is None else current(self.snapshot, self.now)
        blocking = (track.ban for track in tracks if track.ban.action is Action.BLOCK)
        return list(dict.fromkeys(ban.name for ban in blocking if ban.reason is None))

    @property
    def summary(self) -> str:
        """The last line of output. Its format is fixed, so that programs may parse it."""
        return (
            f"{len(self.loaded.files)} files, {len(self.loaded.errors)} errors, {self.warnings} warnings, "
            f"{len(self.results) - self.failed} tests passed, {self.failed} failed"
        )


class TestOutput(Outcome):
    """A test of the policy, what was decided, and for a failed one the steps that led to it.

    `sni` and `ech` are null unless the test says `none` or `outer`; `status` is the HTTP status that a client gets.
    `expected` has what the test expects besides the verdict.
    """

    file: str
    line: int
    passed: bool
    expect: str
    client: str
    host: str | None
    url: str | None
    transport: TestTransport
    sni: Literal["none"] | None
    ech: Literal["outer"] | None
    at: str
    status: int | None
    expected: dict[str, str | int]
    trace: list[str]


class CatalogueOutput(TypedDict):
    """What comes from the catalogue inside the package, and the definitions that go before it."""

    version: str | None
    services: list[str]
    own: list[str]


class EndingOutput(TypedDict):
    """A ban, or an exemption from it, that ends soon."""

    ban: str
    exemption: str | None
    networks: list[str]
    ends: str
    local: str
    zone: str
    on_expiry: OnExpiry


class Checked(TypedDict):
    """`tokgate check --json`. `without_reason` are bans that block, are not over, and give no reason."""

    at: str
    version: str | None
    summary: str
    files: list[str]
    errors: int
    warnings: int
    passed: int
    failed: int
    diagnostics: list[DiagnosticOutput]
    tests: list[TestOutput]
    catalogue: CatalogueOutput
    ending: list[EndingOutput]
    without_reason: list[str]


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "check", EPILOG)
    add_policies_option(parser)
    parser.add_argument("--at", type=time_argument, metavar="TIME", help="the instant that counts as now (wall: UTC)")
    parser.add_argument(
        "--authority", metavar="FILE", type=Path,
        help="certificates of the block page's authority: warn of names for which devices don't believe it",
    )  # fmt: skip
    add_confdir_option(parser, "folder of the running tokgate, which may hold bans that vanished from the files")
    parser.add_argument("--strict", action="store_true", help="exit 1 for warnings, too")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no warnings; they are still counted")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--format", type=OutputFormat, choices=list(OutputFormat), default=OutputFormat.TEXT, help="default: text"
    )
    output.add_argument(
        "--json", dest="format", action="store_const", const=OutputFormat.JSON, help="the same as --format json"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check a folder or a file, and print the findings."""
    now = Instant.now() if options.at is None else settle(options.at, "UTC")
    report = examine(options.policies, now, options.authority, options.confdir)
    match options.format:
        case OutputFormat.JSON:
            print_json(document(report), indent=2)
        case OutputFormat.GITHUB:
            print_lines(annotations(report, warnings=not options.quiet))
        case _:
            print_lines(_text(report, options.quiet, wants_color(sys.stdout)))
    if report.snapshot is None and options.format is not OutputFormat.JSON:
        narrate("tokgate: tests are run once there are no errors")
    errors = any(finding.is_error for finding in report.findings)
    return Exit.FINDINGS if errors or (options.strict and report.findings) else Exit.DONE


def _text(report: CheckResult, quiet: bool, color: bool) -> Iterator[str]:
    for finding in report.findings:
        if finding.is_error or not quiet:
            yield render(finding.diagnostic, color=color)
            yield from (f"   {line}" for line in finding.trace)
    catalogue = None if report.loaded.policy is None else report.loaded.policy.catalogue
    if catalogue is not None:
        yield f"from the catalogue, version {catalogue.version}: {', '.join(catalogue.services)}"
    for service in report.own:
        yield f"your own definition, in place of the catalogue's: {service.name} ({service.origin})"
    if report.without_reason:
        yield f"no `reason` is given by: {', '.join(report.without_reason)}"
    yield report.summary


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
    found += [CheckFinding(diagnostic) for diagnostic in without_authority(snapshot, now, confdir)]
    if authority is not None:
        found += [CheckFinding(diagnostic) for diagnostic in untrusted(loaded.policy, authority)]
    told = tuple(each for each in found if not each.diagnostic.silenced_by(loaded.ignored))
    return CheckResult(loaded, snapshot, results, ending, told, now, own_definitions(loaded.policy))


def _failure(snapshot: Snapshot, result: TestResult) -> CheckFinding:
    test = result.test
    zone = zone_of(snapshot, member(snapshot, test.client, test.identity))
    message = (
        f"expected {'; '.join(result.failures)} for "
        f"{visible(test.client)}{who(test.identity)} {visible(test.url or test.host)} at {both(test.at, zone)}"
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


def document(report: CheckResult) -> Checked:
    """The object; failed tests are in `tests`, with the steps of their decision."""
    traces = {
        finding.diagnostic.origin: finding.trace
        for finding in report.findings
        if finding.diagnostic.code is Code.TEST_FAILED
    }
    others = [finding for finding in report.findings if finding.diagnostic.code is not Code.TEST_FAILED]
    return {
        "at": utc(report.now),
        "version": None if report.snapshot is None else report.snapshot.version,
        "summary": report.summary,
        "files": [str(path) for path in report.loaded.files],
        "errors": len(report.loaded.errors),
        "warnings": report.warnings,
        "passed": len(report.results) - report.failed,
        "failed": report.failed,
        "diagnostics": [as_json(finding.diagnostic) for finding in others],
        "tests": [_result(result, traces.get(result.test.origin, ())) for result in report.results],
        "catalogue": _catalogue(report),
        "ending": [_end(ending) for ending in report.endings],
        "without_reason": report.without_reason,
    }


def _catalogue(report: CheckResult) -> CatalogueOutput:
    """What came from the catalogue inside the package, and the policy's own definitions that go before it."""
    taken = None if report.loaded.policy is None else report.loaded.policy.catalogue
    return {
        "version": None if taken is None else taken.version,
        "services": [] if taken is None else list(taken.services),
        "own": [service.name for service in report.own],
    }


def _result(result: TestResult, trace: tuple[str, ...]) -> TestOutput:
    test = result.test
    return {
        "file": test.origin.file,
        "line": test.origin.line,
        "passed": result.passed,
        "expect": test.expect,
        "client": test.client,
        "host": test.host,
        "url": test.url,
        "transport": test.transport,
        "sni": "none" if test.nameless else None,
        "ech": "outer" if test.ech_outer else None,
        "at": utc(test.at),
        "status": result.status,
        "expected": dict(test.expected),
        **outcome(result.decision),
        "trace": list(trace),
    }


def _end(ending: Ending) -> EndingOutput:
    track = ending.track
    return {
        "ban": track.ban.name,
        "exemption": ending.exemption,
        "networks": list(track.networks),
        "ends": utc(ending.at),
        "local": local(ending.at, track.zone),
        "zone": track.zone,
        "on_expiry": track.ban.on_expiry,
    }


def annotations(report: CheckResult, *, warnings: bool = True) -> Iterator[str]:
    """A workflow command for each finding, then the summary."""
    for finding in report.findings:
        if finding.is_error or warnings:
            yield _command(finding)
    yield report.summary


def _command(finding: CheckFinding) -> str:
    diagnostic = finding.diagnostic
    message = "\n".join(map(readable, (diagnostic.message, *finding.trace)))
    properties = ",".join(f"{key}={_property(value)}" for key, value in _place(diagnostic))
    return f"::{diagnostic.level} {properties}::{_data(message)}"


def _place(diagnostic: Diagnostic) -> Iterator[tuple[str, str]]:
    origin = diagnostic.origin
    yield "file", origin.file
    yield "line", str(origin.line)
    yield "col", str(origin.column)
    if diagnostic.length > 1:
        yield "endColumn", str(origin.column + diagnostic.length - 1)
    yield "title", f"tokgate {diagnostic.code}"


def _data(text: str) -> str:
    """Percent-encode line breaks, which would end the workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
