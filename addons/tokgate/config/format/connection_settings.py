"""The format of those `settings:` that say how clients reach a gate, and how it reaches destinations."""

from pydantic import ConfigDict, Field

from tokgate.config.format.base import Model
from tokgate.config.format.choices import (
    OnCrashChoice,
    OnStopChoice,
)
from tokgate.config.format.field_types import (
    CanaryIPv4,
    CanaryIPv6,
    Cidr,
    Client,
    ConnectionCount,
    DirectoryUrl,
    Flag,
    Line,
    ParentProxy,
    Ports,
    ProbeInterval,
    ReachedThere,
    SuffixPattern,
    WholePath,
)
from tokgate.policy.settings import WEB_PORTS, CanarySettings, LimitSettings, Passage


class CanaryModel(Model):
    """The gateway's canary: a client of its own that tries a banned name and an allowed one again and again."""

    enabled: Flag = Field(default=CanarySettings().enabled, description="Whether there is one.")
    seconds: ProbeInterval = Field(
        default=CanarySettings().seconds,
        description="Between two probes, 1 to 3600. Enforcement that stopped is red within two of them. Default: `60`.",
        examples=[30],
    )
    ipv4: CanaryIPv4 = Field(
        default=CanarySettings().ipv4,
        description="A prefix of at least 8 addresses that nothing else here uses. Default: `198.18.116.0/29`.",
        examples=["10.99.99.0/29"],
    )
    ipv6: CanaryIPv6 = Field(
        default=CanarySettings().ipv6,
        description="A prefix of at least 8 addresses that nothing else here uses. Default: "
        "`fd74:6f6b:6761:7465::/64`.",
        examples=["fd00:99::/64"],
    )


class GatewayModel(Model):
    """The kernel's part of a gateway: what its rules bring to the gates, and what holds while none runs."""

    ports: list[Ports] = Field(
        default_factory=lambda: list(WEB_PORTS),
        description="The TCP ports, besides 80 and 443, on which clients under a ban are taken to the gates: "
        "numbers and ranges. Default: "
        + ", ".join(f"`{ports}`" for ports in sorted(WEB_PORTS))
        + ". `[]`: none; `[1-65535]`: every port.",
        examples=[[8080, 8443, "8000-8010"]],
    )
    on_stop: OnStopChoice = Field(
        default=Passage.OPEN,
        description="Clients under a ban after `tokgate run --gateway` was stopped on purpose.",
    )
    on_crash: OnCrashChoice = Field(
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

    direct_names: list[SuffixPattern] = Field(
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


class EgressModel(Model):
    """How destinations are connected to."""

    addresses: list[Client] = Field(
        default=[],
        description="The gateway's own addresses from which destinations are connected to, in turn: each brings ports "
        "of its own. Default: the address that the route has.",
        examples=[["192.0.2.1", "192.0.2.2", "2001:db8:1::1"]],
    )


class UpstreamModel(Model):
    """A parent proxy, which reaches destinations for tokgate. Where it can't, nobody does."""

    proxy: ParentProxy = Field(
        description="Where it is: `http://host:port` (CONNECT) or `socks5://host:port`.",
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
