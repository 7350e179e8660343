"""`tokgate check`: errors in policy files, their tests, and warnings of what ends soon."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.exits import Exit
from tokgate.cli.policy.findings import CheckResult, examine
from tokgate.cli.render.annotations import annotations
from tokgate.cli.render.check_json import document
from tokgate.cli.terminal import narrate, wants_color
from tokgate.cli.time_arguments import settle, time_argument
from tokgate.config.diagnostics import render

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


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "check", EPILOG)
    parser.add_argument(
        "dir",
        metavar="DIR",
        nargs="?",
        type=Path,
        default=Path("policies"),
        help="folder or file (default: ./policies)",
    )
    parser.add_argument("--at", type=time_argument, metavar="TIME", help="the instant that counts as now (wall: UTC)")
    parser.add_argument(
        "--authority", metavar="FILE", type=Path,
        help="certificates of the block page's authority: warn of names for which devices don't believe it",
    )  # fmt: skip
    parser.add_argument(
        "--confdir", metavar="DIR", type=Path,
        help="folder of the running tokgate, which may hold bans that vanished from the files (default: ~/.tokgate)",
    )  # fmt: skip
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
    report = examine(options.dir, now, options.authority, options.confdir)
    _WRITERS[options.format](report, options.quiet)
    if report.snapshot is None and options.format is not OutputFormat.JSON:
        narrate("tokgate: tests are run once there are no errors")
    errors = any(finding.is_error for finding in report.findings)
    return Exit.FINDINGS if errors or (options.strict and report.findings) else Exit.DONE


def _write_text(report: CheckResult, quiet: bool) -> None:
    sys.stdout.writelines(f"{line}\n" for line in _text(report, quiet, wants_color(sys.stdout)))


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
    yield report.summary


def _write_json(report: CheckResult, _: bool) -> None:
    sys.stdout.write(json.dumps(document(report), indent=2) + "\n")


def _write_github(report: CheckResult, quiet: bool) -> None:
    sys.stdout.writelines(f"{line}\n" for line in annotations(report, warnings=not quiet))


_WRITERS: Final[dict[OutputFormat, Callable[[CheckResult, bool], None]]] = {
    OutputFormat.TEXT: _write_text,
    OutputFormat.JSON: _write_json,
    OutputFormat.GITHUB: _write_github,
}
