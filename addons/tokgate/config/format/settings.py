"""The format of `settings:` as pydantic models. Class docstrings and descriptions are part of the JSON Schema."""

from ipaddress import IPv6Network
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tokgate.config.diagnostics import Code, listed
from tokgate.config.format.connection_settings import (
    EgressModel,
    GatewayModel,
    LimitsModel,
    PacModel,
    ProxyAuthModel,
    UpstreamModel,
)
from tokgate.config.format.networks import Cidr, cidr
from tokgate.config.format.times import Lasting
from tokgate.config.format.values import Flag, Model, Number, OneOf, Parsed, WholePath, one_line, server, wrong
from tokgate.policy.settings import (
    LONGEST_OVERRIDE,
    REMINDERS,
    ClientsShown,
    DnsSettings,
    EchKeys,
    EchOuter,
    EncryptedDns,
    LogSettings,
    MissingSni,
    OnError,
    OverrideLimits,
    UnknownClients,
)
from tokgate.policy.values.prefixes import NAT64_LENGTHS


def outlet(value: Any) -> str:
    """Where checkpoints of the log are sent: `journald`, `syslog` or `syslog://host:port`."""
    written = one_line(value)
    if written not in ("journald", "syslog") and server(written, "syslog") is None:
        raise wrong(Code.BAD_VALUE, f"`{written}` is none of `journald`, `syslog`, `syslog://host:port`")
    return written


def nat64_prefix(value: Any) -> IPv6Network:
    """A prefix behind which a translator puts IPv4 addresses."""
    prefix = cidr(value)
    if not isinstance(prefix, IPv6Network) or prefix.prefixlen not in NAT64_LENGTHS:
        lengths = listed([f"/{length}" for length in NAT64_LENGTHS])
        raise wrong(Code.BAD_CIDR, f"`{prefix}` is no prefix for NAT64: an IPv6 prefix of {lengths} (RFC 6052)")
    return prefix


Outlet = Annotated[
    str, Parsed(outlet, "`journald`, `syslog` or `syslog://host:port`.", r"^(journald|syslog(://[^/]+)?)$")
]
Nat64Prefix = Annotated[
    IPv6Network,
    Parsed(
        nat64_prefix,
        "An IPv6 prefix of a length that RFC 6052 knows: `2001:db8:64::/96`.",
        rf"/({'|'.join(map(str, NAT64_LENGTHS))})$",
    ),
]
DayCount = Annotated[int, Number("days", 1, 36_500)]


class OverridesModel(Model):
    """Limits of overrides, and who may ask for one."""

    makes: ClassVar = OverrideLimits

    longest: Lasting = Field(
        default_factory=lambda: LONGEST_OVERRIDE,
        description="The longest override that may be made (ISO 8601). Default: `PT24H`.",
        examples=["PT8H"],
    )
    requests: Flag = Field(
        default=False,
        description="Whether the page of a refusal has a form to ask for an override, unless the ban forbids them.",
    )


class DnsModel(Model):
    """What tokgate's DNS answers where a ban that blocks is in force for the client."""

    makes: ClassVar = DnsSettings

    ech_keys: Annotated[EchKeys, OneOf(*EchKeys)] = Field(
        default=EchKeys.WITHHOLD,
        description="The keys with which ECH (RFC 9849) hides the names of connections, in HTTPS and SVCB records. An "
        "answer without them no longer validates with DNSSEC.",
    )


class LogModel(Model):
    """Settings of the block log. They are read when tokgate starts."""

    makes: ClassVar = LogSettings

    clients: Annotated[ClientsShown, OneOf(*ClientsShown)] = Field(
        default=ClientsShown.PLAIN,
        description="How clients are named: by address, by a keyed pseudonym, or by the network around them.",
    )
    pseudonym_days: DayCount = Field(
        default=30, description="How many days a pseudonym stays the same. Default: `30`.", examples=[7]
    )
    retention_days: DayCount | None = Field(
        default=None, description="After how many days rotated files are deleted. Default: never.", examples=[180]
    )
    checkpoint_to: list[Outlet] = Field(
        default=[],
        description="Where signed checkpoints are sent besides the log, so that a tail that was cut off shows: "
        "`journald`, `syslog` (this machine's), `syslog://host:port` (UDP).",
        examples=[["journald", "syslog://loghost.example.org:514"]],
    )
    key: WholePath | None = Field(
        default=None,
        description="The private key that signs the checkpoints; made if it isn't there. Default: beside the log.",
        examples=["/etc/tokgate/log.key"],
    )
    forward_security: Flag = Field(
        default=False,
        description="Each key signs one checkpoint, then the next key overwrites it: a key that is stolen can't "
        "sign what came before.",
    )
    small_groups: Annotated[int, Number("clients", 1, 10_000)] = Field(
        default=5,
        description="Under pseudonyms, reports withhold counts of fewer clients than this. `1`: none. Default: `5`.",
        examples=[10],
    )
    keep_free: Annotated[int, Number("MiB", 0, 1 << 20)] = Field(
        default=256,
        description="How many MiB of its disk the log leaves free, at most a twentieth of the disk, and then waits as "
        "on a full disk. `0`: none. Default: `256`.",
        examples=[1024],
    )


