"""The tests in policy files: their format, and what one asks for. `traffic.policy_tests` runs them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field
from whenever import Instant

from tokgate.config.diagnostics import Code
from tokgate.config.format.networks import Client, InterfaceName
from tokgate.config.format.times import When
from tokgate.config.format.values import Identifier, Line, Link, Model, Names, OneOf, Parsed, Text, wrong
from tokgate.policy.decision import Reason, Response, Verdict
from tokgate.policy.membership import Identity
from tokgate.policy.values import Origin, Word
from tokgate.policy.values.hostname import DomainName, normalise


class TestTransport(Word):
    """How the traffic of a test comes: as TLS or HTTP, in QUIC, or as a question to tokgate's DNS."""

    __test__ = False

    TCP = "tcp", "TLS, or plain HTTP."
    QUIC = "quic", "QUIC."
    DNS = "dns", "A question to tokgate's DNS."


class _Sni(Word):
    NONE = "none", "No server name."


class _Ech(Word):
    OUTER = "outer", "The public name of a provider."


def _status(value: Any) -> int:
    if value not in ("403", "451"):
        raise wrong(Code.BAD_VALUE, f"`{value}` is no status of a page; allowed: `403`, `451`")
    return int(value)


_STATUSES: Final = ["The ban names no authority or basis, or it warns.", "The ban names its authority or basis."]
_Status = Annotated[
    int,
    Parsed(_status, type="integer", enum=[403, 451], enumDescriptions=_STATUSES, markdownEnumDescriptions=_STATUSES),
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
    sni: Annotated[_Sni, OneOf(*_Sni)] | None = Field(default=None, description="`none`: its ClientHello has no name.")
    ech: Annotated[_Ech, OneOf(*_Ech)] | None = Field(
        default=None, description="`outer`: its ClientHello shows only the public name of an ECH provider."
    )
    transport: Annotated[TestTransport, OneOf(*TestTransport)] = Field(
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
    expect: Annotated[Verdict, OneOf(*Verdict)] = Field(description="The verdict.")
    ban: Identifier | None = Field(default=None, description="The ban that decides.", examples=["tiktok-2023"])
    reason: Annotated[Reason, OneOf(*Reason)] | None = Field(default=None, description="The reason of the decision.")
    response: Annotated[Response, OneOf(*Response)] | None = Field(default=None, description="How it is delivered.")
    status: _Status | None = Field(default=None, description="The status of the page that the client reads.")


EXPECTED: Final = ("ban", "reason", "response", "status")
"""What a test may expect besides the verdict."""


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One entry under `tests:`. `host` is a name or an address, as it was written."""

    client: str
    host: str
    url: str | None
    at: Instant
    expect: Verdict
    origin: Origin
    identity: Identity | None = None
    transport: TestTransport = TestTransport.TCP
    nameless: bool = False
    """The ClientHello names no host."""
    ech_outer: bool = False
    """The ClientHello names an ECH provider alone."""
    expected: Mapping[str, str | int] = MappingProxyType({})
    """What else is expected: `ban`, `reason`, `response`, `status`."""


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
