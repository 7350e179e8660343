"""`tokgate gateway up|down|show|check`: the kernel's part of a gateway, for those who start its processes apart.
`tokgate ruleset`: its nftables, ready for `nft -f -`.
"""

import argparse
import pwd
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final, NotRequired, TypedDict, cast

from whenever import Instant

from tokgate.cli.arguments import whole_number
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command, need
from tokgate.cli.configuration import add_confdir_option
from tokgate.cli.policy_source import add_policies_option, open_snapshot
from tokgate.cli.terminal import narrate, print_json, print_lines
from tokgate.config.extras import Extra
from tokgate.gateway import GatewayError, libnftables, nftables
from tokgate.gateway.kernel import STATE_FILE, Differences, HostProblems, Kernel, holder
from tokgate.gateway.ruleset import (
    DEFAULT_MARK,
    DEFAULT_PORT,
    REDIRECT_PORTS,
    TABLE,
    Bypass,
    Redirect,
    Ruleset,
    TableOptions,
    Tproxy,
    ruleset_of,
)
from tokgate.policy.settings import PortRange
from tokgate.service.listeners import MAX_PORT
from tokgate.service.privileges import DEFAULT_USER, confdir_of_running
from tokgate.service.status import GatewayDifferences

EPILOG: Final = """\
examples:
  tokgate gateway up          load table, policy routes and settings for the policy in ./policies, all or nothing
  tokgate gateway up          again after an edit: replaces the table at once, connections go on
  tokgate gateway show        what is loaded, beside what should be
  tokgate gateway check       only what differs, for a monitor
  tokgate gateway down        take all of it out, put the settings back
  tokgate gateway boot        before the network is up and tokgate runs, as tokgate-boot.service does: the rules alone

`tokgate run --gateway` does all of it by itself, and follows the policy. With the same options as `up` the other three
know what should be there. Exit codes: 0 done, or all as it should be; 1 `check` found a difference; 3 it can't be
loaded here: nothing was changed, or what was is undone."""
_ACTIONS: Final = {
    "up": "load table, policy routes and settings, or replace what is loaded",
    "down": "take everything out, and put the settings back",
    "show": "what is loaded, beside what should be",
    "check": "what differs from what should be loaded; exit code 1 if anything does",
    "boot": "load the last rules; without any those of the policy; without a valid one close the web",
}


class GatewayLoaded(TypedDict):
    """`tokgate gateway up --json`. With `problems` nothing was changed, and the keys after it are absent.

    `changed` has settings of the kernel with the values that they had; `until`: when another table is due.
    """

    ok: bool
    problems: list[str]
    policy: NotRequired[str]
    changed: NotRequired[dict[str, str]]
    until: NotRequired[str | None]


class GatewayRemoved(TypedDict):
    """`tokgate gateway down --json`. `restored` has settings of the kernel with the values that they have again."""

    ok: bool
    restored: dict[str, str]


class SetSizes(TypedDict):
    """The elements of a set: how many there should be, and how many there are; null without the set."""

    wanted: int
    loaded: int | None


class GatewayCompared(TypedDict):
    """`tokgate gateway show --json` and `check --json`: the kernel beside what should be loaded.

    `refused`: packets that the table refused so far, by kind.
    """

    ok: bool
    policy: str
    until: str | None
    differences: GatewayDifferences
    sets: dict[str, SetSizes]
    refused: dict[str, int]


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "gateway", EPILOG)
    parser.add_argument(
        "action", choices=_ACTIONS, help="; ".join(f"{name}: {does}" for name, does in _ACTIONS.items())
    )
    add_policies_option(parser)
    add_table_options(parser)
    add_confdir_option(parser, "where it is kept what settings were before")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do what the action says. Exit code 3 if the host or the kernel doesn't allow it."""
    need(Extra.GATEWAY)
    folder = confdir_of_running(STATE_FILE) if args.confdir is None else args.confdir.expanduser()
    kernel = Kernel(table_options(args), folder / STATE_FILE)
    try:
        if args.action == "down":
            return _down(kernel, args)
        if args.action == "boot":
            return _boot(kernel, folder / nftables.BOOT_FILE, args.policies)
        now = Instant.now()
        rules = ruleset_of(open_snapshot(args.policies, now), now, kernel.options)
        return _up(kernel, rules, args) if args.action == "up" else _compare(kernel, rules, args)
    except HostProblems as error:
        if args.json:
            print_json(GatewayLoaded(ok=False, problems=error.problems))
            return Exit.FAILURE
        raise CommandError(f"nothing was changed:\n{error}") from error
    except GatewayError as error:
        raise CommandError(str(error)) from error


