"""`tokgate log pseudonyms` and `tokgate log reidentify`: keys of pseudonyms, and the addresses behind them."""

import argparse
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.blocklog.paths import secret_path_for
from tokgate.blocklog.write.pseudonyms import NotAHalf, Secret, join, reidentify, split, write_secret
from tokgate.cli.arguments import whole_number
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_subcommand
from tokgate.cli.log.access import add_purpose, record_look
from tokgate.cli.log.source import add_one_file
from tokgate.cli.terminal import narrate
from tokgate.policy.values.hostname import parse_address

MAX_ADDRESSES: Final = 1 << 24
"""Maximum addresses of a CIDR; each is tried."""
_HALVES: Final = 2
_MAKE_EPILOG: Final = """\
example:
  tokgate log pseudonyms --log /var/log/tokgate/block.ndjson officer.half council.half

Give each half to another person, and leave none here. Before tokgate first runs with `clients: pseudonym`: without
this command it makes a secret of its own, and nobody can ever tell who was meant in periods that are over."""
_REIDENTIFY_EPILOG: Final = """\
example:
  tokgate log reidentify --why "complaint of 3 April" --ticket HR-17 \\
      --half officer.half --half council.half --among 10.32.0.0/14 p689-abcdefghijklmnop

--among is a CIDR, or a file with one address or user a line (for IPv6, whose networks are too large to try).
Who asks, when and why is recorded in block.access.ndjson beside the log, or nothing is told.
Output: pseudonym, tab, address. Exit code 1 if one was not found among these."""


def add_parsers(commands: Subparsers) -> None:
    make = add_subcommand(
        commands, "pseudonyms", "make the secret behind pseudonyms, and its two halves for two people", _MAKE_EPILOG
    )
    make.add_argument("halves", nargs=2, type=Path, metavar="FILE", help="where the two halves are written")
    add_one_file(make)
    make.add_argument("--key", type=Path, metavar="FILE", help="settings.log.key, if the policy has one")
    days = whole_number("number of days", 1, 36_500)
    make.add_argument("--days", type=days, default=30, metavar="N", help="how long one stays the same (default: 30)")
    make.set_defaults(run=_make)
    find = add_subcommand(
        commands,
        "reidentify",
        "tell the address behind a pseudonym, with both halves of the secret",
        _REIDENTIFY_EPILOG,
    )
    find.add_argument("pseudonyms", nargs="+", metavar="PSEUDONYM", help="as it stands in source.address")
    find.add_argument("--half", action="append", type=Path, required=True, metavar="FILE", help="twice: both halves")
    find.add_argument(
        "--among", action="append", required=True, metavar="CIDR|FILE", help="addresses that come into question"
    )
    add_one_file(find)
    add_purpose(find, needed=True)
    find.set_defaults(run=_reidentify)


def _make(args: argparse.Namespace) -> Exit:
    path = secret_path_for(args.key or args.log)
    for taken in (path, *args.halves):
        if taken.exists():
            raise CommandError(f"{taken} is there already: a secret is never overwritten")
    secret = Secret.new(args.days, Instant.now())
    try:
        for half, text in zip(args.halves, split(secret), strict=True):
            half.touch(mode=0o600, exist_ok=False)
            half.write_text(text + "\n", "ascii")
        write_secret(path, secret)
    except OSError as error:
        raise CommandError(f"the secret can't be written: {error}") from error
    narrate(f"tokgate: {path} is for tokgate; give {args.halves[0]} and {args.halves[1]} to two people")
    return Exit.DONE


def _reidentify(args: argparse.Namespace) -> Exit:
    if len(args.half) != _HALVES:
        raise CommandError("--half is needed twice: one half alone says nothing", Exit.USAGE)
    record_look(args, "tokgate log reidentify", needed=True)
    try:
        secret = join(*(path.read_text("ascii") for path in args.half))
        missing = set(args.pseudonyms)
        for pseudonym, address in reidentify(secret, args.pseudonyms, _candidates(args.among)):
            sys.stdout.write(f"{pseudonym}\t{address}\n")
            missing.discard(pseudonym)
    except (OSError, NotAHalf) as error:
        raise CommandError(str(error)) from error
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    for pseudonym in sorted(missing):
        narrate(f"tokgate: {pseudonym} is none of these addresses")
    return Exit.FINDINGS if missing else Exit.DONE


def _candidates(among: list[str]) -> Iterator[str]:
    """The addresses to compare, in the log's notation. Raises OSError, ValueError."""
    for each in among:
        if Path(each).is_file():
            for line in Path(each).read_text("utf-8").splitlines():
                address = parse_address(line.strip())
                if address is not None or line.strip():
                    yield str(address or line.strip())  # else a user
            continue
        network = ip_network(each, strict=False)
        if network.num_addresses > MAX_ADDRESSES:
            raise ValueError(f"{each} holds too many addresses to try: name those in question in a file")
        yield from map(str, network)
