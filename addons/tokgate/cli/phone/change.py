"""Makes and takes out the tunnel, adds and revokes phones."""

import sys
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.phone.files import NETWORK, PhoneFiles, write_secret
from tokgate.cli.terminal import narrate, shown
from tokgate.config.yaml.suggestions import did_you_mean
from tokgate.gateway.phones.interface import Interface
from tokgate.gateway.phones.tunnel import Address, Phone, Tunnel, mobileconfig, new_private_key, public_key
from tokgate.policy.values.prefixes import IPNetwork

_INTERFACE: Final = "wg-tokgate"
_PREFIXES: Final = (ip_network("10.83.0.0/16"), ip_network("fd83:7467:6174:6500::/64"))
"""Private ones (RFC 1918, RFC 4193)."""
_BOTH: Final = [4, 6]


@dataclass(frozen=True, slots=True)
class WantedTunnel:
    """The options of `phone up`. None or empty: as it is, or the default of a new tunnel."""

    endpoint: tuple[str, int] | None
    name_servers: tuple[Address, ...]
    prefixes: tuple[IPNetwork, ...]
    interface: str | None
    masquerade: bool


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a phone's configuration goes; neither: a QR code on stdout. `config` may be `-`."""

    config: str | None
    mobileconfig: Path | None


def up(files: PhoneFiles, wanted: WantedTunnel) -> Exit:
    """Make the tunnel, or bring up the one that was made, with all phones."""
    with files.locked():
        known = files.tunnel()
        tunnel = _made(wanted) if known is None else _changed(known, wanted)
        stated = files.state_network(tunnel)
        if tunnel != known:
            files.keep_tunnel(tunnel)
        phones = files.phones()
        if not phones:
            files.keep_phones(())
        carrier = Interface(tunnel.interface).up(tunnel, phones)
    if stated is not None:
        narrate(f"tokgate: {shown(str(stated))} names the phones as the network `{NETWORK}`: name it in your bans")
    narrate(f"tokgate: {tunnel.interface} is up ({carrier}), {len(phones)} phones, UDP port {tunnel.port}")
    return Exit.DONE


def _made(wanted: WantedTunnel) -> Tunnel:
    if wanted.endpoint is None or not wanted.name_servers:
        raise CommandError("the first time `phone up` needs --endpoint and --dns", Exit.USAGE)
    prefixes = wanted.prefixes or _PREFIXES
    if [each.version for each in prefixes] != _BOTH:
        raise CommandError("a tunnel has one IPv4 and one IPv6 prefix, in this order", Exit.USAGE)
    host, port = wanted.endpoint
    return Tunnel(
        interface=wanted.interface or _INTERFACE,
        private_key=new_private_key(),
        host=host,
        port=port,
        prefixes=prefixes,
        name_servers=wanted.name_servers,
        masquerade=wanted.masquerade,
    )


def _changed(known: Tunnel, wanted: WantedTunnel) -> Tunnel:
    """The tunnel with another endpoint or resolvers, of which phones that are added from now on hear."""
    if wanted.prefixes not in ((), known.prefixes) or wanted.interface not in (None, known.interface):
        raise CommandError("a tunnel keeps its prefixes and interface: phones have them", Exit.USAGE)
    host, port = wanted.endpoint or (known.host, known.port)
    servers = wanted.name_servers or known.name_servers
    return replace(known, host=host, port=port, name_servers=servers, masquerade=known.masquerade and wanted.masquerade)


def down(files: PhoneFiles) -> Exit:
    """Take the tunnel out. Keys and phones stay."""
    tunnel = files.need_tunnel()
    Interface(tunnel.interface).down()
    narrate(f"tokgate: {tunnel.interface} is out")
    return Exit.DONE


def add(files: PhoneFiles, name: str, owner: str, key: str | None, outputs: Outputs) -> Exit:
    """Give a phone keys and addresses, let it in, and print its configuration or write it to files."""
    with files.locked():
        tunnel, phones = files.need_tunnel(), files.phones()
        if any(each.name.casefold() == name.casefold() for each in phones):
            raise CommandError(f"there is a phone `{name}` already: revoke it first", Exit.USAGE)
        private_key = new_private_key() if key is None else None
        public = key or public_key(private_key or "")
        if any(each.public_key == public for each in (*phones, *tunnel.revoked)):
            raise CommandError("another phone has or had this key: a key is one phone's", Exit.USAGE)
        added = Instant.now().round("second", mode="floor")
        phone = Phone(name, tunnel.free_addresses(phones), owner, public, added)
        written = _write(tunnel, phone, tunnel.configuration(phone, private_key), outputs)
        files.keep_phones((*phones, phone))
        interface = Interface(tunnel.interface)
        if interface.is_up:
            interface.let_in(phone)
    addresses = " and ".join(map(str, phone.addresses))
    narrate(f"tokgate: {name} has {addresses}{''.join(f'; written to {shown(each)}' for each in written)}")
    if private_key is not None:
        narrate("tokgate: its private key is in this configuration and nowhere else: show it to the phone alone")
    if not interface.is_up:
        narrate(f"tokgate: {tunnel.interface} is not up: tokgate phone up")
    return Exit.DONE


def _write(tunnel: Tunnel, phone: Phone, configuration: str, outputs: Outputs) -> list[str]:
    """Write or print the configuration, before the phone is let in: where that fails nothing has changed."""
    written = []
    try:
        if outputs.mobileconfig is not None:
            write_secret(outputs.mobileconfig, mobileconfig(tunnel, phone, configuration))
            written.append(str(outputs.mobileconfig))
        if outputs.config not in (None, "-"):
            write_secret(Path(str(outputs.config)), configuration.encode())
            written.append(str(outputs.config))
    except FileExistsError as error:
        raise CommandError(f"{shown(str(error.filename))} is there already, and stays as it is", Exit.USAGE) from error
    if outputs.config == "-":
        sys.stdout.write(configuration)
    elif not written:
        import segno

        segno.make(configuration, error="l", micro=False).terminal(out=sys.stdout, compact=True)
    return written


def revoke(files: PhoneFiles, name: str) -> Exit:
    """Shut a phone out, first in the kernel, then for the next start and for policies."""
    with files.locked():
        tunnel, phones = files.need_tunnel(), files.phones()
        phone = next((each for each in phones if each.name == name), None)
        if phone is None:
            hint = did_you_mean(name, [each.name for each in phones])
            raise CommandError(f"unknown phone `{shown(name)}`{hint}", Exit.USAGE)
        interface = Interface(tunnel.interface)
        if interface.is_up:
            interface.shut_out(phone)
        now = Instant.now().round("second", mode="floor")
        files.keep_tunnel(replace(tunnel, revoked=(*tunnel.revoked, replace(phone, revoked=now))))
        files.keep_phones(each for each in phones if each is not phone)
    narrate(f"tokgate: {name} is shut out; exemptions that name it hold for nobody now")
    return Exit.DONE
