"""The format of policy files as pydantic models: every key with its meaning, for validation and for the JSON Schema.

Scalars arrive as the text that was written; each key says what its text means.
"""

from itertools import combinations
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema, create_model
from whenever import Time, Weekday

from tokgate.config import fields, patterns
from tokgate.config.diagnostics import Code
from tokgate.config.model_base import Model
from tokgate.config.settings_models import SettingsModel
from tokgate.config.values import (
    ActionChoice,
    Cidr,
    Client,
    Closing,
    Continuing,
    Day,
    Days,
    ExactPattern,
    Expiry,
    ExpiryChoice,
    Flag,
    Holidays,
    Identifier,
    InterfaceName,
    InventoryFile,
    LabelPattern,
    Lasting,
    Line,
    Link,
    Names,
    Opening,
    OverridesChoice,
    RegexPattern,
    ResponseChoice,
    ServiceAddress,
    SuffixPattern,
    Text,
    Until,
    VerdictChoice,
    When,
    Zone,
    store_id,
)
from tokgate.policy.bans import (
    CONTINUE_FOR,
    Action,
    OnExpiry,
    Overrides,
)
from tokgate.policy.decision import Response


class NamesModel(Model):
    """Name patterns. They match whole labels of a host name, never parts of a word."""

    suffix: list[SuffixPattern] = Field(
        default=[], description="These names and all names below them. No public suffixes.", examples=[["tiktok.com"]]
    )
    exact: list[ExactPattern] = Field(
        default=[], description="These names alone.", examples=[["analytics.example.org"]]
    )
    label: list[LabelPattern] = Field(
        default=[],
        description="The label registered under any public suffix: `tiktok` matches tiktok.com, tiktok.co.uk and all "
        "names below them.",
        examples=[["tiktok"]],
    )
    regex: list[RegexPattern] = Field(
        default=[],
        description="Regular expressions (RE2 syntax, linear time) that match the whole name, in lower case, without "
        "a trailing dot.",
        examples=[["p16-(va|sg)-default\\.akamaized\\.net"]],
    )


_STORE_IDS: Any = {
    name: (
        list[store_id(name)],  # type: ignore[misc]
        Field(default=[], description=f"Listings in `{name}`.", examples=[[patterns.STORE_EXAMPLES.get(name, "…")]]),
    )
    for name in patterns.STORE_NAMES
}
StoresModel: Any = create_model("StoresModel", __base__=Model, __doc__="An app's identifiers, by store.", **_STORE_IDS)


