"""`tokgate override`: create, list and end time-limited exemptions from bans, and answer who asks for one.

An override is a YAML file, which is tried with the whole policy before it is written.
"""

import argparse
import sys
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Final, TypedDict

from whenever import Instant

from tokgate.blocklog.paths import requests_path_for
from tokgate.blocklog.records.record import timestamp
from tokgate.blocklog.records.requests import ExceptionRequest, RequestState
from tokgate.cli.arguments import argument_of, common_zone, identifier
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command, add_subcommand
from tokgate.cli.configuration import default_log
from tokgate.cli.policy.override_file import Wanted, Whom, end_override, make_override, policies_locked, whom_of
from tokgate.cli.policy_source import add_policies_option, open_snapshot
from tokgate.cli.terminal import aligned, narrate, print_json, print_lines, visible, you
from tokgate.config.format import networks, times, values
from tokgate.policy.analysis.terms import Override, overrides
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.text import local, readable, utc
from tokgate.traffic.exception_requests import RequestFolder

_EPILOG = """\
examples:
  tokgate override add --ban offices-2027 --client 10.32.9.7 --for 2h --reason "Press conference"
  tokgate override add --all-bans --for 2h --reason "Decision of the minister"
  tokgate override list                             those in force and to come
  tokgate override end offices-2027-20270301T093000Z
  tokgate override requests                         what people asked for on the page

An override is a YAML file in the folder overrides/ of the policies. A running tokgate sees it at once, records that it
starts and ends, and by whom; it ends by itself."""
_ADD_EPILOG = """\
examples:
  tokgate override add --ban offices-2027 --client 10.32.9.7 --for 2h --reason "Press conference"
  tokgate override add --ban offices-2027 --user alice --for 1d --reason "Investigation" --ticket CHG-1041
  tokgate override add --ban offices-2027 --network press --until 2027-03-01T18:00 --reason "Election" --ticket CHG-1042
  tokgate override add --all-bans --network press --for 2h --reason "Decision of the minister"

--all-bans is for all clients of every ban that is not over and begins before the override ends, or for those of one
network: one file, with an exemption from each ban, and one name by which `end` ends them all. A ban that is added later
holds. --for takes 30m, 2h, 1h30m, 1d (24 hours) or ISO 8601 (PT2H). --until without offset is wall time in the
network's zone. The name of the override is printed. Exit code 1: the policy does not allow it, and nothing was written;
or with --all-bans some bans forbid overrides, and hold."""
_LIST_EPILOG = """\
examples:
  tokgate override list                             those in force and to come
  tokgate override list --all                       also those that are over
  tokgate override list --json                      one JSON object"""
_END_EPILOG = """\
examples:
  tokgate override end offices-2027-20270301T093000Z
  tokgate override end all-bans-20270301T093000Z    all exemptions of its file

The file stays, with the time and `ended_by`: it shows what was."""
_REQUESTS_EPILOG: Final = """\
examples:
  tokgate override requests                         those that wait for an answer
  tokgate override requests --all --json            also those that were answered, as one JSON object

Where the policy has `settings: {overrides: {requests: true}}`, people ask on the page that refuses them."""
_APPROVE_EPILOG: Final = """\
examples:
  tokgate override approve 01870e7a-5c00-7a3b-9c5d-0d6f2b7c1e42
  tokgate override approve 01870e7a-5c00-7a3b-9c5d-0d6f2b7c1e42 --for 2h --ticket CHG-1042

Makes an override as `add` does: for the user who asked, or the client where nobody signed in, for as long as was asked
unless --for or --until says otherwise, at most `settings.overrides.longest`. The override's name is printed."""
_DECLINE_EPILOG: Final = """\
examples:
  tokgate override decline 01870e7a-5c00-7a3b-9c5d-0d6f2b7c1e42 --reason "Use the library's computer"

The page shows the reason to who asked, for a day. It stands in the log as well."""
_REQUEST_HEADINGS: Final = ("id", "state", "asked", "ban", "who", "for", "why", "answered by")
_cidr = argument_of(networks.cidr)
_line = argument_of(values.one_line)
_interface = argument_of(networks.interface)
_until_argument = argument_of(times.until)
_lasting = argument_of(times.lasting)
_HEADINGS: Final = ("name", "state", "ban", "for whom", "until", "by", "reason")
_NAMED: Final = 3
"""Maximum clients in a row of the table."""


class OverrideState(StrEnum):
    """The states of an override in time."""

    ACTIVE = "active"
    UPCOMING = "upcoming"
    ENDED = "ended"


class OverrideOutput(Whom):
    """An override."""

    name: str
    state: OverrideState
    ban: str
    starts: str | None
    until: str
    reason: str
    ticket: str | None
    by: str | None
    ended_by: str | None
    file: str | None