def _up(kernel: Kernel, rules: Ruleset, args: argparse.Namespace) -> int:
    if (kept_by := holder()) is not None:
        raise HostProblems([f"{kept_by} loads what its own policy needs: change that, or stop it first"])
    changed = kernel.up(rules)
    remark_on(rules)
    for name, value in changed.items():
        narrate(f"tokgate: {name} was {value}: it is {kernel.settings[name]} until `tokgate gateway down`")
    for limit in kernel.limits:
        narrate(f"tokgate: warning: {limit}")
    if args.json:
        print_json(
            GatewayLoaded(
                ok=True,
                problems=[],
                policy=rules.version,
                changed=dict(changed),
                until=rules.until and str(rules.until),
            )
        )
    else:
        narrate(f"tokgate: table inet {TABLE} is loaded, policy {rules.version}")
    return Exit.DONE


def _down(kernel: Kernel, args: argparse.Namespace) -> int:
    if (kept_by := holder()) is not None:
        raise GatewayError(f"{kept_by} would load it again: stop that, which takes it out")
    restored = kernel.down()
    for name, value in restored.items():
        narrate(f"tokgate: {name} is {value} again")
    if args.json:
        print_json(GatewayRemoved(ok=True, restored=dict(restored)))
    else:
        narrate(f"tokgate: table inet {TABLE} and its routes are out")
    return Exit.DONE


def _boot(kernel: Kernel, path: Path, policies: Path) -> int:
    """Load what holds until tokgate runs. Exit code 1 where the web is closed for want of rules and a policy."""
    try:
        libnftables.run(path.read_text())
    except OSError as error:
        narrate(f"tokgate: no rules from before: {path}: {error.strerror}")
    except GatewayError as error:
        narrate(f"tokgate: {path} can't be loaded: {error}")
    else:
        narrate(f"tokgate: table inet {TABLE} is loaded from {path}")
        return Exit.DONE
    try:
        now = Instant.now()
        rules = ruleset_of(open_snapshot(policies, now), now, kernel.options)
    except CommandError as error:
        libnftables.run(nftables.CLOSED_BOOT_RULES)
        raise CommandError(f"{error}: the web is closed for all that is forwarded", error.code) from error
    libnftables.run(nftables.boot_rules(rules))
    narrate(f"tokgate: table inet {TABLE} is loaded, policy {rules.version}")
    return Exit.DONE


def _compare(kernel: Kernel, rules: Ruleset, args: argparse.Namespace) -> int:
    wanted, loaded = kernel.wanted(rules), kernel.loaded()
    found = kernel.differences(wanted)
    if args.json:
        has = {} if loaded is None else {name: len(elements) for name, elements in loaded.elements.items()}
        compared: GatewayCompared = {
            "ok": not list(found),
            "policy": rules.version,
            "until": rules.until and str(rules.until),
            "differences": cast("GatewayDifferences", asdict(found)),
            "sets": {name: {"wanted": len(each), "loaded": has.get(name)} for name, each in wanted.elements.items()},
            "refused": kernel.refused(),
        }
        print_json(compared)
    elif args.action == "show":
        print_lines(_shown(kernel, rules, found))
    else:
        print_lines(found)
    return Exit.FINDINGS if args.action == "check" and list(found) else Exit.DONE


def _shown(kernel: Kernel, rules: Ruleset, found: Differences) -> Iterator[str]:
    wanted, loaded = kernel.wanted(rules), kernel.loaded()
    yield f"policy {rules.version}" + ("" if rules.until is None else f", another table is due at {rules.until}")
    for part, said in asdict(found).items():
        yield f"{part}: {'as it should be' if not said else 'differs'}"
        yield from (f"  {line}" for line in said)
        if part == "settings":
            yield from (f"  {line}" for line in kernel.limits)
        if part == "table" and loaded is not None:
            for name, elements in wanted.elements.items():
                yield f"  {name}: {len(loaded.elements.get(name, ()))} of {len(elements)} elements"
            for kind, number in kernel.refused().items():
                yield f"  packets refused, {kind}: {number}"


_RULESET_EPILOG = """\
examples:
  tokgate ruleset | nft -f -                     load it; after an edit, `tokgate gateway up` changes it in place
  tokgate ruleset | sed -n 's/^#   ip /ip /p' | sh
                                                 the routes that it needs, which are printed as comments
  tokgate ruleset | nft -c -f -                  only check it
  tokgate ruleset --redirect                     where TPROXY can't be used: gates on `--mode gate@10443-10506`
  tokgate ruleset --local --uid tokgate          filter this machine's own programs as well
  nft delete table inet tokgate                  take it out again

`tokgate run --gateway` loads the same table, its routes and what else a gateway needs, and keeps them in step with the
policy; `tokgate gateway up` loads them once.

To the gates (IPv4 and IPv6) comes of networks with a ban that is not over and begins within a day: TCP 80, 443 and the
ports of settings.gateway.ports, every TCP port of addresses of banned services, and QUIC on port 443 (with --redirect
it is refused). Refused to them: QUIC on any other port, and UDP to addresses of services while their ban blocks. All
other networks are left alone. With unknown_clients: block, all TCP of clients in no network goes to the gates, and
their UDP is refused.
The proxy runs on the same machine: tokgate run --mode gate:tproxy"""


def add_ruleset(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "ruleset", _RULESET_EPILOG)
    add_policies_option(parser)
    add_table_options(parser)
    parser.set_defaults(run=_ruleset)