class ServiceModel(Model):
    """A named set of name patterns, addresses and store listings."""

    title: Line | None = Field(default=None, description="What people call it. Default: the name.", examples=["TikTok"])
    description: Text | None = Field(
        default=None, description="For those who read the policy.", examples=["The app, its site and its API"]
    )
    names: NamesModel = Field(
        default_factory=NamesModel,
        description="Which host names belong to it.",
        examples=[{"suffix": ["tiktok.com"], "label": ["tiktok"]}],
    )
    addresses: list[ServiceAddress] = Field(
        default=[], description="Prefixes that belong to this service alone.", examples=[["192.0.2.0/24"]]
    )
    store: StoresModel = Field(
        default_factory=StoresModel,
        description="App store listings: what `inspect_stores` looks for.",
        examples=[{"apple": ["835599320"]}],
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


CLIENTS_BY: Final = ("cidrs", "users", "groups", "interfaces", "devices")
"""What a network can name its clients by."""


class NetworkModel(Model):
    """A named set of clients with a time zone. A client is in it if any of its statements names the client."""

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
    timezone: Zone = Field(
        default="UTC",
        description="The zone in which dates, wall times and windows of its bans are read (IANA name).",
        examples=["Europe/Brussels"],
    )


class WindowModel(Model):
    """When a ban applies within the week, in the zone of the network. What is left out is not limited."""

    days: Days = Field(
        default=[frozenset(Weekday)],
        description="A day, a range (`mon-fri`, `sat-mon`) or a list of these. A window belongs to the day on which it "
        "begins. Default: every day.",
        examples=["mon-fri", ["mon", "wed-fri"]],
    )
    start: Opening = Field(
        default=Time.MIN, alias="from", description="First minute, `HH:MM`. Default: 00:00.", examples=["08:00"]
    )
    end: Closing = Field(
        default=Time.MIN,
        alias="to",
        description="End, exclusive, `HH:MM`; if not after `from`, it is on the next day. Default: 24:00.",
        examples=["18:00", "24:00"],
    )
    except_holidays: Holidays = Field(
        default=[],
        description="No window begins on public holidays of these countries (`BE`) or subdivisions (`DE-BY`).",
        examples=["BE", ["BE", "LU"]],
    )


_ENDS: Final = ("expires", "duration", "last_day")


class BanModel(Model):
    """Services × networks × time × action, with its authority and legal basis.

    Dates and wall times are read in the zone of each network, unless they carry an offset.
    """

    model_config = ConfigDict(
        json_schema_extra={"allOf": [{"not": {"required": list(pair)}} for pair in combinations(_ENDS, 2)]}
    )

    title: Line = Field(
        description="What the ban is called on the page and in the log.", examples=["TikTok on work devices"]
    )
    description: Text | None = Field(
        default=None,
        description="Shown on the page: what people should know or do.",
        examples=["Please remove the app from devices that the city pays for."],
    )
    authority: Line | None = Field(
        default=None, description="Who decided.", examples=["Belgian National Security Council"]
    )
    basis: Line | None = Field(
        default=None, description="On which legal basis.", examples=["Circular 716 of 17 March 2023"]
    )
    reference: Link | None = Field(
        default=None,
        description="Where to read it; shown on the page, logged as `rule.reference`.",
        examples=["https://www.example.org/decisions/12"],
    )
    contact: Line | None = Field(default=None, description="Whom to ask.", examples=["servicedesk@example.org"])
    services: list[Identifier] = Field(
        min_length=1, description="What is banned: names of services.", examples=[["tiktok"]]
    )
    networks: list[Identifier] = Field(min_length=1, description="For whom: names of networks.", examples=[["offices"]])
    announced: When | None = Field(
        default=None,
        description="When the ban becomes known, without effect yet. Default: always known.",
        examples=["2023-03-01"],
    )
    monitor_from: When | None = Field(
        default=None, description="From when hits are logged, before it starts.", examples=["2023-03-06"]
    )
    warn_from: When | None = Field(
        default=None, description="From when people are warned, before it starts.", examples=["2023-03-08T08:00"]
    )
    starts: When = Field(description="From when `action` applies.", examples=["2023-03-10", "2023-03-10T00:00"])
    expires: Expiry | None = Field(
        default=None,
        description="First instant after the ban. Give at most one of `expires`, `duration` and "
        "`last_day`; none: until lifted.",
        examples=["2023-09-10T00:00", "2023-09-10T00:00+02:00"],
    )
    duration: Lasting | None = Field(
        default=None,
        description="How long it lasts from `starts` (ISO 8601; months are calendar months).",
        examples=["P6M", "P2W", "PT36H"],
    )
    last_day: Day | None = Field(
        default=None, description="Last day on which it applies, inclusive.", examples=["2023-09-09"]
    )
    on_expiry: ExpiryChoice = Field(
        default=OnExpiry.LAPSE,
        description="`lapse`: the ban ends. `hold`: it stays in force and is reported as overdue.",
    )
    windows: list[WindowModel] = Field(
        default=[],
        description="At which times of the week it applies. Default: always.",
        examples=[[{"days": "mon-fri", "from": "08:00", "to": "18:00"}]],
    )
    action: ActionChoice = Field(
        default=Action.BLOCK,
        description="What is done from `starts` on.",
    )
    response: ResponseChoice = Field(
        default=Response.REFUSE,
        description="`refuse`: the connection is refused, nothing is decrypted. `page`: this name only is decrypted, "
        "to show a page: why it is refused (status 451), or, while the ban warns, a warning with a button to continue.",
    )
    continue_for: Continuing = Field(
        default_factory=lambda: CONTINUE_FOR,
        description="How long a client that continues past the page of a warning is not shown it again (ISO 8601, "
        "`PT1M` to `P30D`). Default: `PT8H`.",
        examples=["PT8H", "P1D"],
    )
    inspect_stores: Flag = Field(
        default=False,
        description="Open the app stores' own web hosts to refuse the listings of banned apps; other listings pass.",
    )
    overrides: OverridesChoice = Field(
        default=Overrides.ALLOWED,
        description="Whether `tokgate override` may make exceptions while the ban is in force.",
    )


class ExemptionModel(Model):
    """A reasoned hole in one ban for some clients. It always ends."""

    ban: Identifier = Field(description="Name of the ban.", examples=["tiktok-2023"])
    clients: list[Cidr] = Field(min_length=1, description="Who is exempt.", examples=[["10.32.9.0/28"]])
    starts: When | None = Field(default=None, description="From when. Default: always.", examples=["2023-06-01T08:00"])
    until: Until = Field(description="First instant at which it no longer holds.", examples=["2023-06-30T18:00"])
    reason: Line = Field(description="Why.", examples=["Monitoring of public statements"])
    ticket: Line | None = Field(default=None, description="Where the request was made.", examples=["REQ-1234"])
    by: Line | None = Field(default=None, description="Who made it.", examples=["alice"])
    ended_by: Line | None = Field(
        default=None, description="Who ended it early: `until` is then when.", examples=["alice"]
    )
    override: Flag = Field(
        default=False,
        description="Made by `tokgate override`: its start and end are logged, its length and its ban are checked.",
    )


class TestModel(Model):
    """What the policy must decide: run by `tokgate check`."""

    __test__ = False
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["host"]}, {"required": ["url"]}]})

    client: Client = Field(description="Address of the client.", examples=["10.32.1.1"])
    host: Text | None = Field(
        default=None, description="The name it asks for. Default: the host of `url`.", examples=["www.tiktok.com"]
    )
    url: Link | None = Field(
        default=None,
        description="The URL it asks for, where one is seen.",
        examples=["https://play.google.com/store/apps/details?id=com.zhiliaoapp.musically"],
    )
    user: Line | None = Field(
        default=None, description="The user that it has proved to be, with an explicit proxy.", examples=["alice"]
    )
    groups: Names = Field(default=[], description="The groups of that user.", examples=[["press-office"]])
    device: Line | None = Field(
        default=None,
        description="Its hardware address, or the name of a device in an inventory.",
        examples=["00:53:00:aa:bb:cc", "laptop-7"],
    )
    interface: InterfaceName | None = Field(
        default=None, description="The gateway's interface by which it comes.", examples=["eth0.20"]
    )
    at: When = Field(
        description="When; without an offset in the zone of the narrowest network that holds the client, else UTC.",
        examples=["2023-03-09T23:59:59+01:00"],
    )
    expect: VerdictChoice = Field(description="The verdict.")


