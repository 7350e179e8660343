"""`tokgate check`: errors in policy files, their tests, and warnings of what ends soon."""

import argparse
import sys
from collections.abc import Iterator, Sequence
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
    """What comes from the catalogue inside the package, and the policy's own definitions that go before it."""

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
    checked, findings, own = _examine(options, now)
    match options.format:
        case OutputFormat.JSON:
            print_json(checked, indent=2)
        case OutputFormat.GITHUB:
            print_lines((*map(_command, findings), checked["summary"]))
        case _:
            print_lines(_text(checked, findings, own))
    if checked["version"] is None and options.format is not OutputFormat.JSON:
        narrate("tokgate: tests are run once there are no errors")
    errors = checked["errors"] + checked["failed"]
    return Exit.FINDINGS if errors or (options.strict and findings) else Exit.DONE


def _text(checked: Checked, findings: Sequence[CheckFinding], own: Sequence[Service]) -> Iterator[str]:
    for finding in findings:
        yield render(finding.diagnostic, color=wants_color(sys.stdout))
        yield from (f"   {line}" for line in finding.trace)
    catalogue = checked["catalogue"]
    if catalogue["version"] is not None:
        yield f"from the catalogue, version {catalogue['version']}: {', '.join(catalogue['services'])}"
    for service in own:
        yield f"your own definition, in place of the catalogue's: {service.name} ({service.origin})"
    if checked["without_reason"]:
        yield f"no `reason` is given by: {', '.join(checked['without_reason'])}"
    yield checked["summary"]


def _examine(options: argparse.Namespace, now: Instant) -> tuple[Checked, list[CheckFinding], Sequence[Service]]:
    """Load and compile a policy, run its tests, and look for warnings.

    Besides what is printed as JSON these are the findings, and the services that the files define although the
    catalogue has them.
    """
    loaded = load_patiently(options.policies, now)
    found, results = [CheckFinding(diagnostic) for diagnostic in loaded.diagnostics], tuple[TestResult, ...]()
    ending, own = tuple[Ending, ...](), tuple[Service, ...]()
    catalogue, snapshot, without_reason = None, None, list[str]()
    if loaded.policy is not None:
        catalogue, own = loaded.policy.catalogue, own_definitions(loaded.policy)
        snapshot = compile_patiently(loaded.policy)
        results, ending = run_tests(snapshot, loaded.tests), endings(snapshot, now)
        blocking = (track.ban for track in current(snapshot, now) if track.ban.action is Action.BLOCK)
        without_reason = list(dict.fromkeys(ban.name for ban in blocking if ban.reason is None))
        found += [_failure(snapshot, result) for result in results if not result.passed]
        warnings = (
            outlook(snapshot, ending),
            free_addresses(snapshot, now),
            held_bans(loaded.policy, options.policies, now, options.confdir),
            without_authority(snapshot, now, options.confdir),
            untrusted(loaded.policy, options.authority) if options.authority is not None else (),
        )
        found += [CheckFinding(diagnostic) for each in warnings for diagnostic in each]
        found = [each for each in found if not each.diagnostic.silenced_by(loaded.ignored)]
    traces = {each.diagnostic.origin: each.trace for each in found if each.diagnostic.code is Code.TEST_FAILED}
    warned = sum(each.diagnostic.level is not Level.ERROR for each in found)
    failed = sum(not result.passed for result in results)
    counts = f"{len(loaded.files)} files, {len(loaded.errors)} errors, {warned} warnings"
    checked: Checked = {
        "at": utc(now),
        "version": None if snapshot is None else snapshot.version,
        "summary": f"{counts}, {len(results) - failed} tests passed, {failed} failed",  # which programs may parse
        "files": [str(path) for path in loaded.files],
        "errors": len(loaded.errors),
        "warnings": warned,
        "passed": len(results) - failed,
        "failed": failed,
        "diagnostics": [as_json(each.diagnostic) for each in found if each.diagnostic.code is not Code.TEST_FAILED],
        "tests": [_result(result, traces.get(result.test.origin, ())) for result in results],
        "catalogue": {
            "version": None if catalogue is None else catalogue.version,
            "services": [] if catalogue is None else list(catalogue.services),
            "own": [service.name for service in own],
        },
        "ending": [
            {
                "ban": each.track.ban.name,
                "exemption": each.exemption,
                "networks": list(each.track.networks),
                "ends": utc(each.at),
                "local": local(each.at, each.track.zone),
                "zone": each.track.zone,
                "on_expiry": each.track.ban.on_expiry,
            }
            for each in ending
        ],
        "without_reason": without_reason,
    }
    return checked, found, own


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
    query = DecisionQuery(test.client, None if test.url else test.host, test.at, test.url, test.identity)
    trace = tuple(line for step in steps(snapshot, query) for line in step_lines(step))
    return CheckFinding(diagnostic, trace)


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


def _command(finding: CheckFinding) -> str:
    """A finding as a workflow command."""
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
