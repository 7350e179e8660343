"""`tokgate phone up|down|add|list|revoke`: phones that reach the gateway through WireGuard."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final, TypedDict

import yaml
from whenever import Instant

from tokgate.blocklog.atomic_file import locked, replacing
from tokgate.cli.arguments import argument_of, host_and_port
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command, add_subcommand, need
from tokgate.cli.output_file import replace_policy_file
from tokgate.cli.policy_source import add_policies_option
from tokgate.cli.terminal import narrate, print_json, show_rows, visible
from tokgate.config.diagnostics import did_you_mean
from tokgate.config.extras import Extra
from tokgate.config.format.values import one_line
from tokgate.gateway import GatewayError
from tokgate.gateway.phones.interface import Interface
from tokgate.gateway.phones.tunnel import (
    DEFAULT_PORT,
    Phone,
    Tunnel,
    inventory,
    is_key,
    mobileconfig,
    new_private_key,
    phones_in,
    public_key,
)
from tokgate.policy.values.text import shown, utc

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
DEFAULT_FOLDER: Final = Path("/var/lib/tokgate-phones")
NETWORK: Final = "phones"
"""The policy's name for them."""
_TUNNEL: Final = "tunnel.json"
_INVENTORY: Final = "phones.csv"
_POLICY: Final = "phones.yaml"
_SECRET: Final = 0o600
_HEAD: Final = """\
# yaml-language-server: $schema=../schema/policy.schema.json
# Written by `tokgate phone up`; you may add a title and a time zone, and other networks of the same phones elsewhere.
"""
_DEFAULT_INTERFACE: Final = "wg-tokgate"
_PREFIXES: Final = (ip_network("10.83.0.0/16"), ip_network("fd83:7467:6174:6500::/64"))
"""Private ones (RFC 1918, RFC 4193)."""
_HEADINGS: Final = ("name", "owner", "addresses", "added", "last seen", "revoked")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_INTERFACE: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,14}")


class PhoneOutput(TypedDict):
    """A phone; `seen` is when it last proved its key, `revoked` is null for one that may use the tunnel."""

    name: str
    owner: str | None
    addresses: list[str]
    public_key: str
    added: str
    seen: str | None
    revoked: str | None


class PhoneList(TypedDict):
    """`tokgate phone list --json`: the tunnel, and the phones in the order in which they were added."""

    interface: str
    up: bool
    endpoint: str
    phones: list[PhoneOutput]


@dataclass(frozen=True, slots=True)
class PhoneFiles:
    """`folder` is the tunnel's own, `policies` that of the policies. Methods raise GatewayError and OSError."""

    folder: Path
    policies: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context with the lock of all commands that change phones. It is released if the process dies."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self.folder):
            yield

    def tunnel(self) -> Tunnel | None:
        """The tunnel; None before the first `phone up`."""
        try:
            return Tunnel.decode((self.folder / _TUNNEL).read_text())
        except FileNotFoundError:
            return None
        except PermissionError:
            raise CommandError(f"{self.folder} is root's: run this as root") from None

    def need_tunnel(self) -> Tunnel:
        """The tunnel; a CommandError where there is none."""
        found = self.tunnel()
        if found is None:
            raise CommandError("there is no tunnel yet: tokgate phone up --help", Exit.USAGE)
        return found

    def keep_tunnel(self, tunnel: Tunnel) -> None:
        """Write the tunnel's file, with its private key."""
        with replacing(self.folder / _TUNNEL, _SECRET) as draft:
            draft.write_text(tunnel.encode())

    def phones(self) -> tuple[Phone, ...]:
        """The phones that may use the tunnel, in the order in which they were added."""
        try:
            return phones_in((self.policies / _INVENTORY).read_text())
        except FileNotFoundError:
            return ()

    def keep_phones(self, phones: Iterable[Phone]) -> None:
        """Write the inventory. A running tokgate reads it at once."""
        self._write(_INVENTORY, inventory(phones))

    def state_network(self, tunnel: Tunnel) -> Path | None:
        """Write the policy file that names the phones as a network; None where there is one already.

        The whole prefixes are in it, so that a phone is under its bans before tokgate has read the inventory.
        """
        path = self.policies / _POLICY
        if path.exists():
            return None
        cidrs = [str(each) for each in tunnel.prefixes]
        network = {"title": "Phones, by WireGuard", "cidrs": cidrs, "devices": {"file": _INVENTORY}}
        document = {"version": 1, "networks": {NETWORK: network}}
        self._write(_POLICY, _HEAD + yaml.safe_dump(document, sort_keys=False))
        return path

    def _write(self, name: str, text: str) -> None:
        if not self.policies.is_dir():
            raise CommandError(f"{visible(str(self.policies))} is no folder of policies", Exit.USAGE)
        replace_policy_file(self.policies / name, text.encode())


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "phone", _EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="phone_command", required=True)

    def command(
        name: str, does: str, epilog: str, action: Callable[[argparse.Namespace, PhoneFiles], Exit]
    ) -> argparse.ArgumentParser:
        made = add_subcommand(commands, name, does, epilog)
        add_policies_option(made, argument=False)
        made.add_argument(
            "--state", metavar="DIR", type=Path, default=DEFAULT_FOLDER, help=f"the tunnel's folder ({DEFAULT_FOLDER})"
        )
        made.set_defaults(run=run, phone_run=action)
        return made

    up = command("up", "make the tunnel, or bring up the one that was made", _UP_EPILOG, _up)
    up.add_argument(
        "--endpoint",
        metavar="HOST[:PORT]",
        type=partial(host_and_port, port=DEFAULT_PORT),
        help=f"where phones find it ({DEFAULT_PORT})",
    )
    up.add_argument("--dns", metavar="ADDRESS", type=ip_address, action="append", help="a resolver; repeatable")
    up.add_argument(
        "--prefix",
        metavar="CIDR",
        type=argument_of(ip_network),
        action="append",
        help="addresses of phones, one IPv4 and one IPv6 prefix (default: 10.83.0.0/16 and fd83:7467:6174:6500::/64)",
    )
    up.add_argument("--interface", metavar="NAME", type=_shaped(_INTERFACE), help="(default: wg-tokgate)")
    up.add_argument(
        "--no-masquerade",
        action="store_true",
        help="forward what no gate carries with the phones' own addresses, which the network behind can route",
    )
    add = command("add", "give a phone keys and addresses", _ADD_EPILOG, _add)
    add.add_argument("name", metavar="NAME", type=_shaped(_NAME), help="letters, digits, `.`, `_`, `-`")
    add.add_argument("--owner", metavar="WHO", type=argument_of(one_line), help="whose it is")
    add.add_argument("--public-key", metavar="KEY", type=_key, help="of a key pair that the phone has made")
    add.add_argument("--config", metavar="FILE", help="write the app's configuration there, `-` for stdout")
    add.add_argument("--mobileconfig", metavar="FILE", type=Path, help="write a profile for Apple's devices there")
    listing = command("list", "show the phones", _LIST_EPILOG, _list)
    listing.add_argument("--all", action="store_true", help="also those that were revoked")
    listing.add_argument("--json", action="store_true", help="one JSON object")
    revoke = command("revoke", "shut a phone out, at once", _REVOKE_EPILOG, _revoke)
    revoke.add_argument("name", metavar="NAME")
    command("down", "take the tunnel out", _DOWN_EPILOG, _down)