class OverrideList(TypedDict):
    """`tokgate override list --json`."""

    at: str
    overrides: list[OverrideOutput]


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "override", _EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="override_command", required=True)
    adding = add_subcommand(commands, "add", "make an override", _ADD_EPILOG)
    what = adding.add_mutually_exclusive_group(required=True)
    what.add_argument("--ban", metavar="BAN", help="the ban to make an exception from")
    what.add_argument("--all-bans", action="store_true", help="every ban")
    whom = adding.add_mutually_exclusive_group()
    whom.add_argument("--network", metavar="NETWORK", help="for all clients of this network of the ban")
    for option, read, metavar, said in (
        ("--client", _cidr, "IP|CIDR", "for these clients; each may be given several times"),
        ("--user", _line, "NAME", "for this user of the proxy; repeatable"),
        ("--group", _line, "NAME", "for this group of users; repeatable"),
        ("--device", _line, "MAC|NAME", "for this device of an inventory"),
        ("--interface", _interface, "NAME", "for who comes by this interface"),
    ):
        key = f"{option.removeprefix('--')}s"
        whom.add_argument(option, action="append", type=read, metavar=metavar, help=said, dest=key, default=[])
    long = adding.add_mutually_exclusive_group(required=True)
    long.add_argument("--for", dest="lasting", type=_lasting, metavar="DURATION", help="how long: 30m, 2h, 1d, PT2H")
    long.add_argument("--until", type=_until_argument, metavar="TIME", help="first instant at which it no longer holds")
    adding.add_argument("--reason", required=True, type=_line, help="why; shown to those who review the log")
    adding.add_argument("--ticket", type=_line, help="where it was asked for")
    adding.add_argument("--by", type=_line, metavar="WHO", help="who makes it (default: you)")
    adding.add_argument("--name", type=identifier, help="what to call it (default: the ban and the time)")
    adding.set_defaults(run=_add, usage_error=adding.error)
    listing = add_subcommand(commands, "list", "show overrides", _LIST_EPILOG)
    listing.add_argument("--all", action="store_true", help="also those that are over")
    listing.add_argument("--json", action="store_true", help="one JSON object")
    listing.set_defaults(run=_list)
    ending = add_subcommand(commands, "end", "end an override now", _END_EPILOG)
    ending.add_argument("name", metavar="NAME", help="as `tokgate override list` shows it")
    ending.add_argument("--by", type=_line, metavar="WHO", help="who ends it (default: you)")
    ending.set_defaults(run=end_override)
    for each in (adding, listing, ending):
        add_policies_option(each)
    _add_requests(commands)


def state_of(override: Override, now: Instant) -> OverrideState:
    """The state of an override at `now`."""
    if now in override.span:
        return OverrideState.ACTIVE
    return OverrideState.UPCOMING if now < override.span.start else OverrideState.ENDED


def _list(options: argparse.Namespace) -> int:
    """Print the overrides of a policy, the next to end first."""
    now = Instant.now()
    snapshot = open_snapshot(options.policies, now)
    known = sorted(overrides(snapshot).values(), key=lambda each: (each.span.end, each.exemption.name))
    found = [each for each in known if options.all or state_of(each, now) is not OverrideState.ENDED]
    if options.json:
        printed = OverrideList(at=utc(now), overrides=[_document(each, now) for each in found])
        print_json(printed, indent=2, ascii_only=False)
    elif found:
        rows = [[readable(cell) for cell in _row(each, snapshot, now)] for each in found]
        print_lines(aligned([_HEADINGS, *rows]))
    else:
        narrate("no overrides" if options.all else "no overrides in force or to come")
    return Exit.DONE


def _document(override: Override, now: Instant) -> OverrideOutput:
    exemption = override.exemption
    return {
        "name": exemption.name,
        "state": state_of(override, now),
        "ban": exemption.ban,
        **whom_of(exemption),
        "starts": None if override.span.start == Instant.MIN else utc(override.span.start),
        "until": utc(override.span.end),
        "reason": exemption.reason,
        "ticket": exemption.ticket,
        "by": exemption.by,
        "ended_by": exemption.ended_by,
        "file": None if exemption.origin is None else exemption.origin.file,
    }


def _row(override: Override, snapshot: Snapshot, now: Instant) -> tuple[str, ...]:
    exemption = override.exemption
    clients = exemption.whom
    more = len(clients) - _NAMED
    zone = common_zone(snapshot.policy.networks[name] for name in snapshot.bans[exemption.ban].networks)
    who = exemption.by or "-"
    if exemption.ended_by is not None:
        who += f", ended by {exemption.ended_by}"
    return (
        exemption.name,
        state_of(override, now),
        exemption.ban,
        ", ".join(clients[:_NAMED]) + (f" and {more} more" if more > 0 else ""),
        f"{local(override.span.end, zone)} {zone}",
        who,
        exemption.reason + ("" if exemption.ticket is None else f" ({exemption.ticket})"),
    )


def _add(options: argparse.Namespace) -> Exit:
    """Create an override from one ban, or from all, and print its name."""
    wanted = Wanted(**{each.name: getattr(options, each.name) for each in fields(Wanted)})
    given = [key for key in ("clients", "users", "groups", "devices", "interfaces") if getattr(options, key)]
    if options.all_bans and given:
        options.usage_error(f"argument --{given[0].removesuffix('s')}: not allowed with argument --all-bans")
    if not (options.all_bans or given or options.network):
        options.usage_error("one of the arguments --network --client --user --group --device --interface is required")
    with policies_locked(options.policies):
        made = make_override(options.policies, wanted, Instant.now())
    sys.stdout.write(f"{made.name}\n")
    made.narrate()
    return Exit.FINDINGS if made.forbidding else Exit.DONE


