"""The findings of a check as one JSON object."""

from typing import Any

from tokgate.cli.decision_query import outcome
from tokgate.cli.policy.findings import CheckResult
from tokgate.cli.policy.outlook import Ending
from tokgate.config.diagnostics import Code, as_json
from tokgate.policy.values.text import local, utc
from tokgate.traffic.policy_tests import TestResult


def document(report: CheckResult) -> dict[str, Any]:
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
    }


def _catalogue(report: CheckResult) -> dict[str, Any]:
    """What came from the catalogue inside the package, and the policy's own definitions that go before it."""
    taken = None if report.loaded.policy is None else report.loaded.policy.catalogue
    return {
        "version": None if taken is None else taken.version,
        "services": [] if taken is None else list(taken.services),
        "own": [service.name for service in report.own],
    }


def _result(result: TestResult, trace: tuple[str, ...]) -> dict[str, Any]:
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


def _end(ending: Ending) -> dict[str, Any]:
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
