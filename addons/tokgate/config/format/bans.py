"""Bans and exemptions in policy files."""

from itertools import combinations
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema
from whenever import Time, Weekday

from tokgate.config.diagnostics import Code
from tokgate.config.format.networks import Cidr, InterfaceName
from tokgate.config.format.times import (
    Closing,
    Continuing,
    Day,
    Days,
    Expiry,
    Holidays,
    Lasting,
    Opening,
    Until,
    When,
)
from tokgate.config.format.values import (
    IDENTIFIER_SCHEMA,
    Flag,
    Identifier,
    Line,
    Link,
    Model,
    Names,
    OneOf,
    WordedLine,
    WordedText,
    wrong,
)
from tokgate.policy.bans import ALL, CONTINUE_FOR, Action, OnExpiry, Overrides
from tokgate.policy.decision import Response
from tokgate.policy.schedule import Window


class WindowModel(Model):
    """When a ban applies within the week, in the zone of the network. A key that is left out sets no limit."""

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

    def built(self) -> Window:
        """The ranges of days become one set."""
        return Window(**self.values() | {"days": frozenset().union(*self.days)})


def _all_or_some(value: Any) -> Any:
    """`all` is read as an empty list, which nobody can state."""
    if value == []:
        raise wrong(Code.BAD_VALUE, "must not be empty")
    return [] if value == ALL else value


_ALL_OR_SOME: Final = {
    "anyOf": [
        {"const": ALL},
        {"type": "array", "minItems": 1, "items": IDENTIFIER_SCHEMA},
    ]
}
_ENDS: Final = ("expires", "duration", "last_day")


class BanModel(Model):
    """Services × networks × time × action, with its authority and legal basis.

    Dates and wall times are read in the zone of each network, unless they carry an offset.
    """

    model_config = ConfigDict(
        json_schema_extra={"allOf": [{"not": {"required": list(pair)}} for pair in combinations(_ENDS, 2)]}
    )

    title: WordedLine = Field(
        description="What the ban is called on the page and in the log.",
        examples=["TikTok on work devices", {"en": "TikTok on work devices", "nl": "TikTok op werktoestellen"}],
    )
    description: WordedText | None = Field(
        default=None,
        description="Shown on the page: what people should know or do.",
        examples=["Please remove the app from devices that the city pays for."],
    )
    reason: WordedText | None = Field(
        default=None,
        description="Why it is: on the page, in explain, timeline and report, logged as `rule.description`.",
        examples=["To protect the data that the city holds"],
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
    contact: WordedLine | None = Field(default=None, description="Whom to ask.", examples=["servicedesk@example.org"])
    services: Annotated[list[Identifier], BeforeValidator(_all_or_some), WithJsonSchema(_ALL_OR_SOME)] = Field(
        description="What is banned: names of services. `all`: everything that the gateway sees, but `except`.",
        examples=[["tiktok"], "all"],
    )
    excepted: Annotated[list[Identifier], Field(min_length=1)] = Field(
        default=[],
        alias="except",
        description="With `services: all`: the services that stay reachable.",
        examples=[["library", "payroll"]],
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
    extends: Identifier | None = Field(
        default=None,
        description="The ban that this one extends: `starts` must be the instant at which that ends, so that there is "
        "no gap and no overlap. Page, status and timeline tell both as one story.",
        examples=["tiktok-2023"],
    )
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
    on_expiry: Annotated[OnExpiry, OneOf(*OnExpiry)] = Field(
        default=OnExpiry.LAPSE,
        description="`lapse`: the ban ends. `hold`: it stays in force and is reported as overdue.",
    )
    windows: list[WindowModel] = Field(
        default=[],
        description="At which times of the week it applies. Default: always.",
        examples=[[{"days": "mon-fri", "from": "08:00", "to": "18:00"}]],
    )
    action: Annotated[Action, OneOf(*Action)] = Field(
        default=Action.BLOCK,
        description="What is done from `starts` on.",
    )
    response: Annotated[Response, OneOf(Response.REFUSE, Response.PAGE)] = Field(
        default=Response.REFUSE,
        description="`refuse`: the connection is refused, nothing is decrypted. `page`: this name only is decrypted, "
        "to show a page: why it is refused (status 451 where the ban names an authority or a basis, else 403), or, "
        "while the ban warns, a warning with a button to continue.",
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
    overrides: Annotated[Overrides, OneOf(*Overrides)] = Field(
        default=Overrides.ALLOWED,
        description="Whether `tokgate override` may make exceptions while the ban is in force.",
    )


EXEMPT_BY: Final = ("clients", "users", "groups", "devices", "interfaces")
"""Keys by which an exemption lists its clients."""


class ExemptionModel(Model):
    """Takes some clients out of one ban, for a stated reason and until a stated end."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [key]} for key in EXEMPT_BY]})

    ban: Identifier = Field(description="Name of the ban.", examples=["tiktok-2023"])
    clients: Annotated[list[Cidr], Field(min_length=1)] = Field(
        default=[], description="Who is exempt, by address.", examples=[["10.32.9.0/28"]]
    )
    users: Names = Field(default=[], description="Users of an explicit proxy who are exempt.", examples=[["alice"]])
    groups: Names = Field(default=[], description="Groups of such users.", examples=[["press-office"]])
    devices: Names = Field(
        default=[],
        description="Devices, by their name in an inventory of the policy or by hardware address.",
        examples=[["laptop-7", "00:53:00:aa:bb:cc"]],
    )
    interfaces: Annotated[list[InterfaceName], Field(min_length=1)] = Field(
        default=[], description="The gateway's interfaces on which their connections arrive.", examples=[["eth0.20"]]
    )
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


class LiftedModel(Model):
    """A ban that was taken out of the policy before its end. Without this a running tokgate keeps it in force."""

    ban: Identifier = Field(description="Name of the ban that was taken out.", examples=["tiktok-2023"])
    reason: Line = Field(description="Why.", examples=["Repealed by decision 14 of 2 May 2023"])
    by: Line | None = Field(default=None, description="Who decided it.", examples=["alice"])