class RequestList(TypedDict):
    """`tokgate override requests --json`."""

    at: str
    requests: list[ExceptionRequest]


def _add_requests(commands: Subparsers) -> None:
    listing = add_subcommand(commands, "requests", "show what people asked for on the page", _REQUESTS_EPILOG)
    listing.add_argument("--all", action="store_true", help="also those that were answered")
    listing.set_defaults(run=_requests)
    approving = add_subcommand(commands, "approve", "make the override that was asked for", _APPROVE_EPILOG)
    long = approving.add_mutually_exclusive_group()
    long.add_argument("--for", dest="lasting", type=_lasting, metavar="DURATION", help="how long (default: as asked)")
    long.add_argument("--until", type=_until_argument, metavar="TIME", help="or its end, exclusive")
    approving.add_argument("--reason", type=_line, help="why (default: what was asked for)")
    approving.set_defaults(run=_approve)
    declining = add_subcommand(commands, "decline", "decline a request", _DECLINE_EPILOG)
    declining.add_argument("--reason", required=True, type=_line, help="why; shown to who asked")
    declining.set_defaults(run=_decline)
    for answering in (approving, declining):
        answering.add_argument("id", metavar="ID", help="as `tokgate override requests` shows it")
        answering.add_argument("--ticket", type=_line, help="where it is dealt with")
        answering.add_argument("--by", type=_line, metavar="WHO", help="who answers (default: you)")
    for each in (listing, approving, declining):
        log = default_log()
        each.add_argument(
            "--log", type=Path, default=log, metavar="FILE", help=f"requests are beside this (default: {log})"
        )
        each.add_argument("--json", action="store_true", help="one JSON object")
        add_policies_option(each, argument=False)


def _requests(options: argparse.Namespace) -> Exit:
    known = RequestFolder(requests_path_for(options.log)).all().values()
    found = [each for each in known if options.all or each["state"] == RequestState.PENDING]
    if options.json:
        print_json(RequestList(at=timestamp(Instant.now()), requests=found), indent=2, ascii_only=False)
    elif found:
        rows = []
        for each in found:
            who = each["client"] if each["user"] is None else f"{each['user']} at {each['client']}"
            said = each["id"], each["state"], each["at"][:19] + "Z", each["ban"], who
            rows.append(list(map(readable, (*said, each["lasting"], each["why"], each["by"] or "-"))))
        print_lines(aligned([_REQUEST_HEADINGS, *rows]))
    else:
        narrate("no requests" if options.all else "no requests that wait for an answer")
    return Exit.DONE


def _approve(options: argparse.Namespace) -> Exit:
    """Make the override, and write into the request which it is."""
    now, by = Instant.now(), options.by or you()
    with policies_locked(options.policies):
        folder, request = _pending(options)
        user = request["user"]
        wanted = Wanted(
            ban=request["ban"],
            clients=() if user else [networks.cidr(request["client"])],
            users=[user] if user else (),
            lasting=options.lasting or times.lasting(request["lasting"]),
            until=options.until,
            reason=options.reason or request["why"],
            ticket=options.ticket,
            by=by,
        )
        made = make_override(options.policies, wanted, now)
        answer = {"override": made.name, "until": timestamp(made.until), "reason": options.reason}
        answer |= {"state": RequestState.APPROVED, "answered": timestamp(now), "by": by, "ticket": options.ticket}
        answered = folder.answer(options.id, **answer)
    if options.json:
        print_json(answered, indent=2, ascii_only=False)
    else:
        sys.stdout.write(f"{made.name}\n")
    made.narrate()
    return Exit.DONE


def _decline(options: argparse.Namespace) -> Exit:
    with policies_locked(options.policies):
        folder, request = _pending(options)
        answer = {"by": options.by or you(), "ticket": options.ticket, "reason": options.reason}
        now = timestamp(Instant.now())
        answered = folder.answer(options.id, state=RequestState.DECLINED, answered=now, **answer)
    if options.json:
        print_json(answered, indent=2, ascii_only=False)
    narrate(f"tokgate: declined; the page shows {visible(request['client'])} the reason")
    return Exit.DONE


def _pending(options: argparse.Namespace) -> tuple[RequestFolder, ExceptionRequest]:
    """Raises CommandError for a request that doesn't wait for an answer."""
    folder = RequestFolder(requests_path_for(options.log))
    request = folder.all().get(options.id)
    if request is None:
        where = visible(str(folder.folder))
        raise CommandError(f"there is no request `{visible(options.id)}` in {where}", Exit.USAGE)
    if request["state"] != RequestState.PENDING:
        raise CommandError(f"the request was {request['state']} by {visible(request['by'] or '')}", Exit.FINDINGS)
    return folder, request
