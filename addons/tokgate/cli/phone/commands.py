"""`tokgate phone up|down|add|list|revoke`: phones that reach the gateway through WireGuard."""

import argparse
import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.exits import CommandError, need
from tokgate.cli.phone.files import DEFAULT_FOLDER, PhoneFiles
from tokgate.cli.policy_source import add_policies_option
from tokgate.cli.value_arguments import argument_of
from tokgate.config.extras import Extra
from tokgate.config.format import parsers
from tokgate.gateway import GatewayError
from tokgate.gateway.phones.tunnel import DEFAULT_PORT, is_key
from tokgate.policy.values.prefixes import IPNetwork

_EPILOG: Final = """\
examples:
  tokgate phone up --endpoint vpn.example.org --dns 192.0.2.53
                                                    make the tunnel, once; `tokgate phone up` at each start
  tokgate phone add alice-phone --owner alice       a phone of its own keys and addresses, as a QR code
  tokgate phone list                                who there is, and when each was last there
  tokgate phone revoke alice-phone                  at once
  tokgate phone down                                take the tunnel out; keys and phones stay

The gates behind it are `tokgate run --gateway`. Phones are the network `phones` of the policy: name it in bans. See
docs/phones.md."""
_UP_EPILOG: Final = """\
examples:
  tokgate phone up --endpoint vpn.example.org --dns 192.0.2.53
  tokgate phone up --endpoint 198.51.100.7:443 --dns 10.83.0.1 --prefix 10.83.0.0/16 --prefix fd83:7467::/64
  tokgate phone up                                  with what the first time said, as a service does

Uses the kernel's WireGuard, or wireguard-go where the kernel has none; needs `wg` (wireguard-tools). Let its UDP port
in. The resolvers are asked through the tunnel; name the tunnel's own address if one answers on this gateway."""
_ADD_EPILOG: Final = """\
examples:
  tokgate phone add alice-phone --owner alice       shows a QR code for the WireGuard app
  tokgate phone add bob-phone --config bob.conf --mobileconfig bob.mobileconfig
  tokgate phone add carol-phone --public-key hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= --config -
                                                    the phone has made its key itself: no secret leaves it

The phone's private key is in what this makes, and is kept nowhere else: for a lost one revoke the phone and add it
again. Files are readable for their owner alone."""
_LIST_EPILOG: Final = """\
examples:
  tokgate phone list
  tokgate phone list --all                          also those that were revoked, with the addresses they had
  tokgate phone list --json                         one JSON object"""
_REVOKE_EPILOG: Final = """\
examples:
  tokgate phone revoke alice-phone

Not a packet of it is taken after this. Its addresses go to nobody else, so that the log stays clear."""
_DOWN_EPILOG: Final = """\
examples:
  tokgate phone down                                phones lose the tunnel, and what they do fails until `phone up`"""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_INTERFACE: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,14}")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+")
_MOST: Final = 65_535


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "phone", _EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="phone_command", required=True)

    def command(name: str, does: str, epilog: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.", epilog=epilog)
        add_policies_option(made)
        made.add_argument(
            "--state", metavar="DIR", type=Path, default=DEFAULT_FOLDER, help=f"the tunnel's folder ({DEFAULT_FOLDER})"
        )
        made.set_defaults(run=run, phone_run=name)
        return made

    up = command("up", "make the tunnel, or bring up the one that was made", _UP_EPILOG)
    up.add_argument("--endpoint", metavar="HOST[:PORT]", type=_endpoint, help=f"where phones find it ({DEFAULT_PORT})")
    up.add_argument("--dns", metavar="ADDRESS", type=ip_address, action="append", help="a resolver; repeatable")
    up.add_argument(
        "--prefix",
        metavar="CIDR",
        type=_prefix,
        action="append",
        help="addresses of phones, one IPv4 and one IPv6 prefix (default: 10.83.0.0/16 and fd83:7467:6174:6500::/64)",
    )
    up.add_argument("--interface", metavar="NAME", type=_shaped(_INTERFACE), help="(default: wg-tokgate)")
    up.add_argument(
        "--no-masquerade",
        action="store_true",
        help="forward what no gate carries with the phones' own addresses, which the network behind can route",
    )
    add = command("add", "give a phone keys and addresses", _ADD_EPILOG)
    add.add_argument("name", metavar="NAME", type=_shaped(_NAME), help="letters, digits, `.`, `_`, `-`")
    add.add_argument("--owner", metavar="WHO", type=argument_of(parsers.one_line), help="whose it is")
    add.add_argument("--public-key", metavar="KEY", type=_key, help="of a key pair that the phone has made")
    add.add_argument("--config", metavar="FILE", help="write the app's configuration there, `-` for stdout")
    add.add_argument("--mobileconfig", metavar="FILE", type=Path, help="write a profile for Apple's devices there")
    listing = command("list", "show the phones", _LIST_EPILOG)
    listing.add_argument("--all", action="store_true", help="also those that were revoked")
    listing.add_argument("--json", action="store_true", help="one JSON object")
    revoke = command("revoke", "shut a phone out, at once", _REVOKE_EPILOG)
    revoke.add_argument("name", metavar="NAME")
    command("down", "take the tunnel out", _DOWN_EPILOG)


def run(options: argparse.Namespace) -> int:
    """Run the chosen command of `phone`."""
    need(Extra.PHONES)
    try:
        return _run(options, PhoneFiles(options.state, options.policies))
    except GatewayError as error:
        raise CommandError(str(error)) from error


def _run(options: argparse.Namespace, files: PhoneFiles) -> int:
    from tokgate.cli.phone import change, listing

    match options.phone_run:
        case "up":
            wanted = change.WantedTunnel(
                options.endpoint,
                tuple(options.dns or ()),
                tuple(options.prefix or ()),
                options.interface,
                masquerade=not options.no_masquerade,
            )
            return change.up(files, wanted)
        case "add":
            outputs = change.Outputs(options.config, options.mobileconfig)
            return change.add(files, options.name, options.owner or "", options.public_key, outputs)
        case "list":
            return listing.show(files, everything=options.all, as_json=options.json)
        case "revoke":
            return change.revoke(files, options.name)
        case _:
            return change.down(files)


def _shaped(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def value(text: str) -> str:
        if not pattern.fullmatch(text):
            raise argparse.ArgumentTypeError(f"`{text}` does not match {pattern.pattern}")
        return text

    return value


def _key(text: str) -> str:
    if not is_key(text):
        raise argparse.ArgumentTypeError("no key of WireGuard, which is 44 characters and ends in `=`")
    return text


def _endpoint(text: str) -> tuple[str, int]:
    """Host and port; an IPv6 address with a port stands in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (host.count(":") and not host.endswith("]")):
        host, port = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    try:
        number = int(port)
        if ":" in host:
            ip_address(host)
        elif not _HOST.fullmatch(host):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"`{text}` is no host with a port, such as vpn.example.org:51820") from None
    if not 0 < number <= _MOST:
        raise argparse.ArgumentTypeError(f"there is no port {number}")
    return host, number


def _prefix(text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