def _ruleset(options: argparse.Namespace) -> int:
    said, now = table_options(options), Instant.now()
    rules = ruleset_of(open_snapshot(options.policies, now), now, said)
    remark_on(rules)
    sys.stdout.write(nftables.text(rules))
    return Exit.DONE


def remark_on(rules: Ruleset) -> None:
    """Say on stderr what an admin might not expect of it."""
    parts = [part for network in rules.clients for part in network.parts]
    reached = any(n.interfaces or any(device.hardware for device in n.devices) for n in parts)
    remote = any(not prefix.is_loopback for network in rules.clients for prefix in network.prefixes)
    if not (rules.options.local is not None or rules.strangers or reached or remote):
        narrate("tokgate: no network beyond this machine has a ban in sight: nothing is taken to the gates")
    if rules.until is not None:
        narrate(f"tokgate: another table is due at {rules.until}; `tokgate run --gateway` loads it by itself")


_MOST_TABLES: Final = 2**31
"""Numbers of routing tables that `ip` takes."""
_port: Final = whole_number("port", 1, MAX_PORT)
read_mark: Final = whole_number("firewall mark", 1, 2**32 - 1, base=0)


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that shape the nftables ruleset."""
    parser.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, metavar="N", help=f"the gates' port (default: {DEFAULT_PORT})"
    )
    add_redirect_options(parser)
    own = parser.add_mutually_exclusive_group()
    own.add_argument(
        "--uid",
        type=_uid,
        metavar="USER|UID",
        help="the user the proxy runs as: its own connections are exempt (default: `tokgate`, where that user exists)",
    )
    own.add_argument(
        "--mark", type=read_mark, metavar="N", help="the mark on the proxy's own packets, instead of a user"
    )
    parser.add_argument(
        "--route-mark",
        type=_route_mark,
        default=DEFAULT_MARK,
        metavar="N",
        help=f"the mark of packets for the gates, and the number of their routing table (default: {DEFAULT_MARK:#x})",
    )


def add_redirect_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for what TPROXY can't be used for."""
    parser.add_argument(
        "--redirect",
        type=_ports,
        nargs="?",
        const=REDIRECT_PORTS,
        metavar="PORTS",
        help="redirect instead of TPROXY, where the kernel lacks that, to ports chosen by a hash of the destination "
        f"(default: {REDIRECT_PORTS}; gates listen there with `run --gateway --redirect` or `run --mode "
        f"gate@{REDIRECT_PORTS}`)",
    )
    parser.add_argument(
        "--local",
        type=_ports,
        nargs="?",
        const=REDIRECT_PORTS,
        metavar="PORTS",
        help=f"redirect this machine's own programs, too, to these ports (default: {REDIRECT_PORTS})",
    )


def table_options(options: argparse.Namespace) -> TableOptions:
    """The options as values. Ends the command where they contradict each other."""
    bypass = _own_connections(options)
    if options.local is not None and bypass is None:
        raise CommandError(
            "--local needs --uid or --mark: without, the proxy's own connections would be redirected to itself",
            Exit.USAGE,
        )
    local: PortRange | None = options.local
    if options.redirect is None and local is not None and local.first <= options.port <= local.last:
        raise CommandError(f"--local and --port are both {options.port}: give each its own", Exit.USAGE)
    return TableOptions(
        forwarded=Tproxy(options.port, options.route_mark) if options.redirect is None else Redirect(options.redirect),
        local=None if local is None else Redirect(local),
        bypass=bypass,
    )


def bypass_by_mark(mark: int, route_mark: int = DEFAULT_MARK) -> Bypass:
    """How packets of the proxy's are known by a mark. Ends the command where it is that of packets for the gates."""
    if mark == route_mark:
        raise CommandError(f"packets of mark {mark:#x} are for the gates: give the proxy's own another", Exit.USAGE)
    return Bypass.by_mark(mark)


def _own_connections(options: argparse.Namespace) -> Bypass | None:
    if options.mark is not None:
        return bypass_by_mark(options.mark, options.route_mark)
    if options.uid is not None:
        return Bypass.by_uid(options.uid)
    try:
        return Bypass.by_uid(pwd.getpwnam(DEFAULT_USER).pw_uid)
    except KeyError:
        return None


def _ports(text: str) -> PortRange:
    first, _, last = text.partition("-")
    ports = PortRange(_port(first), _port(last or first))
    if ports.first > ports.last:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of ports: FIRST-LAST")
    return ports


def _uid(text: str) -> int:
    if text.isdecimal():
        if int(text) >= 2**32 - 1:
            raise argparse.ArgumentTypeError(f"{text} is no user id")
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"no user {text!r} on this machine; a number works for any") from error


def _route_mark(text: str) -> int:
    mark = read_mark(text)
    if mark >= _MOST_TABLES or mark in (253, 254, 255):
        raise argparse.ArgumentTypeError(
            f"{text} can't be a routing table of its own: 1 to 0x7fffffff, without 253 to 255"
        )
    return mark
