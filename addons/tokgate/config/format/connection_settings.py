"""The format of those `settings:` that say how clients reach a gate, and how it reaches destinations."""

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, ClassVar, Final

from pydantic import BeforeValidator, ConfigDict, Field

from tokgate.config.diagnostics import Code
from tokgate.config.format.networks import Cidr, address, cidr
from tokgate.config.format.services import suffix
from tokgate.config.format.values import (
    Flag,
    Line,
    Model,
    Number,
    OneOf,
    Parsed,
    WholePath,
    as_list,
    one_line,
    one_or_list,
    server,
    shown,
    text,
    wrong,
)
from tokgate.policy.settings import (
    WEB_PORTS,
    CanarySettings,
    Destination,
    Directory,
    EgressSettings,
    GatewaySettings,
    LimitSettings,
    PacSettings,
    Passage,
    PortRange,
    ProxyAuth,
    Upstream,
)
from tokgate.policy.values.hostname import DomainName, IPAddress, normalise
from tokgate.policy.values.prefixes import IPNetwork

_PORTS: Final = re.compile("([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?")
_LAST_PORT: Final = 65_535
_CANARY_ADDRESSES: Final = 8
"""Its two links have four addresses each."""


def canary_prefix(version: type[IPNetwork], example: str) -> Callable[[Any], IPNetwork]:
    """A parser of prefixes of at least 8 addresses, of IPv4 or IPv6."""

    def parse(value: Any) -> IPNetwork:
        prefix = cidr(value)
        if not isinstance(prefix, version) or prefix.num_addresses < _CANARY_ADDRESSES:
            least = f"an {version.__name__[:4]} prefix of at least {_CANARY_ADDRESSES} addresses"
            raise wrong(Code.BAD_CIDR, f"`{prefix}` is not {least}, such as `{example}`")
        return prefix

    return parse


def ports(value: Any) -> PortRange:
    """A TCP port, or a range of them with both ends included."""
    written = text(value)
    found = _PORTS.fullmatch(written)
    first, last = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if not 1 <= first <= last <= _LAST_PORT:
        raise wrong(Code.BAD_VALUE, f"must be a port from 1 to 65535, or a range as `8000-8010`, not {shown(written)}")
    return PortRange(first, last)


def parent_proxy(value: Any) -> tuple[str, int]:
    """Host and port in the URL of a parent proxy."""
    written = one_line(value)
    host, port = server(written, "http") or ("", None)
    if port is None:
        more = "; credentials stand in a file (`credentials`)" if "@" in written else ""
        raise wrong(Code.BAD_VALUE, f"write a parent proxy as `http://proxy.example.org:3128`{more}")
    return host, port


def destination(value: Any) -> Destination:
    """A prefix or an address, or a name, which stands for those below it as well."""
    written = text(value)
    if re.fullmatch(r"[0-9.]+(/[0-9]+)?|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(/[0-9]+)?", written):
        return cidr(written)
    name = normalise(written.removeprefix("*.").removeprefix("."))
    if not isinstance(name, DomainName):
        raise wrong(Code.BAD_VALUE, f"{shown(written)} is neither a prefix nor a host name")
    return str(name)


def directory_url(value: Any) -> str:
    """The URL of an LDAP directory: scheme, host and port."""
    written = one_line(value)
    if server(written, "ldap", "ldaps") is None:
        raise wrong(Code.BAD_VALUE, f"`{written}` is no directory; write it as `ldaps://ldap.example.org`")
    return written


ConnectionCount = Annotated[int, Number("connections", 1, 10_000_000)]
ReachedThere = Annotated[Destination, Parsed(destination)]
Ports = Annotated[
    PortRange,
    Parsed(
        ports,
        anyOf=[
            {"type": "integer", "minimum": 1, "maximum": _LAST_PORT},
            {
                "type": "string",
                "pattern": r"^[1-9]\d{0,4}-[1-9]\d{0,4}$",
                "patternErrorMessage": "A port, or a range of ports: `8000-8010`.",
            },
        ],
    ),
]
ParentProxy = Annotated[
    tuple[str, int],
    Parsed(parent_proxy, "A proxy with its port: `http://proxy.example.org:3128`.", r"^http://[^/@]+:[0-9]+$"),
]
DirectoryUrl = Annotated[str, Parsed(directory_url, "`ldaps://…` or `ldap://…`, without a user.", "^ldaps?://[^/@]+$")]