class SettingsModel(Model):
    """Settings of the whole policy."""

    unknown_clients: Annotated[UnknownClients, OneOf(*UnknownClients)] = Field(
        default=UnknownClients.ALLOW,
        description="A client in no network.",
    )
    on_error: Annotated[OnError, OneOf(*OnError)] = Field(
        default=OnError.BLOCK,
        description="What an internal error decides for names of banned services; all else passes.",
    )
    missing_sni: Annotated[MissingSni, OneOf(*MissingSni)] = Field(
        default=MissingSni.CHECK_ADDRESS,
        description="A TLS connection that names no host.",
    )
    ech_outer: Annotated[EchOuter, OneOf(*EchOuter)] = Field(
        default=EchOuter.ALLOW,
        description="A TLS connection whose real name is encrypted (ECH, RFC 9849).",
    )
    encrypted_dns: Annotated[EncryptedDns, OneOf(*EncryptedDns)] = Field(
        default=EncryptedDns.DISCOURAGE,
        description="What tokgate's DNS answers when clients under a ban look for an encrypted resolver "
        "(`use-application-dns.net`, which Firefox asks for, and RFC 9462).",
    )
    dns: DnsModel = Field(
        default_factory=DnsModel,
        description="What clients under a ban that blocks get from tokgate's DNS.",
        examples=[{"ech_keys": "allow"}],
    )
    nat64_prefixes: list[Nat64Prefix] = Field(
        default=[],
        description="The prefixes of NAT64 translators that clients use, besides `64:ff9b::/96`: an IPv6 address in "
        "one stands for an IPv4 address (RFC 6052), and is banned where that is. Default: none.",
        examples=[["2001:db8:64::/96"]],
    )
    overrides: OverridesModel = Field(
        default_factory=OverridesModel,
        description="Limits on what `tokgate override` makes, and whether people may ask for it on the page.",
        examples=[{"longest": "PT8H"}],
    )
    reminders: list[Lasting] = Field(
        default_factory=lambda: list(REMINDERS),
        description="How long before a ban ends there are reminders, one for each entry. "
        "Default: `[P30D, P7D, P1D]`; `[]`: none. `tokgate check` looks as far ahead as the longest.",
        examples=[["P30D", "P7D", "P1D"]],
    )
    log: LogModel = Field(
        default_factory=LogModel,
        description="How the block log is kept.",
        examples=[{"checkpoint_to": ["journald"]}],
    )
    gateway: GatewayModel = Field(
        default_factory=GatewayModel,
        description="The kernel's part of a gateway. `tokgate run --gateway` follows it; `tokgate gateway up` loads it "
        "again.",
        examples=[{"ports": [8080, 8443]}],
    )
    egress: EgressModel = Field(
        default_factory=EgressModel,
        description="From which addresses destinations are connected to.",
        examples=[{"addresses": ["192.0.2.1", "192.0.2.2"]}],
    )
    limits: LimitsModel = Field(
        default_factory=LimitsModel,
        description="How many connections may be open.",
        examples=[{"connections": 100_000, "per_client": 1_000}],
    )
    pac: PacModel = Field(
        default_factory=PacModel,
        description="What the PAC file that explicit proxies serve, `/proxy.pac`, sends past them.",
        examples=[{"direct_names": ["intranet.example.org"]}],
    )
    load_balancers: list[Cidr] = Field(
        default=[],
        description="The load balancers in front of explicit proxies: their connections, and only theirs, begin with "
        "the PROXY protocol (version 1 or 2), which says who the client is. Default: none.",
        examples=[["192.0.2.10", "192.0.2.11"]],
    )
    name_files: list[WholePath] = Field(
        default=[],
        description="Folders, besides that of the policy, in which files of services' names may lie. Default: none.",
        examples=[["/etc/tokgate/lists"]],
    )
    proxy_auth: ProxyAuthModel | None = Field(
        default=None,
        description="How users of the explicit proxy authenticate. Default: nobody has to.",
        examples=[{"htpasswd": "/etc/tokgate/htpasswd", "groups": "/etc/tokgate/groups"}],
    )
    upstream: list[UpstreamModel] = Field(
        default=[],
        description="Parent proxies; the first that is for a destination reaches it. Default: none.",
        examples=[[{"proxy": "http://proxy.example.org:3128", "except": ["intranet.example.org"]}]],
    )
