"""`tokgate timeline`: the next transitions of bans and exemptions, and their networks."""

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final, TypedDict

from whenever import Instant

from tokgate.cli.arguments import add_span_options, common_zone, span_of, whole_number
from tokgate.cli.commands import Exit, Subparsers, add_command, need
from tokgate.cli.output_file import becoming
from tokgate.cli.policy_source import add_policies_option, open_source
from tokgate.cli.terminal import aligned, narrate, print_json, print_lines, show_rows, visible
from tokgate.config.extras import Extra
from tokgate.policy.analysis.now import Now, now_of
from tokgate.policy.analysis.timeline import Transition, TransitionKind, transitions
from tokgate.policy.bans import ALL
from tokgate.policy.decision import Phase
from tokgate.policy.schedule import Span
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.text import both, local, shown, utc

EPILOG = """\
examples:
  tokgate timeline                                  the year to come
  tokgate timeline --from 2023-03-01 --to 2023-10-01
  tokgate timeline --json --limit 1                 the next change, for a program
  tokgate timeline --plot bans.svg                  a chart of all bans, their phases and exemptions

--policies takes a folder or file, or REV:DIR for a folder in a git revision.
Times without offset are wall time in the zone of the policy's networks, or UTC when these live in several.
`--from` is included, `--to` is not. A chart shows all that the policy says unless it is given --from or --to."""
_LIMIT: Final = 200
_MOST: Final = 1_000_000
_HEADINGS: Final = ("local time", "UTC", "ban", "what changes", "for whom")


class TransitionOutput(TypedDict):
    """A change of phase, a window, or an exemption that starts or ends."""

    at: str
    local: str
    zone: str
    kind: TransitionKind
    ban: str
    title: str
    ban_reason: str | None
    services: list[str]
    networks: list[str]
    before: Phase | None
    after: Phase | None
    exemption: str | None
    extends: str | None
    extended_by: list[str]


class HoldsOutput(TypedDict):
    """What holds where the timeline begins, as `status` has it of now: bans in force, and networks that are open."""

    summary: str
    in_force: list[str]
    held: list[str]
    opened: list[str]


Timeline = TypedDict(
    "Timeline", {"from": str, "to": str, "holds": HoldsOutput, "more": bool, "transitions": list[TransitionOutput]}
)
Timeline.__doc__ = "`tokgate timeline --json`. `more`: there are more than --limit allows."


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "timeline", EPILOG)
    add_policies_option(parser, revisions=True)
    add_span_options(parser)
    parser.add_argument(
        "--limit",
        type=whole_number("limit", 1, _MOST),
        default=_LIMIT,
        metavar="N",
        help=f"show at most N (default: {_LIMIT})",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object")
    output.add_argument("--plot", metavar="FILE", help="write a chart as SVG; - for standard output")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.plot is not None:
        need(Extra.REPORT)
    now = Instant.now()
    snapshot = open_source(options.policies, now)
    zone = common_zone(snapshot.policy.networks.values())
    within = span_of(options, zone, now)
    if options.plot is not None:
        whole = options.start is None and options.end is None
        return _plot(options.plot, snapshot, None if whole else within, now)
    found = list(islice(transitions(snapshot, within.start, within.end), options.limit + 1))
    listed, more = found[: options.limit], len(found) > options.limit
    holds = now_of(snapshot, within.start)
    if options.json:
        print_json(_document(within, holds, listed, more), indent=2)
    elif listed:
        rows = [
            (
                f"{local(each.at, each.zone)} {each.zone}",
                utc(each.at),
                each.ban.name,
                effect(each),
                f"{each.ban.what} in {', '.join(each.networks)}",
            )
            for each in listed
        ]
        if sys.stdout.isatty():
            show_rows(_HEADINGS, rows)
        else:
            print_lines(aligned([_HEADINGS, *rows]))
        reasons = {each.ban.name: each.ban.reason for each in listed if each.ban.reason is not None}
        print_lines(visible(f"why {ban}: {' '.join(reason.split())}") for ban, reason in reasons.items())
    else:
        narrate(f"nothing changes from {both(within.start, zone)} to {both(within.end, zone)}")
    if not options.json:
        names = ", ".join(dict.fromkeys(each.ban.name for each in holds.in_force))
        narrate(f"at {both(within.start, zone)} {holds.summary}{names and f': {names}'}")
        for opened in holds.opened:
            narrate(opened.sentence)
    if more:
        narrate(f"tokgate: only the first {options.limit} transitions are shown: see --limit, --from and --to")
    return Exit.DONE


def _plot(file: str, snapshot: Snapshot, within: Span | None, now: Instant) -> Exit:
    from tokgate.cli.policy.gantt import extent, gantt

    chart = gantt(snapshot, within or extent(snapshot, now), now)
    if file == "-":
        sys.stdout.write(chart + "\n")
    else:
        with becoming(Path(file)) as target:
            target.write_text(chart + "\n", encoding="utf-8")
        narrate(f"tokgate: wrote {visible(file)}")
    return Exit.DONE


def effect(transition: Transition) -> str:
    """What a transition changes, in words."""
    after = "nothing" if transition.after is None else str(transition.after)
    match transition.kind:
        case TransitionKind.PHASE:
            before = "" if transition.before is None else f"{transition.before} -> "
            story = f", extended by {', '.join(transition.extended_by)}" if transition.extended_by else ""
            if transition.ban.extends is not None and transition.after == transition.ban.action.value:
                story = f", extends {transition.ban.extends}"
            return f"{before}{after}{story}"
        case TransitionKind.OVERDUE:
            return f"its end, but held: stays {after} until somebody decides"
        case TransitionKind.WINDOW_OPENS:
            return f"window opens: {after}"
        case TransitionKind.WINDOW_CLOSES:
            return f"window closes: no {after} until the next"
        case TransitionKind.EXEMPTION_STARTS:
            return f"exemption {transition.exemption} starts"
        case TransitionKind.EXEMPTION_ENDS:
            return f"exemption {transition.exemption} ends"


def _document(within: Span, holds: Now, found: Sequence[Transition], more: bool) -> Timeline:
    return {
        "from": utc(within.start),
        "to": utc(within.end),
        "holds": {
            "summary": holds.summary,
            "in_force": list(dict.fromkeys(each.ban.name for each in holds.in_force)),
            "held": list(holds.held),
            "opened": [each.sentence for each in holds.opened],
        },
        "more": more,
        "transitions": [
            shown(
                TransitionOutput,
                each,
                local=local(each.at, each.zone),
                ban=each.ban.name,
                title=each.ban.title,
                ban_reason=each.ban.reason,
                services=list(each.ban.services) or [ALL],
                extends=each.ban.extends,
            )
            for each in found
        ],
    }
