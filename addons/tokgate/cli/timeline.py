"""`tokgate timeline`: what changes next, when, and for whom."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.cli.commands import COMMANDS
from tokgate.cli.exits import Exit
from tokgate.cli.instants import common_zone, settle, time_argument
from tokgate.cli.revisions import add_source_option, open_source
from tokgate.cli.rows import show_rows
from tokgate.cli.terminal import narrate, shown
from tokgate.policy.instants import both, local, utc
from tokgate.policy.schedule import Span
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.timeline import Kind, Transition, transitions

EPILOG = """\
examples:
  tokgate timeline                                  the year to come
  tokgate timeline --from 2023-03-01 --to 2023-10-01
  tokgate timeline --json --limit 1                 the next change, for a program
  tokgate timeline --ics > bans.ics                 for a web server: calendars subscribe to it
  tokgate timeline --plot bans.svg                  a chart of all bans, their phases and exemptions

--policies takes a folder or file, or REV:DIR for a folder in a git revision.
Times without offset are wall time in the zone of the policy's networks, or UTC when these live in several.
`--from` is included, `--to` is not. A chart shows all that the policy says unless it is given --from or --to. Events of
a calendar keep their identity when a time is changed in the policy, so that subscribers see them move."""

_LIMIT: Final = 200
_LIMIT_ICS: Final = 10_000
_HEADINGS: Final = ("local time", "UTC", "ban", "what changes", "for whom")
_WHOLE: Final = (True, True, False, False, False)
"""Which columns are never folded."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `timeline`."""
    summary = COMMANDS["timeline"]
    parser = subparsers.add_parser("timeline", help=summary, description=summary, epilog=EPILOG)
    add_source_option(parser)
    parser.add_argument("--from", dest="start", type=time_argument, metavar="TIME", help="default: now")
    parser.add_argument("--to", dest="end", type=time_argument, metavar="TIME", help="default: a year after --from")
    parser.add_argument("--limit", type=_limit, metavar="N", help="show at most N (default: 200; calendar: 10000)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object")
    output.add_argument("--ics", action="store_true", help="an iCalendar feed (RFC 5545)")
    output.add_argument("--plot", metavar="FILE", help="write a chart as SVG; - for standard output")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Show the transitions of a stretch of time."""
    now = Instant.now()
    snapshot = open_source(options.policies, now)
    zone = common_zone(snapshot.policy.networks.values())
    start = now if options.start is None else settle(options.start, zone)
    end = start.to_tz(zone).add(years=1).to_instant() if options.end is None else settle(options.end, zone)
    if end <= start:
        options.usage_error(f"--to ({utc(end)}) is not after --from ({utc(start)})")
    if options.plot is not None:
        whole = options.start is None and options.end is None
        return _plot(options.plot, snapshot, None if whole else Span(start, end), now)
    limit = options.limit or (_LIMIT_ICS if options.ics else _LIMIT)
    found = list(islice(transitions(snapshot, start, end), limit + 1))
    shown_ones, more = found[:limit], len(found) > limit
    if options.ics:
        from tokgate.cli.ics import calendar

        sys.stdout.write(calendar(snapshot, ((each, effect(each)) for each in shown_ones), now))
    elif options.json:
        sys.stdout.write(json.dumps(_document(start, end, shown_ones, more), indent=2) + "\n")
    elif shown_ones:
        _show([_row(transition) for transition in shown_ones])
    else:
        narrate(f"nothing changes from {both(start, zone)} to {both(end, zone)}")
    if more:
        narrate(f"tokgate: only the first {limit} transitions are shown: see --limit, --from and --to")
    return Exit.DONE


def _plot(file: str, snapshot: Snapshot, within: Span | None, now: Instant) -> Exit:
    """Write the chart."""
    from tokgate.cli.gantt import extent, gantt

    chart = gantt(snapshot, within or extent(snapshot, now), now)
    if file == "-":
        sys.stdout.write(chart + "\n")
    else:
        Path(file).write_text(chart + "\n", encoding="utf-8")
        narrate(f"tokgate: wrote {shown(file)}")
    return Exit.DONE


def _show(rows: Sequence[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        _table(rows)
    else:
        sys.stdout.writelines(f"{line}\n" for line in _aligned(rows))


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no limit: 1 to 1000000")
    return int(text)


def effect(transition: Transition) -> str:
    """What a transition changes, in words."""
    after = "nothing" if transition.after is None else str(transition.after)
    match transition.kind:
        case Kind.PHASE:
            before = "" if transition.before is None else f"{transition.before} -> "
            return f"{before}{after}"
        case Kind.OVERDUE:
            return f"its end, but held: stays {after} until somebody decides"
        case Kind.WINDOW_OPENS:
            return f"window opens: {after}"
        case Kind.WINDOW_CLOSES:
            return f"window closes: no {after} until the next"
        case Kind.EXEMPTION_STARTS:
            return f"exemption {transition.exemption} starts"
        case Kind.EXEMPTION_ENDS:
            return f"exemption {transition.exemption} ends"


def _row(transition: Transition) -> tuple[str, ...]:
    return (
        f"{local(transition.at, transition.zone)} {transition.zone}",
        utc(transition.at),
        transition.ban.name,
        effect(transition),
        f"{', '.join(transition.ban.services)} in {', '.join(transition.networks)}",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns by spaces, for pipes and files: every row is one line."""
    lines = [_HEADINGS, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _table(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console

    cells = [[shown(cell) for cell in row] for row in rows]
    show_rows(Console(), _HEADINGS, cells, _WHOLE, overflow="ellipsis")


def _document(start: Instant, end: Instant, found: Sequence[Transition], more: bool) -> dict[str, object]:
    return {
        "from": utc(start),
        "to": utc(end),
        "more": more,
        "transitions": [
            {
                "at": utc(transition.at),
                "local": local(transition.at, transition.zone),
                "zone": transition.zone,
                "kind": transition.kind,
                "ban": transition.ban.name,
                "title": transition.ban.title,
                "services": list(transition.ban.services),
                "networks": list(transition.networks),
                "before": transition.before,
                "after": transition.after,
                "exemption": transition.exemption,
            }
            for transition in found
        ],
    }
