"""The types of values in the policy format: for each a validator and its JSON Schema."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Final, get_args

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from whenever import Date, Time, Weekday

from tokgate.config.format import address_parsers, name_patterns, parsers, time_parsers
from tokgate.policy.schedule import Duration, Moment
from tokgate.policy.settings import Destination, PortRange, UpstreamKind
from tokgate.policy.values.hostname import IPAddress
from tokgate.policy.values.prefixes import NAT64_LENGTHS, IPNetwork

IDENTIFIER: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Names of services, networks, bans and exemptions."""


def _string(**more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, **more})


def _integer(first: int, last: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": first, "maximum": last})


def _one_or_list(**item: Any) -> WithJsonSchema:
    item = {"type": "string", **item}
    return WithJsonSchema({"anyOf": [item, {"type": "array", "minItems": 1, "items": item}]})


_DATE_PATTERN: Final = r"^\d{4}-\d{2}-\d{2}"
_TIME_PATTERN: Final = r"[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?$"

_NAT64_PATTERN: Final = rf"/({'|'.join(map(str, NAT64_LENGTHS))})$"

Text = Annotated[str, PlainValidator(parsers.text), _string()]
Line = Annotated[
    str, PlainValidator(parsers.one_line), _string(patternErrorMessage="One line of text.", pattern=r"^[^\n]*$")
]
Link = Annotated[
    str,
    PlainValidator(parsers.link),
    _string(patternErrorMessage="A web address: `https://…`", pattern="^https?://", format="uri"),
]
Flag = Annotated[bool, PlainValidator(parsers.flag), WithJsonSchema({"type": "boolean"})]
Identifier = Annotated[
    str,
    PlainValidator(parsers.text),
    _string(
        patternErrorMessage="Letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first.",
        pattern=IDENTIFIER,
    ),
]
When = Annotated[
    Moment,
    PlainValidator(time_parsers.moment),
    _string(
        patternErrorMessage="A date or a time: `2023-03-10`, `2023-03-10T08:00`, `2023-03-10T08:00+01:00`.",
        pattern=f"{_DATE_PATTERN}({_TIME_PATTERN[:-1]})?$",
    ),
]
Expiry = Annotated[
    Moment,
    PlainValidator(time_parsers.expiry),
    _string(
        patternErrorMessage="A date with a time of day: `2023-09-10T00:00`. For a day included: `last_day`.",
        pattern=_DATE_PATTERN + _TIME_PATTERN,
    ),
]
Until = Annotated[
    Moment,
    PlainValidator(time_parsers.until),
    _string(
        patternErrorMessage="A date with a time of day: `2023-09-10T00:00`.", pattern=_DATE_PATTERN + _TIME_PATTERN
    ),
]
Day = Annotated[
    Date,
    PlainValidator(time_parsers.date),
    _string(patternErrorMessage="A date: `2023-09-09`.", pattern=_DATE_PATTERN + "$"),
]
Lasting = Annotated[
    Duration,
    PlainValidator(time_parsers.duration),
    _string(patternErrorMessage="A duration in ISO 8601: `P6M`, `P2W`, `PT36H`.", pattern="^[Pp]"),
]
Continuing = Annotated[
    Duration,
    PlainValidator(time_parsers.continuing),
    _string(patternErrorMessage="A duration in ISO 8601: `PT8H`, `P1D`.", pattern="^[Pp]"),
]
Opening = Annotated[
    Time,
    PlainValidator(time_parsers.clock),
    _string(patternErrorMessage="A time of day: `08:00`.", pattern=r"^([01]\d|2[0-3]):[0-5]\d$"),
]
Closing = Annotated[
    Time,
    PlainValidator(time_parsers.closing),
    _string(patternErrorMessage="A time of day: `18:00`, or `24:00`.", pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$"),
]
DayCount = Annotated[int, PlainValidator(parsers.number_of("days", 1, 36_500)), _integer(1, 36_500)]
ConnectionCount = Annotated[
    int, PlainValidator(parsers.number_of("connections", 1, 10_000_000)), _integer(1, 10_000_000)
]
ProbeInterval = Annotated[int, PlainValidator(parsers.number_of("seconds", 1, 3600)), _integer(1, 3600)]
GroupSize = Annotated[int, PlainValidator(parsers.number_of("clients", 1, 10_000)), _integer(1, 10_000)]
Mebibytes = Annotated[int, PlainValidator(parsers.number_of("MiB", 0, 1 << 20)), _integer(0, 1 << 20)]
Ports = Annotated[
    PortRange,
    PlainValidator(address_parsers.ports),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65_535},
                {
                    "type": "string",
                    "pattern": r"^[1-9]\d{0,4}-[1-9]\d{0,4}$",
                    "patternErrorMessage": "A port, or a range of ports: `8000-8010`.",
                },
            ]
        }
    ),
]
WholePath = Annotated[
    str, PlainValidator(parsers.whole_path), _string(patternErrorMessage="A whole path: `/…`", pattern="^/")
]
InterfaceName = Annotated[
    str,
    PlainValidator(address_parsers.interface),
    _string(maxLength=15, patternErrorMessage="The name of a network interface: `eth0.20`.", pattern=r"^[^\s/:*?]+$"),
]
InventoryFile = Annotated[
    str,
    PlainValidator(parsers.inventory),
    _string(patternErrorMessage="The path of a CSV file: `devices.csv`.", pattern=r"\.[Cc][Ss][Vv]$"),
]
DirectoryUrl = Annotated[
    str,
    PlainValidator(parsers.directory_url),
    _string(patternErrorMessage="`ldaps://…` or `ldap://…`, without a user.", pattern="^ldaps?://[^/@]+$"),
]
Names = Annotated[list[Line], Field(min_length=1), BeforeValidator(parsers.as_list), _one_or_list(minLength=1)]
Outlet = Annotated[
    str,
    PlainValidator(parsers.outlet),
    _string(
        patternErrorMessage="`journald`, `syslog` or `syslog://host:port`.", pattern=r"^(journald|syslog(://[^/]+)?)$"
    ),
]