def run(options: argparse.Namespace) -> int:
    need(Extra.PHONES)
    try:
        return int(options.phone_run(options, PhoneFiles(options.state, options.policies)))
    except GatewayError as error:
        raise CommandError(str(error)) from error


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


def _up(options: argparse.Namespace, files: PhoneFiles) -> Exit:
    """Make the tunnel, or bring up the one that was made, with all phones."""
    with files.locked():
        known = files.tunnel()
        tunnel = _made(options) if known is None else _changed(known, options)
        stated = files.state_network(tunnel)
        if tunnel != known:
            files.keep_tunnel(tunnel)
        phones = files.phones()
        if not (files.policies / _INVENTORY).exists():
            files.keep_phones(())
        carrier = Interface(tunnel.interface).up(tunnel, phones)
    if stated is not None:
        narrate(f"tokgate: {visible(str(stated))} names the phones as the network `{NETWORK}`: name it in your bans")
    narrate(f"tokgate: {tunnel.interface} is up ({carrier}), {len(phones)} phones, UDP port {tunnel.port}")
    return Exit.DONE


def _made(options: argparse.Namespace) -> Tunnel:
    if options.endpoint is None or not options.dns:
        raise CommandError("the first time `phone up` needs --endpoint and --dns", Exit.USAGE)
    prefixes = tuple(options.prefix or _PREFIXES)
    if [each.version for each in prefixes] != [4, 6]:
        raise CommandError("a tunnel has one IPv4 and one IPv6 prefix, in this order", Exit.USAGE)
    host, port = options.endpoint
    return Tunnel(
        interface=options.interface or _DEFAULT_INTERFACE,
        private_key=new_private_key(),
        host=host,
        port=port,
        prefixes=prefixes,
        name_servers=tuple(options.dns),
        masquerade=not options.no_masquerade,
    )


def _changed(known: Tunnel, options: argparse.Namespace) -> Tunnel:
    """The tunnel with another endpoint or resolvers, of which phones that are added from now on hear."""
    prefixes, interface = tuple(options.prefix or known.prefixes), options.interface or known.interface
    if (prefixes, interface) != (known.prefixes, known.interface):
        raise CommandError("a tunnel keeps its prefixes and interface: phones have them", Exit.USAGE)
    host, port = options.endpoint or (known.host, known.port)
    servers, masquerade = tuple(options.dns or known.name_servers), known.masquerade and not options.no_masquerade
    return replace(known, host=host, port=port, name_servers=servers, masquerade=masquerade)


