"""`tokgate ruleset`: nftables for the policy's networks, ready for `nft -f -`."""

import argparse
import pwd
import re
import sys
from ipaddress import IPv4Network, IPv6Network

from whenever import Instant

from tokgate.cli.commands import COMMANDS
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.nftables import Bypass, Ruleset
from tokgate.cli.policies import add_policies_option, open_snapshot
from tokgate.cli.terminal import narrate
from tokgate.policy.bans import OnExpiry, UnknownClients
from tokgate.policy.networks import Network
from tokgate.policy.snapshot import Snapshot

EPILOG = """\
examples:
  tokgate ruleset | nft -f -                     load it; loading again replaces it, nothing is lost between
  tokgate ruleset --uid tokgate > /etc/nftables.d/tokgate.nft
  tokgate ruleset | nft -c -f -                  only check it
  tokgate ruleset --local --uid tokgate          filter this machine's own programs as well
  nft delete table inet tokgate                  take it out again

Clients: TCP 80 and 443 are redirected to the proxy (IPv4 and IPv6), UDP 443 is refused for networks under a ban.
The proxy runs on the same machine: tokgate run --mode gate (or, without gates, --mode transparent)"""

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_DEFAULT_USER = "tokgate"
_STRANGERS = Network("everybody else (unknown_clients: block)", (IPv4Network("0.0.0.0/0"), IPv6Network("::/0")))
"""Refusing the clients of no network takes seeing them."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `ruleset`."""
    summary = COMMANDS["ruleset"]
    parser = subparsers.add_parser("ruleset", help=summary, description=summary, epilog=EPILOG)
    add_policies_option(parser)
    parser.add_argument("--port", type=_port, default=8080, metavar="N", help="the proxy's port (default: 8080)")
    parser.add_argument(
        "--http-port", type=_port, metavar="N", help="the proxy's port for plain HTTP, if it has one of its own"
    )
    own = parser.add_mutually_exclusive_group()
    own.add_argument(
        "--uid",
        type=_uid,
        metavar="USER|UID",
        help="the user the proxy runs as: its own connections are exempt (default: `tokgate`, where that user exists)",
    )
    own.add_argument("--mark", type=_mark, metavar="N", help="the mark on the proxy's own packets, instead of a user")
    parser.add_argument("--table", type=_table, default="tokgate", metavar="NAME", help="table name (default: tokgate)")
    parser.add_argument("--local", action="store_true", help="redirect this machine's own programs, too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    bypass = _bypass(options)
    if options.local and bypass is None:
        raise CommandError(
            "--local needs --uid or --mark: without, the proxy's own connections would be redirected to itself",
            Exit.USAGE,
        )
    now = Instant.now()
    snapshot = open_snapshot(options.policies, now)
    banned = _networks_under_a_ban(snapshot, now)
    strangers = (_STRANGERS,) if snapshot.settings.unknown_clients is UnknownClients.BLOCK else ()
    clients = (*snapshot.policy.networks.values(), *strangers)
    rules = Ruleset(
        table=options.table,
        version=snapshot.version,
        clients=clients,
        quic_refused=tuple(network for network in clients if network.name in banned or network in strangers),
        https_port=options.port,
        http_port=options.http_port or options.port,
        bypass=bypass,
        local=options.local,
    )
    reached = any(network.interfaces or any(device.hardware for device in network.devices) for network in clients)
    remote = any(not prefix.is_loopback for network in clients for prefix in network.prefixes)
    if not options.local and not reached and not remote:
        narrate("tokgate: the policy has no network beyond this machine: nothing is redirected")
    sys.stdout.write(str(rules))
    return Exit.DONE


def _networks_under_a_ban(snapshot: Snapshot, now: Instant) -> frozenset[str]:
    """Networks with a ban, announced or in force, that is not over at `now`; whatever it does, it must see names."""
    return frozenset(
        network
        for track in snapshot.tracks
        if track.schedule.ends is None or track.schedule.ends > now or track.ban.on_expiry is OnExpiry.HOLD
        for network in track.networks
    )


def _bypass(options: argparse.Namespace) -> Bypass | None:
    if options.mark is not None:
        return Bypass.by_mark(options.mark)
    if options.uid is not None:
        return Bypass.by_uid(options.uid)
    try:
        return Bypass.by_uid(pwd.getpwnam(_DEFAULT_USER).pw_uid)
    except KeyError:
        return None


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 1 to 65535")
    return int(text)


def _uid(text: str) -> int:
    if text.isdecimal():
        if int(text) >= 2**32 - 1:
            raise argparse.ArgumentTypeError(f"{text} is no user id")
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"no user {text!r} on this machine; a number works for any") from error


def _mark(text: str) -> int:
    try:
        mark = int(text, 0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if not 1 <= mark < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is no firewall mark: 1 to 0xffffffff")
    return mark


def _table(text: str) -> str:
    if not _IDENTIFIER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no table name: a letter, then letters, digits and underscores")
    return text
