"""What kinds of values the keys of the format take: each a validator and the JSON Schema that editors see."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema
from whenever import Date, Time, Weekday

from tokgate.config import fields, patterns
from tokgate.config.diagnostics import Code
from tokgate.config.suggest import listed, near
from tokgate.policy.bans import (
    Action,
    ClientsShown,
    EchOuter,
    EncryptedDns,
    MissingSni,
    OnError,
    OnExpiry,
    Overrides,
    UnknownClients,
)
from tokgate.policy.decision import Response, Verdict
from tokgate.policy.names import IPAddress
from tokgate.policy.prefixes import IPNetwork
from tokgate.policy.schedule import Duration, Moment

IDENTIFIER: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What services, networks, bans and exemptions are called."""


def _string(**more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, **more})


def _one_or_list(**item: Any) -> WithJsonSchema:
    item = {"type": "string", **item}
    return WithJsonSchema({"anyOf": [item, {"type": "array", "minItems": 1, "items": item}]})


def _one_of[E: StrEnum](*allowed: E) -> PlainValidator:
    """A validator for a closed set of words."""
    words = {member.value: member for member in allowed}

    def choose(value: Any) -> E:
        written = fields.text(value)
        if written not in words:
            meant = near(written, words)
            hint = f"did you mean `{meant}`? Allowed" if meant else "allowed"
            raise fields.wrong(Code.BAD_VALUE, f"`{written}` is not known here; {hint}: {listed(words)}")
        return words[written]

    return PlainValidator(choose)


def _words(*allowed: StrEnum, meaning: tuple[str, ...]) -> WithJsonSchema:
    """The words in their order, each with its meaning as editors show it beside the word."""
    pairs = list(zip(allowed, meaning, strict=True))
    meanings = [said for _, said in pairs]
    words = [member.value for member, _ in pairs]
    return WithJsonSchema(
        {"type": "string", "enum": words, "enumDescriptions": meanings, "markdownEnumDescriptions": meanings}
    )


_DATE_PATTERN: Final = r"^\d{4}-\d{2}-\d{2}"
_TIME_PATTERN: Final = r"[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?$"