Days = Annotated[
    list[Annotated[frozenset[Weekday], PlainValidator(time_parsers.day_range)]],
    Field(min_length=1),
    BeforeValidator(parsers.as_list),
    _one_or_list(
        patternErrorMessage="A day or a range: `mon`, `mon-fri`.",
        pattern=rf"^({'|'.join(time_parsers.DAYS)})(-({'|'.join(time_parsers.DAYS)}))?$",
    ),
]
Holidays = Annotated[
    list[Annotated[str, PlainValidator(time_parsers.holiday_code)]],
    Field(min_length=1),
    BeforeValidator(parsers.as_list),
    _one_or_list(patternErrorMessage="A country or subdivision: `BE`, `DE-BY`.", pattern="^[A-Z]{2,3}(-.+)?$"),
]
Cidr = Annotated[IPNetwork, PlainValidator(address_parsers.cidr), _string()]
Excepted = Annotated[
    IPNetwork | str,
    PlainValidator(address_parsers.excepted),
    _string(patternErrorMessage="A prefix, or the name of a network.", pattern=f"[:/]|{IDENTIFIER}"),
]
ParentProxy = Annotated[
    tuple[UpstreamKind, str, int],
    PlainValidator(address_parsers.parent_proxy),
    _string(
        patternErrorMessage="A proxy with its port: `http://proxy.example.org:3128`, `socks5://…`.",
        pattern=r"^(http|socks5)://[^/@]+:[0-9]+$",
    ),
]
ReachedThere = Annotated[Destination, PlainValidator(address_parsers.destination), _string()]
Nat64Prefix = Annotated[
    IPv6Network,
    PlainValidator(address_parsers.nat64_prefix),
    _string(
        patternErrorMessage="An IPv6 prefix of a length that RFC 6052 knows: `2001:db8:64::/96`.",
        pattern=_NAT64_PATTERN,
    ),
]
CanaryIPv4 = Annotated[IPv4Network, PlainValidator(address_parsers.canary_ipv4), _string()]
CanaryIPv6 = Annotated[IPv6Network, PlainValidator(address_parsers.canary_ipv6), _string()]
ServiceAddress = Annotated[IPNetwork, PlainValidator(name_patterns.address), _string()]
Client = Annotated[IPAddress, PlainValidator(address_parsers.address), _string()]
Zone = Annotated[
    str,
    PlainValidator(time_parsers.timezone),
    WithJsonSchema({"type": "string", "anyOf": [{"enum": list(time_parsers.zones_listed())}]}),
]

SuffixPattern = Annotated[str, PlainValidator(name_patterns.suffix), _string()]
ExactPattern = Annotated[str, PlainValidator(name_patterns.exact), _string()]
LabelPattern = Annotated[
    str,
    PlainValidator(name_patterns.label),
    _string(patternErrorMessage="One label, without dots: `tiktok`.", pattern=r"^[^.]+$"),
]
RegexPattern = Annotated[str, PlainValidator(name_patterns.regex), _string(maxLength=1000)]
_NAME_FILE: Final = {
    "type": "object",
    "properties": {
        "file": {
            "type": "string",
            "minLength": 1,
            "description": "A file with one of them a line, beside the policy file or below its folder.",
        }
    },
    "required": ["file"],
    "additionalProperties": False,
}


def patterns(kind: Any) -> Any:
    """The type of a service's patterns of one kind: a list of them and of files of them, or one file."""
    _, validator, schema = get_args(kind)
    parse, item = validator.func, schema.json_schema
    shape = {"anyOf": [{"type": "array", "items": {"anyOf": [item, _NAME_FILE]}}, _NAME_FILE]}
    one = Annotated[str | name_patterns.NameFile, PlainValidator(name_patterns.or_file(parse))]
    return Annotated[list[one], BeforeValidator(parsers.file_as_list), WithJsonSchema(shape)]


def store_id(store: str) -> Any:
    """The type of identifiers of one store; Apple's are numbers, which need no quotes."""
    kinds = ["string", "integer"] if store == "apple" else "string"
    return Annotated[str, PlainValidator(name_patterns.store_id(store)), WithJsonSchema({"type": kinds})]
