"""`tokgate explain`: the decision for one query, and every step that led to it."""

import argparse
import sys
from collections.abc import Iterator

from whenever import Instant

from tokgate.cli.exits import Exit
from tokgate.cli.instants import both, settle, time_argument
from tokgate.cli.policies import add_policies_option, open_snapshot
from tokgate.cli.queries import Query, answer, as_json, judge, zone_of
from tokgate.cli.steps import step_lines, steps
from tokgate.cli.terminal import narrate, shown, wants_color
from tokgate.policy.decision import Decision, Verdict
from tokgate.policy.snapshot import Snapshot

EPILOG = """\
examples:
  tokgate explain --client 192.0.2.7 --host www.example.org
  tokgate explain --client 192.0.2.7 --host www.example.org --at 2023-03-10T00:00+01:00
  tokgate explain --client 192.0.2.7 --host www.example.org --at 2023-03-10T08:00 --json
  tokgate explain --client 192.0.2.7 --url 'https://play.google.com/store/apps/details?id=org.example.app'

A time without offset is wall time in the zone of the client's (narrowest) network. A URL is decided together with the
host, as a decrypted request would be: the strictest wins. The exit code is 0 whatever the verdict is."""

_TINTS = {Verdict.ALLOW: "32", Verdict.MONITOR: "36", Verdict.WARN: "33", Verdict.BLOCK: "31"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `explain`."""
    summary = "what happens to a client that asks for a name, and why"
    parser = subparsers.add_parser("explain", help=summary, description=summary, epilog=EPILOG)
    add_policies_option(parser)
    parser.add_argument("--client", required=True, metavar="IP", help="address of the client")
    parser.add_argument("--host", metavar="NAME", help="name or address asked for, as seen in a ClientHello")
    parser.add_argument("--url", metavar="URL", help="absolute URL, as seen in a decrypted request")
    parser.add_argument("--at", type=time_argument, metavar="TIME", help="instant, local time or `now` (default: now)")
    parser.add_argument("--json", action="store_true", help="the decision as one JSON object")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Explain one query."""
    if options.host is None and options.url is None:
        options.usage_error("one of the arguments --host --url is required")
    now = Instant.now()
    snapshot = open_snapshot(options.policies, now)
    zone = zone_of(snapshot, snapshot.membership(options.client))
    moment = now if options.at is None else options.at
    at = settle(moment, zone)
    if not isinstance(moment, Instant):
        narrate(f"--at {moment.format_iso()} is read in {zone}: {both(at, zone)}")
    query = Query(options.client, options.host, at, options.url)
    decision = judge(snapshot, query).decision
    if options.json:
        sys.stdout.write(as_json(answer(query, decision)) + "\n")
    else:
        color = wants_color(sys.stdout)
        sys.stdout.writelines(f"{line}\n" for line in _text(snapshot, query, decision, zone, color))
    return Exit.DONE


def _text(snapshot: Snapshot, query: Query, decision: Decision, zone: str, color: bool) -> Iterator[str]:
    verdict = f"\x1b[1;{_TINTS[decision.verdict]}m{decision.verdict}\x1b[0m" if color else str(decision.verdict)
    asked = " ".join(shown(part) for part in (query.client, query.host, query.url) if part is not None)
    yield f"{verdict}: {asked} ({decision.reason})"
    yield f"at {both(query.at, zone)}"
    yield from _ban_lines(snapshot, decision)
    for step in steps(snapshot, query):
        yield ""
        yield from step_lines(step)
    yield ""
    change = decision.next_change
    yield f"Next change: {'none' if change is None else both(change, zone)}"


def _ban_lines(snapshot: Snapshot, decision: Decision) -> Iterator[str]:
    if decision.ban is None:
        return
    ban = snapshot.bans[decision.ban]
    yield f"ban {ban.name}: " + "; ".join(part for part in (ban.title, ban.authority, ban.basis) if part)
    if decision.response is not None:
        yield f"response: {decision.response}"
