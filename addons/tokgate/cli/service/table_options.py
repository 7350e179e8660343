"""The options that say how clients come to the gates, for all commands that make or load the table."""

import argparse
import pwd
import re
from typing import Final

from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.value_arguments import whole_number
from tokgate.gateway.ruleset import (
    DEFAULT_MARK,
    DEFAULT_PORT,
    DEFAULT_TABLE,
    REDIRECT_PORTS,
    Bypass,
    Redirect,
    TableOptions,
    Tproxy,
)
from tokgate.policy.settings import PortRange
from tokgate.service.endpoints import MAX_PORT
from tokgate.service.privileges import DEFAULT_USER

_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_MOST_TABLES: Final = 2**31
"""Numbers of routing tables that `ip` takes."""

_port: Final = whole_number("port", 1, MAX_PORT)


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that shape the nftables ruleset."""
    parser.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, metavar="N", help=f"the gates' port (default: {DEFAULT_PORT})"
    )
    parser.add_argument(
        "--http-port", type=_port, metavar="N", help="their port for plain HTTP, if it has one of its own"
    )
    add_redirect_options(parser)
    own = parser.add_mutually_exclusive_group()
    own.add_argument(
        "--uid",
        type=_uid,
        metavar="USER|UID",
        help="the user the proxy runs as: its own connections are exempt (default: `tokgate`, where that user exists)",
    )
    own.add_argument("--mark", type=_mark, metavar="N", help="the mark on the proxy's own packets, instead of a user")
    parser.add_argument(
        "--table", type=_table, default=DEFAULT_TABLE, metavar="NAME", help=f"table name (default: {DEFAULT_TABLE})"
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
    bypass = _bypass(options)
    if options.local is not None and bypass is None:
        raise CommandError(
            "--local needs --uid or --mark: without, the proxy's own connections would be redirected to itself",
            Exit.USAGE,
        )
    if options.mark == options.route_mark:
        raise CommandError(
            "--mark and --route-mark are the same: packets of the proxy's would come back to it", Exit.USAGE
        )
    local: PortRange | None = options.local
    if options.redirect is None and local is not None and local.first <= options.port <= local.last:
        raise CommandError(f"--local and --port are both {options.port}: give each its own", Exit.USAGE)
    return TableOptions(
        table=options.table,
        forwarded=Tproxy(options.port, options.http_port, options.route_mark)
        if options.redirect is None
        else Redirect(options.redirect, options.http_port),
        local=None if local is None else Redirect(local, options.http_port),
        bypass=bypass,
    )


def _bypass(options: argparse.Namespace) -> Bypass | None:
    if options.mark is not None:
        return Bypass.by_mark(options.mark)
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


def _mark(text: str) -> int:
    try:
        mark = int(text, 0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if not 1 <= mark < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is no firewall mark: 1 to 0xffffffff")
    return mark


def _route_mark(text: str) -> int:
    mark = _mark(text)
    if mark >= _MOST_TABLES or mark in (253, 254, 255):
        raise argparse.ArgumentTypeError(
            f"{text} can't be a routing table of its own: 1 to 0x7fffffff, without 253 to 255"
        )
    return mark


def _table(text: str) -> str:
    if not _IDENTIFIER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no table name: a letter, then letters, digits and underscores")
    return text
