"""Findings in the Static Analysis Results Interchange Format 2.1.0, for code scanning.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote

from tokgate.blocklog.records.stamp import installed_version
from tokgate.cli.policy.findings import CheckFinding, CheckResult
from tokgate.config.diagnostics import Code, Diagnostic, Level

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT: Final = "%SRCROOT%"
"""Relative paths are relative to where the command ran: the root of the repository, as code scanning takes it."""


def sarif(report: CheckResult, *, warnings: bool = True) -> dict[str, Any]:
    """The `sarifLog` object, with one run that has a result per finding."""
    found = [finding for finding in report.findings if finding.is_error or warnings]
    codes = list(dict.fromkeys(finding.diagnostic.code for finding in found))
    levels = {finding.diagnostic.code: finding.diagnostic.level for finding in found}
    driver: dict[str, Any] = {"name": "tokgate", "rules": [_rule(code, levels[code]) for code in codes]}
    version = installed_version()
    if version is not None:
        driver["version"] = version
    invocation = {"executionSuccessful": True, "exitCode": int(any(finding.is_error for finding in found))}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [invocation],
        "artifacts": [{"location": _location(str(path))} for path in report.loaded.files],
        "results": [_result(finding, codes) for finding in found],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: Code, level: Level) -> dict[str, Any]:
    words = code.value.replace("-", " ")
    return {
        "id": code.value,
        "name": words.title().replace(" ", ""),
        "shortDescription": {"text": words.capitalize()},
        "defaultConfiguration": {"level": level.value},
    }


def _result(finding: CheckFinding, codes: list[Code]) -> dict[str, Any]:
    diagnostic = finding.diagnostic
    return {
        "ruleId": diagnostic.code.value,
        "ruleIndex": codes.index(diagnostic.code),
        "level": diagnostic.level.value,
        "message": {"text": "\n".join((diagnostic.message, *finding.trace))},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": _location(diagnostic.origin.file),
                    "region": _region(diagnostic),
                }
            }
        ],
    }


def _location(file: str) -> dict[str, str]:
    path = PurePosixPath(file)
    if path.is_absolute():
        return {"uri": f"file://{quote(file)}"}
    return {"uri": quote(str(path)), "uriBaseId": _ROOT}


def _region(diagnostic: Diagnostic) -> dict[str, Any]:
    origin = diagnostic.origin
    region: dict[str, Any] = {"startLine": origin.line, "startColumn": origin.column}
    if diagnostic.length:
        region["endColumn"] = origin.column + diagnostic.length
    if diagnostic.line is not None:
        region["snippet"] = {"text": diagnostic.line}
    return region