Text = Annotated[str, PlainValidator(fields.text), _string()]
Line = Annotated[str, PlainValidator(fields.one_line), _string(pattern=r"^[^\n]*$")]
Link = Annotated[str, PlainValidator(fields.link), _string(pattern="^https?://", format="uri")]
Flag = Annotated[bool, PlainValidator(fields.flag), WithJsonSchema({"type": "boolean"})]
Identifier = Annotated[str, PlainValidator(fields.text), _string(pattern=IDENTIFIER)]
When = Annotated[Moment, PlainValidator(fields.moment), _string(pattern=f"{_DATE_PATTERN}({_TIME_PATTERN[:-1]})?$")]
Expiry = Annotated[Moment, PlainValidator(fields.expiry), _string(pattern=_DATE_PATTERN + _TIME_PATTERN)]
Until = Annotated[Moment, PlainValidator(fields.until), _string(pattern=_DATE_PATTERN + _TIME_PATTERN)]
Day = Annotated[Date, PlainValidator(fields.date), _string(pattern=_DATE_PATTERN + "$")]
Lasting = Annotated[Duration, PlainValidator(fields.duration), _string(pattern="^[Pp]")]
Continuing = Annotated[Duration, PlainValidator(fields.continuing), _string(pattern="^[Pp]")]
Opening = Annotated[Time, PlainValidator(fields.clock), _string(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
Closing = Annotated[Time, PlainValidator(fields.closing), _string(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")]
DayCount = Annotated[
    int, PlainValidator(fields.day_count), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 36_500})
]
WholePath = Annotated[str, PlainValidator(fields.whole_path), _string(pattern="^/")]
InterfaceName = Annotated[str, PlainValidator(fields.interface), _string(maxLength=15, pattern=r"^[^\s/:*?]+$")]
InventoryFile = Annotated[str, PlainValidator(fields.inventory), _string(pattern=r"\.[Cc][Ss][Vv]$")]
DirectoryUrl = Annotated[str, PlainValidator(fields.directory_url), _string(pattern="^ldaps?://[^/@]+$")]
Names = Annotated[list[Line], Field(min_length=1), BeforeValidator(fields.as_list), _one_or_list(minLength=1)]
Outlet = Annotated[str, PlainValidator(fields.outlet), _string(pattern=r"^(journald|syslog(://[^/]+)?)$")]
Program = Annotated[list[Line], AfterValidator(fields.program)]
Days = Annotated[
    list[Annotated[frozenset[Weekday], PlainValidator(fields.day_range)]],
    Field(min_length=1),
    BeforeValidator(fields.as_list),
    _one_or_list(pattern=rf"^({'|'.join(fields.DAYS)})(-({'|'.join(fields.DAYS)}))?$"),
]
Holidays = Annotated[
    list[Annotated[str, PlainValidator(fields.holiday_code)]],
    Field(min_length=1),
    BeforeValidator(fields.as_list),
    _one_or_list(pattern="^[A-Z]{2,3}(-.+)?$"),
]
Cidr = Annotated[IPNetwork, PlainValidator(fields.cidr), _string()]
ServiceAddress = Annotated[IPNetwork, PlainValidator(patterns.address), _string()]
Client = Annotated[IPAddress, PlainValidator(fields.address), _string()]
Zone = Annotated[str, PlainValidator(fields.timezone), _string()]
ExpiryChoice = Annotated[
    OnExpiry,
    _one_of(*OnExpiry),
    _words(*OnExpiry, meaning=("The ban ends.", "The ban stays in force and is reported as overdue.")),
]
ActionChoice = Annotated[
    Action,
    _one_of(*Action),
    _words(*Action, meaning=("Refused.", "People are warned and may go on.", "Only logged.")),
]
ResponseChoice = Annotated[
    Response,
    _one_of(Response.REFUSE, Response.PAGE),
    _words(
        Response.REFUSE,
        Response.PAGE,
        meaning=(
            "The connection is refused; nothing is decrypted.",
            "The banned name only is decrypted, to show a page: why (status 451), or a warning.",
        ),
    ),
]
UnknownClientsChoice = Annotated[
    UnknownClients,
    _one_of(*UnknownClients),
    _words(*UnknownClients, meaning=("All its traffic passes.", "All its traffic is refused.")),
]
OverridesChoice = Annotated[
    Overrides,
    _one_of(*Overrides),
    _words(*Overrides, meaning=("Exceptions may be made.", "No exceptions: `tokgate override` refuses.")),
]
OnErrorChoice = Annotated[
    OnError,
    _one_of(*OnError),
    _words(*OnError, meaning=("Names of banned services are refused.", "Everything passes.")),
]
MissingSniChoice = Annotated[
    MissingSni,
    _one_of(*MissingSni),
    _words(
        *MissingSni,
        meaning=(
            "It passes.",
            "The address that it goes to decides.",
            "The certificate that the server shows decides.",
            "It is refused.",
        ),
    ),
]
ClientsShownChoice = Annotated[
    ClientsShown,
    _one_of(*ClientsShown),
    _words(
        *ClientsShown,
        meaning=("By address.", "By a keyed pseudonym that changes with time.", "By the network around them."),
    ),
]
EchOuterChoice = Annotated[
    EchOuter,
    _one_of(*EchOuter),
    _words(*EchOuter, meaning=("It passes.", "It is refused.", "It is decrypted to see the name.")),
]
EncryptedDnsChoice = Annotated[
    EncryptedDns,
    _one_of(*EncryptedDns),
    _words(*EncryptedDns, meaning=("Clients under a ban are told that there is none.", "Nothing is done about it.")),
]
VerdictChoice = Annotated[
    Verdict,
    _one_of(*Verdict),
    _words(*Verdict, meaning=("It passes.", "It passes and is logged.", "People are warned.", "It is refused.")),
]

SuffixPattern = Annotated[str, PlainValidator(patterns.suffix), _string()]
ExactPattern = Annotated[str, PlainValidator(patterns.exact), _string()]
LabelPattern = Annotated[str, PlainValidator(patterns.label), _string(pattern=r"^[^.]+$")]
RegexPattern = Annotated[str, PlainValidator(patterns.regex), _string(maxLength=1000)]


def store_id(store: str) -> Any:
    """Identifiers of one store; numbers need no quotes."""
    kinds = ["string", "integer"] if store == "apple" else "string"
    return Annotated[str, PlainValidator(patterns.store_id(store)), WithJsonSchema({"type": kinds})]
