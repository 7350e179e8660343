"""The format of a policy's tests as a pydantic model. Its docstring and descriptions are part of the JSON Schema."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema

from tokgate.config.diagnostics import Code
from tokgate.config.format import parsers
from tokgate.config.format.base import Model
from tokgate.config.format.choices import Choice, VerdictChoice
from tokgate.config.format.field_types import (
    Client,
    Identifier,
    InterfaceName,
    Line,
    Link,
    Names,
    Text,
    When,
)
from tokgate.policy.decision import Reason, Response
from tokgate.policy.values.hostname import DomainName, normalise


class TestTransport(StrEnum):
    """How the traffic of a test comes: as TLS or HTTP, in QUIC, or as a question to tokgate's DNS."""

    __test__ = False

    TCP = "tcp"
    QUIC = "quic"
    DNS = "dns"


class _Sni(StrEnum):
    NONE = "none"


class _Ech(StrEnum):
    OUTER = "outer"


def _status(value: Any) -> int:
    if value not in ("403", "451"):
        raise parsers.wrong(Code.BAD_VALUE, f"`{value}` is no status of a page; allowed: `403`, `451`")
    return int(value)


_Transport = Annotated[
    TestTransport,
    Choice(
        {
            TestTransport.TCP: "TLS, or plain HTTP.",
            TestTransport.QUIC: "QUIC.",
            TestTransport.DNS: "A question to tokgate's DNS.",
        }
    ),
]
_NoSni = Annotated[_Sni, Choice({_Sni.NONE: "No server name."})]
_EchOuter = Annotated[_Ech, Choice({_Ech.OUTER: "The public name of a provider."})]
_AnyResponse = Annotated[
    Response,
    Choice(
        {
            Response.REFUSE: "Refused, undecrypted.",
            Response.PAGE: "With a page.",
            Response.INSPECT: "Decrypted to read what is asked for.",
        }
    ),
]
_REASONS: Final = {
    Reason.NO_SERVICE: "The name belongs to no service.",
    Reason.NO_BAN: "No ban covers it here.",
    Reason.ANNOUNCED: "A ban has not started yet.",
    Reason.OUTSIDE_WINDOW: "A ban is outside its windows.",
    Reason.EXPIRED: "A ban has ended.",
    Reason.EXEMPT: "An exemption takes the client out of the ban.",
    Reason.STORE_FRONT: "A store's own host is opened to read the listing.",
    Reason.BAN_MONITOR: "A ban only logs.",
    Reason.BAN_WARN: "A ban warns.",
    Reason.BAN_BLOCK: "A ban blocks.",
    Reason.BAN_OVERDUE: "A ban is held past its end.",
    Reason.UNKNOWN_CLIENT: "The client is in no network.",
    Reason.INVALID_CLIENT: "The client's address is none.",
    Reason.INVALID_HOST: "The name is no host name.",
    Reason.MISSING_SNI: "The ClientHello named no host.",
    Reason.NAME_CHANGED: "The client named another host than before.",
    Reason.UNREADABLE: "Nobody reads the traffic alike.",
    Reason.ECH_OUTER: "The real name was encrypted.",
    Reason.INTERNAL_ERROR: "Deciding failed.",
    Reason.INVALID_QUERY: "The query could not be read.",
}
_AnyReason = Annotated[Reason, Choice(_REASONS)]
_STATUSES: Final = ["The ban names no authority or basis, or it warns.", "The ban names its authority or basis."]
_Status = Annotated[
    int,
    PlainValidator(_status),
    WithJsonSchema(
        {
            "type": "integer",
            "enum": [403, 451],
            "enumDescriptions": _STATUSES,
            "markdownEnumDescriptions": _STATUSES,
        }
    ),
]


class TestModel(Model):
    """What the policy must decide about some traffic, checked by `tokgate check` with the code of live traffic."""

    __test__ = False
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["host"]}, {"required": ["url"]}]})

    client: Client = Field(description="Address of the client.", examples=["10.32.1.1"])
    host: Text | None = Field(
        default=None,
        description="The name or address it connects to. Default: the host of `url`.",
        examples=["www.tiktok.com"],
    )
    url: Link | None = Field(
        default=None,
        description="The URL it asks for. One with `https` counts only if the policy has the connection opened.",
        examples=["https://play.google.com/store/apps/details?id=com.zhiliaoapp.musically"],
    )
    sni: _NoSni | None = Field(default=None, description="`none`: its ClientHello names no host.")
    ech: _EchOuter | None = Field(
        default=None, description="`outer`: its ClientHello shows only the public name of an ECH provider."
    )
    transport: _Transport = Field(
        default=TestTransport.TCP, description="How it comes: TLS or HTTP, QUIC, or a DNS question."
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
    ban: Identifier | None = Field(default=None, description="The ban that decides.", examples=["tiktok-2023"])
    reason: _AnyReason | None = Field(default=None, description="The reason of the decision.")
    response: _AnyResponse | None = Field(default=None, description="How it is delivered.")
    status: _Status | None = Field(default=None, description="The status of the page that the client reads.")


def sent_name(host: str) -> str:
    """A test's host as a client sends it: normalised, or else unchanged."""
    name = normalise(host)
    return name.value if isinstance(name, DomainName) else host


def dns_query(host: str) -> bytes:
    """A client's DNS question about a test's host. Raises ValueError for a name that no question can hold."""
    import dns.exception  # only a policy with such tests needs it
    import dns.message

    try:
        return dns.message.make_query(sent_name(host), "A").to_wire()
    except dns.exception.DNSException as error:
        raise ValueError(f"`{host}` is no name that can be asked for in DNS") from error
