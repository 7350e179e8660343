"""Networks in policy files: who the clients are."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from tokgate.config.format.base import Model
from tokgate.config.format.field_types import (
    Cidr,
    Excepted,
    Identifier,
    InterfaceName,
    InventoryFile,
    Line,
    Names,
    Zone,
)


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