class CanaryModel(Model):
    """The gateway's canary: a client of its own that tries a banned name and an allowed one again and again."""

    makes: ClassVar = CanarySettings

    enabled: Flag = Field(default=CanarySettings().enabled, description="Whether there is one.")
    seconds: Annotated[int, Number("seconds", 1, 3600)] = Field(
        default=CanarySettings().seconds,
        description="Between two probes, 1 to 3600. Enforcement that stopped is red within two of them. Default: `60`.",
        examples=[30],
    )
    ipv4: Annotated[IPv4Network, Parsed(canary_prefix(IPv4Network, "10.99.99.0/29"))] = Field(
        default=CanarySettings().ipv4,
        description="A prefix of at least 8 addresses that nothing else here uses. Default: `198.18.116.0/29`.",
        examples=["10.99.99.0/29"],
    )
    ipv6: Annotated[IPv6Network, Parsed(canary_prefix(IPv6Network, "fd00:99::/64"))] = Field(
        default=CanarySettings().ipv6,
        description="A prefix of at least 8 addresses that nothing else here uses. Default: "
        "`fd74:6f6b:6761:7465::/64`.",
        examples=["fd00:99::/64"],
    )


class GatewayModel(Model):
    """The kernel's part of a gateway: what its rules bring to the gates, and what holds while none runs."""

    makes: ClassVar = GatewaySettings

    ports: list[Ports] = Field(
        default_factory=lambda: list(WEB_PORTS),
        description="The TCP ports, besides 80 and 443, on which clients under a ban are taken to the gates: "
        "numbers and ranges. Default: "
        + ", ".join(f"`{ports}`" for ports in sorted(WEB_PORTS))
        + ". `[]`: none; `[1-65535]`: every port.",
        examples=[[8080, 8443, "8000-8010"]],
    )
    on_stop: Annotated[Passage, OneOf(*Passage)] = Field(
        default=Passage.OPEN,
        description="Clients under a ban after `tokgate run --gateway` was stopped on purpose.",
    )
    on_crash: Annotated[Passage, OneOf(*Passage)] = Field(
        default=Passage.CLOSED,
        description="Clients under a ban while the rules are loaded and no gate listens. `open` needs `tproxy`, and "
        "leaves alone what was connected before the rules were loaded.",
    )
    canary: CanaryModel = Field(
        default_factory=CanaryModel,
        description="A client of tokgate's own that shows whether enforcement works, with `tokgate run --gateway`.",
        examples=[{"seconds": 30}],
    )


class LimitsModel(Model):
    """How many connections may be open. Beyond, a gate leaves new clients to others; without others it resets them."""

    makes: ClassVar = LimitSettings

    connections: ConnectionCount = Field(
        default=LimitSettings().connections, description="Of each gate. Default: `50000`.", examples=[100_000]
    )
    per_client: ConnectionCount = Field(
        default=LimitSettings().per_client,
        description="Of one client in each gate: an IPv4 address, or an IPv6 prefix of 64 bits. Default: `4096`.",
        examples=[1_000],
    )


class PacModel(Model):
    """What browsers reach past the proxy, by the file that explicit proxies serve at `/proxy.pac`."""

    makes: ClassVar = PacSettings

    direct_names: list[Annotated[str, Parsed(suffix)]] = Field(
        default=[],
        description="Names, each with all below it. Names without a dot go past the proxy anyway.",
        examples=[["intranet.example.org"]],
    )
    direct_addresses: list[Cidr] = Field(
        default=[],
        description="Prefixes of addresses, besides those of the policy's networks; only for URLs that name an "
        "address.",
        examples=[["192.0.2.0/24"]],
    )


