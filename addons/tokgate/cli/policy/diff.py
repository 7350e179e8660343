"""`tokgate diff`: the differences between two policies, and their effect on recorded traffic."""

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final, NotRequired, TypedDict

from whenever import Instant

from tokgate.blocklog.paths import whole_log
from tokgate.blocklog.read.reader import Junk, open_log
from tokgate.cli.arguments import add_span_options, common_zone, settle, span_of, time_argument
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command
from tokgate.cli.decision_query import Outcome, outcome
from tokgate.cli.log.source import tell_of
from tokgate.cli.policy.replay import Replay, Traffic, change, read_flows, read_log, traffic_lines, treatment
from tokgate.cli.policy.simulate import QueryReader
from tokgate.cli.policy_source import SOURCE, open_source
from tokgate.cli.terminal import Patience, narrate, print_json, print_lines, visible
from tokgate.policy.analysis.comparison import exemption_changes, verdict_changes
from tokgate.policy.analysis.definitions import changes, redefinitions, weaker_settings
from tokgate.policy.analysis.held_bans import vanished
from tokgate.policy.schedule import Span
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.text import local, shown, utc

EPILOG = """\
examples:
  tokgate diff HEAD:policies policies               what the edits in the work tree change in the year to come
  tokgate diff main:policies policies --from 2023-01-01 --to 2024-01-01
  tokgate diff old/ new/ --log block.ndjson         for the events in the log
  tokgate diff old/ new/ --flows access.log         for last week's traffic, as Squid saw it
  tokgate diff old/ new/ --flows flows.ndjson --at 2023-03-10T08:00+01:00
                                                    for all traffic, as if it came at that time
  tokgate diff HEAD:policies policies --exit-code   for scripts: 1 when anything differs

OLD and NEW are folders or files, or REV:DIR for a folder in a git revision (DIR relative to where you are).
Without --log and --flows the policies are compared by themselves: which service changes its verdict in which network,
from when until when (a client in several networks gets the strictest of them); who becomes or ceases to be exempt; what
each definition says more (+) or less (-). With --log and --flows traffic is decided by both policies as well. Flows
are lines as `tokgate simulate` takes them: NDJSON with `at` unless --at is given, or the logs of Squid, dnsmasq,
Unbound and Zeek, or what conntrack prints. The block log names no allowed traffic, so
it can show what becomes allowed, not what becomes blocked: that takes flows.

The exit code is 0 whether or not anything differs, unless --exit-code is given, and 1 if a line can't be read."""


class PolicySource(TypedDict):
    """Where a policy is from, and its version."""

    source: str
    version: str


VerdictDifference = TypedDict(
    "VerdictDifference",
    {
        "network": str,
        "service": str,
        "zone": str,
        "from": str | None,
        "to": str | None,
        "before": Outcome,
        "after": Outcome,
    },
)
ExemptionDifference = TypedDict(
    "ExemptionDifference",
    {
        "ban": str,
        "client": str,
        "from": str | None,
        "to": str | None,
        "before": str | None,
        "after": str | None,
    },
)


class RedefinitionOutput(TypedDict):
    """What is added to and removed from a definition."""

    kind: str
    name: str
    key: NotRequired[str | None]
    added: list[str]
    removed: list[str]