def _format_version(value: Any) -> int:
    if value != "1":
        raise fields.wrong(Code.FORMAT_VERSION, "unknown version of the policy format; this program reads `version: 1`")
    return 1


class PolicyFile(Model):
    """A tokgate policy file. A policy is all files of a folder together; any file may hold any section."""

    version: Annotated[Literal[1], PlainValidator(_format_version), WithJsonSchema({"const": 1})] = Field(
        default=1, description="Version of the format."
    )
    services: dict[Identifier, ServiceModel] = Field(
        default={},
        description="What can be banned, by name.",
        examples=[{"tiktok": {"title": "TikTok", "names": {"suffix": ["tiktok.com"]}}}],
    )
    networks: dict[Identifier, NetworkModel] = Field(
        default={},
        description="Who can be under a ban, by name.",
        examples=[{"offices": {"cidrs": ["10.32.0.0/14"], "timezone": "Europe/Brussels"}}],
    )
    bans: dict[Identifier, BanModel] = Field(
        default={},
        description="What is banned for whom and when, by name.",
        examples=[
            {
                "tiktok-2023": {
                    "title": "TikTok on work devices",
                    "services": ["tiktok"],
                    "networks": ["offices"],
                    "starts": "2023-03-10T00:00",
                    "duration": "P6M",
                }
            }
        ],
    )
    exemptions: dict[Identifier, ExemptionModel] = Field(
        default={},
        description="Time-limited holes in bans, by name.",
        examples=[
            {
                "press-office": {
                    "ban": "tiktok-2023",
                    "clients": ["10.32.9.0/28"],
                    "until": "2023-06-30T18:00",
                    "reason": "Monitoring of public statements",
                }
            }
        ],
    )
    settings: SettingsModel = Field(
        default_factory=SettingsModel,
        description="What holds for the whole policy; each key in one file only.",
        examples=[{"on_error": "block"}],
    )
    tests: list[TestModel] = Field(
        default=[],
        description="What the policy must decide, checked by `tokgate check`.",
        examples=[
            [{"client": "10.32.1.1", "host": "www.tiktok.com", "at": "2023-03-10T00:00+01:00", "expect": "block"}]
        ],
    )