class LdapModel(Model):
    """An LDAP directory of users and groups. Connections use TLS, and the server's name is verified."""

    makes: ClassVar = Directory

    url: DirectoryUrl = Field(
        description="Where it is. `ldap://` switches to TLS (StartTLS) before anything else, except on loopback.",
        examples=["ldaps://ldap.example.org"],
    )
    base: Line = Field(description="Below which users are looked for.", examples=["ou=people,dc=example,dc=org"])
    bind: Line | None = Field(
        default=None,
        description="The DN that searches. Default: anonymous.",
        examples=["cn=tokgate,ou=services,dc=example,dc=org"],
    )
    password: WholePath | None = Field(
        default=None, description="The file with the password for `bind`.", examples=["/etc/tokgate/ldap.password"]
    )
    user_attribute: Line = Field(
        default="uid", description="The attribute that holds the name of a user.", examples=["sAMAccountName"]
    )
    group_attribute: Line = Field(
        default="memberOf",
        description="The attribute of a user that holds the groups. Networks name a group by its `cn` or its whole DN.",
        examples=["memberOf"],
    )
    authorities: WholePath | None = Field(
        default=None,
        description="The certificates (PEM) against which the directory's is verified. Default: the system's.",
        examples=["/etc/tokgate/ldap-ca.pem"],
    )


class ProxyAuthModel(Model):
    """How users of the explicit proxy authenticate. With it, every connection must."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["htpasswd"]}, {"required": ["ldap"]}]})
    makes: ClassVar = ProxyAuth

    htpasswd: WholePath | None = Field(
        default=None,
        description="The file of users and passwords, in Apache's format, with bcrypt (`htpasswd -B`).",
        examples=["/etc/tokgate/htpasswd"],
    )
    groups: WholePath | None = Field(
        default=None,
        description="The file of groups, in Apache's format: `group: user user`.",
        examples=["/etc/tokgate/groups"],
    )
    ldap: LdapModel | None = Field(
        default=None,
        description="A directory, instead of files.",
        examples=[{"url": "ldaps://ldap.example.org", "base": "ou=people,dc=example,dc=org"}],
    )


CLIENT: Final = "client"
_SOURCES: Final = (CLIENT, "gateway")


def source(value: Any) -> str | IPAddress:
    """Where a connection comes from: a word, or an address."""
    return value if value in _SOURCES else address(value)


Sources = Annotated[
    list[Annotated[str | IPAddress, Parsed(source)]],
    Field(min_length=1),
    BeforeValidator(as_list),
    one_or_list(minLength=1),
]


class EgressModel(Model):
    """How destinations are connected to."""

    makes: ClassVar = EgressSettings

    addresses: Sources = Field(
        default=[CLIENT],
        description="From which addresses destinations are connected to. `client`: from the client's own, where TPROXY "
        "brings it to a gate. Else, and with `gateway` always, from the address that the route has, or from addresses "
        "of the gateway that stand here, in turn: each brings ports of its own.",
        examples=["gateway", ["192.0.2.1", "192.0.2.2", "2001:db8:1::1"]],
    )
    own_ports: list[Ports] = Field(
        default=[],
        description="The TCP ports at this machine's own addresses that explicit clients of other machines may reach "
        "through the proxy; its services are closed to them otherwise. Default: none.",
        examples=[[80, 443]],
    )
    connect_seconds: Annotated[int, Number("seconds", 1, 120)] = Field(
        default=10,
        description="How long a destination may take to accept a connection, all of its addresses together. "
        "Default: `10`.",
        examples=[5],
    )

    def built(self) -> EgressSettings:
        """A word is no address."""
        values = self.values()
        stated = values.pop("addresses")
        addresses = tuple(each for each in stated if not isinstance(each, str))
        return EgressSettings(addresses=addresses, client=CLIENT in stated, **values)


class UpstreamModel(Model):
    """A parent proxy, which reaches destinations for tokgate. Where it can't, nobody does."""

    proxy: ParentProxy = Field(
        description="Where it is, as `http://host:port`. It is asked by CONNECT.",
        examples=["http://proxy.example.org:3128"],
    )
    credentials: WholePath | None = Field(
        default=None,
        description="The file with `user:password`, one line. Read anew for each connection.",
        examples=["/etc/tokgate/upstream"],
    )
    destinations: list[ReachedThere] = Field(
        default=[],
        alias="for",
        description="The destinations that it reaches: names, with those below them, and prefixes. Default: all.",
        examples=[["example.org", "203.0.113.0/24"]],
    )
    exclusions: list[ReachedThere] = Field(
        default=[],
        alias="except",
        description="Those of them that it does not: the next entry may, else they are reached directly.",
        examples=[["intranet.example.org", "192.0.2.0/24"]],
    )

    def built(self) -> Upstream:
        """The URL of the proxy becomes its host and port."""
        values = self.values()
        host, port = values.pop("proxy")
        return Upstream(host=host, port=port, **values)
