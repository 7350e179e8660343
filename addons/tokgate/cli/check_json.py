"""The findings of a check as one JSON object."""

from typing import Any

from tokgate.cli.findings import Report
from tokgate.cli.outlook import Ending
from tokgate.cli.queries import outcome
from tokgate.config.diagnostics import Code, as_json
from tokgate.config.policy_tests import TestResult
from tokgate.policy.instants import local, utc


def document(report: Report) -> dict[str, Any]:
    """Everything; failed tests stand under `tests`, with the steps that led to their decision."""
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
        "ending": [_end(ending) for ending in report.endings],
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
        "at": utc(test.at),
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