Difference = TypedDict(
    "Difference",
    {
        "old": PolicySource,
        "new": PolicySource,
        "from": str,
        "to": str,
        "differs": bool,
        "verdicts": list[VerdictDifference],
        "exemptions": list[ExemptionDifference],
        "definitions": list[RedefinitionOutput],
        "held": list[str],
        "weaker_settings": list[str],
        "traffic": Traffic | None,
    },
)
Difference.__doc__ = (
    "`tokgate diff --json`. `from` and `to` of a difference are null where it goes beyond the span. `held` are "
    "bans in force that NEW neither states nor lifts: a running tokgate keeps them. `weaker_settings` are settings "
    "by which NEW lets more pass, with both values."
)


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "diff", EPILOG)
    parser.add_argument("old", metavar="OLD", help=f"the policies as they were: {SOURCE}")
    parser.add_argument("new", metavar="NEW", help=f"the policies as they would be: {SOURCE}")
    add_span_options(parser)
    parser.add_argument("--log", nargs="+", action="extend", default=[], type=Path, metavar="FILE",
                        help="decide the events of block logs again, those rotated away included")  # fmt: skip
    parser.add_argument("--flows", nargs="+", action="extend", default=[], metavar="FILE",
                        help="decide these flows (NDJSON, or a log of another program); - for stdin")  # fmt: skip
    parser.add_argument("--at", type=time_argument, metavar="TIME",
                        help="decide all traffic at this time, not at its own")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--exit-code", action="store_true", help="exit 1 when anything differs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare two policies, replay traffic with both, and print the differences."""
    now = Instant.now().round("second", mode="floor")
    old, new = open_source(options.old, now), open_source(options.new, now)
    zone = common_zone(new.policy.networks.values())
    within = span_of(options, zone, now)
    found = compare(options.old, old, options.new, new, within)
    alike = not found["differs"]
    replay = _replay(options, old, new) if options.log or options.flows else None
    if replay is not None:
        traffic = found["traffic"] = replay.document()
        found["differs"] = not alike or traffic["changed"] > 0
        if options.flows and not traffic["events"]:  # of which no figure would say anything
            tell_of(replay.junk, traffic["unreadable"])
            raise CommandError("no line of the flows could be read as one", Exit.FINDINGS)
    if options.json:
        print_json(found)
    else:
        print_lines(_text(found, zone))
    if old.version == new.version:
        narrate("tokgate: both say the same: one version")
    elif alike:
        narrate("tokgate: written otherwise, but nothing that anybody gets or reads differs")
    if replay is not None:
        tell_of(replay.junk, traffic["unreadable"])
        if others := traffic["other_version"]:
            narrate(f"tokgate: {others} events were recorded under another policy than OLD")
        if traffic["unreadable"]:
            narrate(f"tokgate: the figures are without {traffic['unreadable']} lines that could not be read")
            return Exit.FINDINGS
    return Exit.FINDINGS if options.exit_code and found["differs"] else Exit.DONE


def compare(source: str, old: Snapshot, becomes: str, new: Snapshot, within: Span) -> Difference:
    """All differences of two policies within a span of time; `source` and `becomes` are where they are from."""
    redefined = tuple(redefinitions(old.policy, new.policy))
    networks = {**old.policy.networks, **new.policy.networks}
    verdicts: list[VerdictDifference] = [
        shown(
            VerdictDifference,
            each,
            zone=networks[each.network].timezone,
            before=outcome(each.before),
            after=outcome(each.after),
            **_beyond(each.span, within),
        )
        for each in verdict_changes(old, new, within)
    ]
    exemptions: list[ExemptionDifference] = [
        shown(ExemptionDifference, each, client=str(each.client), **_beyond(each.span, within))
        for each in exemption_changes(old, new, within)
    ]
    return {
        "old": {"source": source, "version": old.version},
        "new": {"source": becomes, "version": new.version},
        "from": utc(within.start),
        "to": utc(within.end),
        "differs": bool(verdicts or exemptions or redefined),
        "verdicts": verdicts,
        "exemptions": exemptions,
        "definitions": [shown(RedefinitionOutput, each) for each in redefined],
        "held": list(vanished(old, new.policy, within.start)),
        "weaker_settings": list(weaker_settings(changes(old.policy, new.policy))),
        "traffic": None,
    }


def _beyond(span: Span, within: Span) -> dict[str, str | None]:
    return {
        "from": None if span.start <= within.start else utc(span.start),
        "to": None if span.end >= within.end else utc(span.end),
    }


_SPANS: Final = 3
"""Maximum spans of a change that are shown: weekly windows make hundreds."""
_MEANINGS: Final = 10


def _text(found: Difference, zone: str) -> Iterator[str]:
    """The lines of the output: verdicts, exemptions, definitions, and the traffic if there is any."""
    yield f"old: {visible(found['old']['source'])} ({found['old']['version']})"
    yield f"new: {visible(found['new']['source'])} ({found['new']['version']})"
    yield f"from {found['from']} to {found['to']}"
    yield from _section("Verdicts", list(_groups(found["verdicts"])))
    yield from _section("Exemptions", [_exemption(each, zone) for each in found["exemptions"]])
    yield from _section("Definitions", [_definition(each) for each in found["definitions"]])
    if found["weaker_settings"]:
        yield from _section("Settings by which NEW lets more pass", list(map(visible, found["weaker_settings"])))
    if found["held"]:
        title = "Held by a running tokgate, since NEW does not name them under `lifted`"
        yield from _section(title, [", ".join(found["held"])])
    if found["traffic"] is not None:
        yield from traffic_lines(found["traffic"])


def _section(title: str, lines: list[str]) -> Iterator[str]:
    yield ""
    yield title if lines else f"{title}: no difference"
    yield from (f"  {line}" for line in lines)


def _groups(verdicts: list[VerdictDifference]) -> Iterator[str]:
    """A line for all that changes in the same way at the same times: services, and the networks with these alike."""
    courses: dict[tuple[str, str, str, str], list[_Times]] = {}
    for each in verdicts:
        words = change(treatment(each["before"], each["after"]), treatment(each["after"], each["before"]))
        courses.setdefault((each["network"], each["service"], each["zone"], words), []).append(
            (each["from"], each["to"])
        )
    alike: dict[tuple[tuple[_Times, ...], str, str], dict[str, list[str]]] = {}
    for (network, service, zone, words), times in courses.items():
        alike.setdefault((tuple(times), zone, words), {}).setdefault(network, []).append(service)
    for (spans, zone, words), theirs in sorted(alike.items(), key=lambda item: item[0][0][0][0] or ""):
        told = [_span(each, zone) for each in spans[:_SPANS]]
        if len(spans) > _SPANS:
            told.append(f"and {len(spans) - _SPANS} times more, the last {_span(spans[-1], zone)}")
        for services in dict.fromkeys(map(tuple, theirs.values())):
            networks = [network for network, its in theirs.items() if tuple(its) == services]
            where = f"{', '.join(services)} in {', '.join(networks)}"
            yield f"{words}: {where}: {'; '.join(told)}{_named(zone)}"


type _Times = tuple[str | None, str | None]
"""From and to, in UTC; None where it goes beyond the chosen span."""


def _span(times: _Times, zone: str) -> str:
    """A span in words, in local time."""
    start, end = (each and (each if zone == "UTC" else local(Instant(each), zone)) for each in times)
    if end is None:
        return "all the time" if start is None else f"from {start} on"
    return f"until {end}" if start is None else f"from {start} to {end}"


def _named(zone: str) -> str:
    return "" if zone == "UTC" else f" {zone}"


def _exemption(each: ExemptionDifference, zone: str) -> str:
    becomes = "no longer exempt" if each["after"] is None else "exempt"
    when = _span((each["from"], each["to"]), zone) + _named(zone)
    return f"{each['client']} {becomes} from {each['ban']} ({each['after'] or each['before']}): {when}"


def _definition(found: RedefinitionOutput) -> str:
    """A definition's name, and what was added and removed; values of several words are in quotes."""
    said = [f"+{_value(each)}" for each in found["added"]] + [f"-{_value(each)}" for each in found["removed"]]
    key = found.get("key")
    name = f"{found['kind']}.{found['name']}" + ("" if key is None else f".{key}")
    more = f" and {len(said) - _MEANINGS} more" if len(said) > _MEANINGS else ""
    return f"{name}: {' '.join(said[:_MEANINGS])}{more}"


def _value(value: str) -> str:
    return f'"{visible(value)}"' if " " in value else visible(value)


def _replay(options: argparse.Namespace, old: Snapshot, new: Snapshot) -> Replay:
    """Decide all traffic with both policies, with progress on a terminal."""
    at = None if options.at is None else settle(options.at, common_zone(new.policy.networks.values()))
    replay = Replay(old, new, at)
    logs = whole_log(options.log)
    for path in logs:
        if not path.exists():
            raise CommandError(f"there is no log at {visible(str(path))}")
    with Patience("replaying", size=True) as show:
        reader = QueryReader(new, at, live=False)
        done = 0
        for flow, size in chain(read_log(logs, open_log), read_flows(options.flows, reader)):
            done += size
            show(done, None)
            if isinstance(flow, Junk):
                replay.pass_over(flow)
            elif flow is not None:
                replay.add(flow)
    return replay
