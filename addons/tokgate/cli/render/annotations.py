"""Findings as workflow commands of GitHub Actions, which show them beside the lines of a pull request.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from collections.abc import Iterator

from tokgate.cli.policy.findings import CheckFinding, CheckResult
from tokgate.config.diagnostics import Diagnostic
from tokgate.policy.values.text import readable


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
