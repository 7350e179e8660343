"""Networks in policy files: who the clients are, and the addresses and interfaces by which they are known."""

import re
from ipaddress import IPv6Network, ip_network
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from tokgate.config.diagnostics import Code
from tokgate.config.format.times import Zone
from tokgate.config.format.values import (
    IDENTIFIER,
    Identifier,
    Line,
    Model,
    Names,
    OneOf,
    Parsed,
    one_line,
    shown,
    text,
    wrong,
)
from tokgate.policy.values import Language
from tokgate.policy.values.hostname import IPAddress, parse_address
from tokgate.policy.values.prefixes import IPNetwork

_MAPPED: Final = 96
"""Bits in front of an IPv4 address in IPv6 (RFC 4291 §2.5.5.2)."""
_LONGEST_INTERFACE: Final = 15
"""Octets: Linux's IFNAMSIZ without its end."""


def cidr(value: Any) -> IPNetwork:
    """An IPv4 or IPv6 prefix without host bits; an address is a host prefix."""
    written = text(value)
    try:
        network = ip_network(written, strict=False)
    except ValueError:
        hint = "write it as `10.32.0.0/14`, `2001:db8:32::/48` or `192.0.2.7`"
        raise wrong(Code.BAD_CIDR, f"{shown(written)} is no network; {hint}") from None
    if isinstance(network, IPv6Network):
        if "%" in written:
            raise wrong(Code.BAD_CIDR, f"`{written}` has an interface: leave out what follows the `%`")
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= _MAPPED:
            meant = ip_network((mapped, network.prefixlen - 96))
            raise wrong(Code.BAD_CIDR, f"`{written}` is IPv4 in IPv6, which is read as IPv4: write `{meant}`")
    try:
        return ip_network(written)
    except ValueError:
        raise wrong(Code.HOST_BITS, f"`{written}` has host bits set; the network is `{network}`") from None


def excepted(value: Any) -> IPNetwork | str:
    """A prefix, or the name of a network: what reads as an address, or has a `/` or a `:`, is none."""
    written = text(value)
    return cidr(written) if parse_address(written) is not None or set("/:") & set(written) else written


def address(value: Any) -> IPAddress:
    """An IPv4 or IPv6 address of one client."""
    written = text(value)
    parsed = parse_address(written)
    if parsed is None:
        raise wrong(Code.BAD_CIDR, f"{shown(written)} is no address; write it as `10.32.1.1` or `2001:db8:32::1`")
    return parsed


def interface(value: Any) -> str:
    """The name of a network interface, as Linux allows it (dev_valid_name)."""
    written = text(value)
    if len(written.encode()) > _LONGEST_INTERFACE or written in (".", "..") or re.search(r"[\s/:*?]", written):
        raise wrong(Code.BAD_VALUE, f"{shown(written)} is no interface; write its whole name as `eth1` or `eth0.20`")
    return written


def inventory(value: Any) -> str:
    """The path of a CSV file, relative to the policy file that names it."""
    written = one_line(value)
    if not written.casefold().endswith(".csv"):
        raise wrong(Code.BAD_VALUE, f"`{written}` must be a CSV file: `devices.csv`")
    return written


Cidr = Annotated[IPNetwork, Parsed(cidr)]
Excepted = Annotated[IPNetwork | str, Parsed(excepted, "A prefix, or the name of a network.", f"[:/]|{IDENTIFIER}")]
Client = Annotated[IPAddress, Parsed(address)]
InterfaceName = Annotated[
    str, Parsed(interface, "The name of a network interface: `eth0.20`.", r"^[^\s/:*?]+$", maxLength=15)
]
InventoryFile = Annotated[str, Parsed(inventory, "The path of a CSV file: `devices.csv`.", r"\.[Cc][Ss][Vv]$")]


class DevicesModel(Model):
    """Devices of an inventory, a CSV file."""

    file: InventoryFile = Field(
        description="The inventory, a CSV file: its path from this file's folder, or its whole path. Its first row "
        "names the columns: `address` or `mac` or both, and optionally `name`, `owner`, `paid_by`.",
        examples=["devices.csv"],
    )
    paid_by: Names = Field(
        default=[],
        description="Only devices paid for, in whole or in part, by one of these. Default: all devices.",
        examples=[["federal", "shared"]],
    )


CLIENTS_BY: Final = ("cidrs", "users", "groups", "interfaces", "devices", "networks")
"""Keys by which a network lists its clients."""


class NetworkModel(Model):
    """A named set of clients with a time zone: those that any of its statements lists, without those of `except`."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [key]} for key in CLIENTS_BY]})

    title: Line | None = Field(default=None, description="What people call it.", examples=["Offices of the city"])
    language: Annotated[Language, OneOf(*Language)] | None = Field(
        default=None,
        description="The language of the block page for clients that ask for none that it has. Default: `en`.",
    )
    cidrs: Annotated[list[Cidr], Field(min_length=1)] = Field(
        default=[],
        description="The clients' prefixes, without host bits.",
        examples=[["10.32.0.0/14", "2001:db8:32::/48"]],
    )
    users: Names = Field(
        default=[],
        description="Users of an explicit proxy, who prove who they are (`settings.proxy_auth`).",
        examples=[["alice"]],
    )
    groups: Names = Field(
        default=[],
        description="Groups of such users.",
        examples=[["press-office"]],
    )
    interfaces: Annotated[list[InterfaceName], Field(min_length=1)] = Field(
        default=[],
        description="The gateway's interfaces on which its connections arrive; for a VLAN its own interface.",
        examples=[["eth1", "eth0.20"]],
    )
    devices: DevicesModel | None = Field(
        default=None,
        description="Devices of an inventory, by address or hardware address.",
        examples=[{"file": "devices.csv", "paid_by": ["federal", "shared"]}],
    )
    networks: Annotated[list[Identifier], Field(min_length=1)] = Field(
        default=[],
        description="Other networks, whose clients are its own too.",
        examples=[["headquarters", "branches"]],
    )
    excepted: Annotated[list[Excepted], Field(min_length=1)] = Field(
        default=[],
        alias="except",
        description="Prefixes and networks whose clients are not its own, whatever its other statements list.",
        examples=[["10.32.9.0/28", "guests"]],
    )
    timezone: Zone = Field(
        default="UTC",
        description="The zone in which dates, wall times and windows of its bans are read (IANA name). Default: that "
        "of its `networks`, else UTC.",
        examples=["Europe/Brussels"],
    )