def _down(_: argparse.Namespace, files: PhoneFiles) -> Exit:
    """Take the tunnel out. Keys and phones stay."""
    tunnel = files.need_tunnel()
    Interface(tunnel.interface).down()
    narrate(f"tokgate: {tunnel.interface} is out")
    return Exit.DONE


def _add(options: argparse.Namespace, files: PhoneFiles) -> Exit:
    """Give a phone keys and addresses, let it in, and print its configuration or write it to files."""
    name: str = options.name
    key: str | None = options.public_key
    with files.locked():
        tunnel, phones = files.need_tunnel(), files.phones()
        if any(each.name.casefold() == name.casefold() for each in phones):
            raise CommandError(f"there is a phone `{name}` already: revoke it first", Exit.USAGE)
        private_key = new_private_key() if key is None else None
        public = key or public_key(private_key or "")
        if any(each.public_key == public for each in (*phones, *tunnel.revoked)):
            raise CommandError("another phone has or had this key: a key is one phone's", Exit.USAGE)
        added = Instant.now().round("second", mode="floor")
        phone = Phone(name, tunnel.free_addresses(phones), options.owner or "", public, added)
        written = _write(tunnel, phone, tunnel.configuration(phone, private_key), options)
        files.keep_phones((*phones, phone))
        interface = Interface(tunnel.interface)
        if interface.is_up:
            interface.let_in(phone)
    addresses = " and ".join(map(str, phone.addresses))
    narrate(f"tokgate: {name} has {addresses}{''.join(f'; written to {visible(each)}' for each in written)}")
    if private_key is not None:
        narrate("tokgate: its private key is in this configuration and nowhere else: show it to the phone alone")
    if not interface.is_up:
        narrate(f"tokgate: {tunnel.interface} is not up: tokgate phone up")
    return Exit.DONE


def _write(tunnel: Tunnel, phone: Phone, configuration: str, options: argparse.Namespace) -> list[str]:
    """Write or print the configuration, before the phone is let in: where that fails nothing has changed."""
    contents = {}
    if options.mobileconfig is not None:
        contents[str(options.mobileconfig)] = mobileconfig(tunnel, phone, configuration)
    if options.config not in (None, "-"):
        contents[options.config] = configuration.encode()
    try:
        for file, content in contents.items():
            with open(file, "xb", opener=partial(os.open, mode=_SECRET)) as made:  # what holds another key stays
                made.write(content)
    except FileExistsError as error:
        raise CommandError(
            f"{visible(str(error.filename))} is there already, and stays as it is", Exit.USAGE
        ) from error
    if options.config == "-":
        sys.stdout.write(configuration)
    elif not contents:
        import segno

        segno.make(configuration, error="l", micro=False).terminal(out=sys.stdout, compact=True)
    return list(contents)


def _revoke(options: argparse.Namespace, files: PhoneFiles) -> Exit:
    """Shut a phone out, first in the kernel, then for the next start and for policies."""
    name: str = options.name
    with files.locked():
        tunnel, phones = files.need_tunnel(), files.phones()
        phone = next((each for each in phones if each.name == name), None)
        if phone is None:
            hint = did_you_mean(name, [each.name for each in phones])
            raise CommandError(f"unknown phone `{visible(name)}`{hint}", Exit.USAGE)
        interface = Interface(tunnel.interface)
        if interface.is_up:
            interface.shut_out(phone)
        now = Instant.now().round("second", mode="floor")
        files.keep_tunnel(replace(tunnel, revoked=(*tunnel.revoked, replace(phone, revoked=now))))
        files.keep_phones(each for each in phones if each is not phone)
    narrate(f"tokgate: {name} is shut out; exemptions that name it hold for nobody now")
    return Exit.DONE


def _list(options: argparse.Namespace, files: PhoneFiles) -> Exit:
    """Print the phones in the order in which they were added."""
    tunnel = files.need_tunnel()
    interface = Interface(tunnel.interface)
    is_up = interface.is_up
    seen = interface.seen() if is_up else {}
    phones = [
        shown(
            PhoneOutput,
            each,
            owner=each.owner or None,
            addresses=[str(address) for address in each.addresses],
            seen=None if (last := seen.get(each.public_key)) is None else utc(last),
        )
        for each in files.phones() + (tunnel.revoked if options.all else ())
    ]
    if options.json:
        printed = PhoneList(interface=tunnel.interface, up=is_up, endpoint=tunnel.endpoint, phones=phones)
        print_json(printed, indent=2, ascii_only=False)
    elif phones:
        told = [{**phone, "addresses": ", ".join(phone["addresses"]), "last seen": phone["seen"]} for phone in phones]
        show_rows(_HEADINGS, [[str(each[name] or "") for name in _HEADINGS] for each in told])
    else:
        narrate("no phones")
    if not is_up:
        narrate(f"tokgate: {tunnel.interface} is not up: tokgate phone up")
    return Exit.DONE
