"""`tokgate check`: errors in policy files, their tests, and warnings of what ends soon."""

import argparse
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal, TypedDict

from whenever import Instant

from tokgate.cli.arguments import settle, time_argument
from tokgate.cli.commands import Exit, Subparsers, add_command
from tokgate.cli.configuration import add_confdir_option
from tokgate.cli.decision_query import DecisionQuery, Outcome, outcome, who, zone_of
from tokgate.cli.decision_steps import step_lines, steps
from tokgate.cli.policy.warnings import (
    EndingOutput,
    endings,
    free_addresses,
    held_bans,
    outlook,
    source_line,
    untrusted,
    without_authority,
)
from tokgate.cli.policy_source import add_policies_option
from tokgate.cli.terminal import narrate, print_json, print_lines, visible, wants_color
from tokgate.config.catalogue import own_definitions
from tokgate.config.diagnostics import Code, Diagnostic, DiagnosticOutput, Level, as_json, render
from tokgate.config.format.test_model import TestTransport
from tokgate.config.loader import Loaded, load
from tokgate.gateway.ruleset import current
from tokgate.policy.bans import Action
from tokgate.policy.snapshot import Snapshot, compile_policy
from tokgate.policy.values.text import both, utc
from tokgate.traffic.policy_tests import TestResult, run_tests

EPILOG = """\
examples:
  tokgate check                       ./policies
  tokgate check policy.yaml           one file that is a whole policy
  tokgate check --strict --json       for CI: warnings count as findings
  tokgate check --at 2023-09-01T00:00Z  as of another day
  tokgate check --authority ~/.tokgate/mitmproxy-ca.pem
                                      also which names the block page can't be shown for (certs/README.md)

Services that bans name and no file defines come from the catalogue inside the package; a definition in a file goes
before it. Before the last line stands what was taken, and from which version of the catalogue.

Warns of bans and exemptions that end within 30 days (the longest of `settings.reminders`), and of bans held past
their end. The last line of text is always:
  N files, N errors, N warnings, N tests passed, N failed
Exit code 1: errors or failed tests (with --strict also warnings)."""


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
    parser.add_argument("--json", action="store_true", help="one JSON object, with the decision and steps of each test")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    now = Instant.now() if options.at is None else settle(options.at, "UTC")
    loaded = load(options.policies, now)
    snapshot = None if loaded.policy is None else compile_policy(loaded.policy)
    found, ending, results = [*loaded.diagnostics], list[EndingOutput](), tuple[TestResult, ...]()
    tests = list[TestOutput]()
    if snapshot is not None:
        results, ending = run_tests(snapshot, loaded.tests), endings(snapshot, now)
        tests = [_tested(snapshot, each) for each in results]
        found += (_failure(snapshot, each) for each in results if not each.passed)
        found += outlook(snapshot, ending)
        found += free_addresses(snapshot, now)
        found += held_bans(snapshot.policy, options.policies, now, options.confdir)
        found += without_authority(snapshot, now, options.confdir)
        found += () if options.authority is None else untrusted(snapshot.policy, options.authority)
        found = [each for each in found if not each.silenced_by(loaded.ignored)]
    checked = _checked(loaded, snapshot, found, tests, ending, now)
    if options.json:
        print_json(checked, indent=2)
    else:
        traces = {result.test.origin: test["trace"] for result, test in zip(results, tests, strict=True)}
        for each in found:
            trace = traces[each.origin] if each.code is Code.TEST_FAILED else ()
            print_lines((render(each, color=wants_color(sys.stdout)), *(f"   {line}" for line in trace)))
        print_lines(_conclusion(checked, snapshot))
        if snapshot is None:
            narrate("tokgate: tests are run once there are no errors")
    errors = checked["errors"] + checked["failed"]
    return Exit.FINDINGS if errors or (options.strict and found) else Exit.DONE


def _conclusion(checked: Checked, snapshot: Snapshot | None) -> Iterator[str]:
    catalogue = checked["catalogue"]
    if catalogue["version"] is not None:
        yield f"from the catalogue, version {catalogue['version']}: {', '.join(catalogue['services'])}"
    for service in () if snapshot is None else own_definitions(snapshot.policy):
        yield f"your own definition, in place of the catalogue's: {service.name} ({service.origin})"
    if checked["without_reason"]:
        yield f"no `reason` is given by: {', '.join(checked['without_reason'])}"
    yield checked["summary"]


def _checked(
    loaded: Loaded,
    snapshot: Snapshot | None,
    found: Collection[Diagnostic],
    tests: Collection[TestOutput],
    ending: list[EndingOutput],
    now: Instant,
) -> Checked:
    policy = None if snapshot is None else snapshot.policy
    catalogue = None if policy is None else policy.catalogue
    blocking = () if snapshot is None else [t.ban for t in current(snapshot, now) if t.ban.action is Action.BLOCK]
    warned, passed = sum(each.level is not Level.ERROR for each in found), sum(each["passed"] for each in tests)
    counts = f"{len(loaded.files)} files, {len(loaded.errors)} errors, {warned} warnings"
    return {
        "at": utc(now),
        "version": None if snapshot is None else snapshot.version,
        "summary": f"{counts}, {passed} tests passed, {len(tests) - passed} failed",  # which programs may parse
        "files": [str(path) for path in loaded.files],
        "errors": len(loaded.errors),
        "warnings": warned,
        "passed": passed,
        "failed": len(tests) - passed,
        "diagnostics": [as_json(each) for each in found if each.code is not Code.TEST_FAILED],
        "tests": list(tests),
        "catalogue": {
            "version": None if catalogue is None else catalogue.version,
            "services": [] if catalogue is None else list(catalogue.services),
            "own": [] if policy is None else [service.name for service in own_definitions(policy)],
        },
        "ending": ending,
        "without_reason": list(dict.fromkeys(ban.name for ban in blocking if ban.reason is None)),
    }


def _failure(snapshot: Snapshot, result: TestResult) -> Diagnostic:
    test = result.test
    zone = zone_of(snapshot, snapshot.membership(test.client, test.identity))
    message = (
        f"expected {'; '.join(result.failures)} for "
        f"{visible(test.client)}{who(test.identity)} {visible(test.url or test.host)} at {both(test.at, zone)}"
    )
    line = source_line(test.origin)
    length = 0 if line is None else len(line) - test.origin.column + 1
    return Diagnostic(Level.ERROR, test.origin, message, Code.TEST_FAILED, line, length)


def _tested(snapshot: Snapshot, result: TestResult) -> TestOutput:
    test = result.test
    query = DecisionQuery(test.client, None if test.url else test.host, test.at, test.url, test.identity)
    led = () if result.passed else steps(snapshot, query)
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
        "trace": [line for step in led for line in step_lines(step)],
    }
