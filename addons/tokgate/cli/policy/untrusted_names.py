"""Warnings for names that the block page's authority can't sign certificates for (name constraints)."""

from collections.abc import Iterator
from pathlib import Path

from tokgate.block_page.authority import uncovered
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.policy.outlook import warning
from tokgate.cli.terminal import shown
from tokgate.config.diagnostics import Code, Diagnostic
from tokgate.policy.snapshot import Policy


def untrusted(policy: Policy, authority: Path) -> Iterator[Diagnostic]:
    """A warning for each pattern whose names would show a certificate warning instead of the page."""
    try:
        found = uncovered(policy, authority)
    except (OSError, ValueError) as error:
        raise CommandError(f"{shown(str(authority))} can't be read as certificates: {error}", Exit.USAGE) from error
    for each in found:
        text = (
            f"under the ban `{each.ban.name}` `{each.rule}` of `{each.service}` shows a certificate warning in place "
            "of a page: its names are not among those that the authority may sign (certs/README.md)"
        )
        yield warning(Code.PAGE_UNTRUSTED, text, each.origin, each.rule.partition(":")[2])
