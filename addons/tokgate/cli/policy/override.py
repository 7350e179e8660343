"""`tokgate override`: create, list and end time-limited exemptions from a ban."""

import argparse
from enum import StrEnum
from typing import Final, TypedDict

from whenever import Instant

from tokgate.cli.arguments import argument_of, common_zone
from tokgate.cli.commands import Subparsers, add_command, add_subcommand
from tokgate.cli.exits import Exit
from tokgate.cli.policy_source import add_policies_option, open_snapshot
from tokgate.cli.tables import aligned
from tokgate.cli.terminal import narrate, print_json, print_lines
from tokgate.config.format import networks, times, values
from tokgate.policy.analysis.terms import Override, overrides
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.text import local, readable, utc

_EPILOG = """\
examples:
  tokgate override add --ban offices-2027 --client 10.32.9.7 --for 2h --reason "Press conference"
  tokgate override list                             those in force and to come
  tokgate override end offices-2027-20270301T093000Z

An override is a YAML file in the folder overrides/ of the policies. A running tokgate sees it at once, records that it
starts and ends, and by whom; it ends by itself."""
_ADD_EPILOG = """\
examples:
  tokgate override add --ban offices-2027 --client 10.32.9.7 --for 2h --reason "Press conference"
  tokgate override add --ban offices-2027 --user alice --for 1d --reason "Investigation" --ticket CHG-1041
  tokgate override add --ban offices-2027 --network press --until 2027-03-01T18:00 --reason "Election" --ticket CHG-1042

--for takes 30m, 2h, 1h30m, 1d (24 hours) or ISO 8601 (PT2H). --until without offset is wall time in the network's zone.
The name of the override is printed. Exit code 1: the policy does not allow it; nothing was written."""
_LIST_EPILOG = """\
examples:
  tokgate override list                             those in force and to come
  tokgate override list --all                       also those that are over
  tokgate override list --json                      one JSON object"""
_END_EPILOG = """\
examples:
  tokgate override end offices-2027-20270301T093000Z

The file stays, with the time and `ended_by`: it shows what was. An override that had not begun is removed."""
_cidr = argument_of(networks.cidr)
_line = argument_of(values.one_line)
_interface = argument_of(networks.interface)
_until = argument_of(times.until)
_lasting = argument_of(times.lasting)
_HEADINGS: Final = ("name", "state", "ban", "for whom", "until", "by", "reason")
_NAMED: Final = 3
"""Maximum clients in a row of the table."""


class OverrideState(StrEnum):
    """The states of an override in time."""

    ACTIVE = "active"
    UPCOMING = "upcoming"
    ENDED = "ended"


class OverrideOutput(TypedDict):
    """An override."""

    name: str
    state: OverrideState
    ban: str
    clients: list[str]
    users: list[str]
    groups: list[str]
    devices: list[str]
    interfaces: list[str]
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
    _add_adding(commands)
    listing = add_subcommand(commands, "list", "show overrides", _LIST_EPILOG)
    add_policies_option(listing)
    listing.add_argument("--all", action="store_true", help="also those that are over")
    listing.add_argument("--json", action="store_true", help="one JSON object")
    listing.set_defaults(run=_list)
    ending = add_subcommand(commands, "end", "end an override now", _END_EPILOG)
    ending.add_argument("name", metavar="NAME", help="as `tokgate override list` shows it")
    ending.add_argument("--by", type=_line, metavar="WHO", help="who ends it (default: you)")
    add_policies_option(ending)
    ending.set_defaults(run=_end)


def _add_adding(commands: Subparsers) -> None:
    adding = add_subcommand(commands, "add", "make an override", _ADD_EPILOG)
    adding.add_argument("--ban", required=True, metavar="BAN", help="the ban to make an exception from")
    whom = adding.add_mutually_exclusive_group(required=True)
    whom.add_argument("--network", metavar="NETWORK", help="for all clients of this network of the ban")
    whom.add_argument(
        "--client",
        action="append",
        type=_cidr,
        metavar="IP|CIDR",
        help="for these clients; each may be given several times",
    )
    whom.add_argument(
        "--user", action="append", type=_line, metavar="NAME", help="for this user of the proxy; repeatable"
    )
    whom.add_argument(
        "--group", action="append", type=_line, metavar="NAME", help="for this group of users; repeatable"
    )
    whom.add_argument(
        "--device", action="append", type=_line, metavar="MAC|NAME", help="for this device of an inventory"
    )
    whom.add_argument(
        "--interface", action="append", type=_interface, metavar="NAME", help="for who comes by this interface"
    )
    long = adding.add_mutually_exclusive_group(required=True)
    long.add_argument("--for", dest="lasting", type=_lasting, metavar="DURATION", help="how long: 30m, 2h, 1d, PT2H")
    long.add_argument("--until", type=_until, metavar="TIME", help="first instant at which it no longer holds")
    adding.add_argument("--reason", required=True, type=_line, help="why; shown to those who review the log")
    adding.add_argument("--ticket", type=_line, help="where it was asked for")
    adding.add_argument("--by", type=_line, metavar="WHO", help="who makes it (default: you)")
    adding.add_argument("--name", metavar="NAME", help="what to call it (default: the ban and the time)")
    add_policies_option(adding)
    adding.set_defaults(run=_add)


def _add(options: argparse.Namespace) -> int:
    from tokgate.cli.policy.override_change import add  # what `list` can do without

    return add(options.policies, options)


def _end(options: argparse.Namespace) -> int:
    from tokgate.cli.policy.override_change import end

    return end(options.policies, options.name, options.by)


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
        "clients": [str(client) for client in exemption.clients],
        "users": list(exemption.users),
        "groups": list(exemption.groups),
        "devices": list(exemption.devices),
        "interfaces": list(exemption.interfaces),
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
