"""The settings of a policy, with their defaults; and parent proxies: by which of them a destination is reached."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from tokgate.policy.schedule import Duration
from tokgate.policy.values import Origin, Word
from tokgate.policy.values.hostname import IPAddress, parse_address
from tokgate.policy.values.prefixes import IPNetwork

type Destination = IPNetwork | str
"""A prefix, or a name with those below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A parent proxy. `credentials` is the path of a file with `user:password`; no `destinations` are all."""

    host: str
    port: int
    credentials: str | None = None
    destinations: tuple[Destination, ...] = ()
    exclusions: tuple[Destination, ...] = ()

    def __str__(self) -> str:
        """The parent proxy and its destinations, as `tokgate diff` shows them."""
        parts = (
            ("credentials", self.credentials and [self.credentials]),
            ("for", self.destinations),
            ("except", self.exclusions),
        )
        more = (f" {key} {', '.join(map(str, values))}" for key, values in parts if values)
        return f"http://{self.host}:{self.port}{''.join(more)}"

    def carries(self, hosts: Collection[str]) -> bool:
        """Whether a destination that is known by these names and addresses is reached by this proxy."""
        wanted = not self.destinations or _any(self.destinations, hosts)
        return wanted and not _any(self.exclusions, hosts)


def upstream_for(upstreams: Iterable[Upstream], hosts: Iterable[str | None]) -> Upstream | None:
    """The first proxy that carries a destination, by the names and addresses known of it; None: none does."""
    known = [host.lower().rstrip(".") for host in hosts if host]
    return next((each for each in upstreams if each.carries(known)), None)


def _any(destinations: Iterable[Destination], hosts: Collection[str]) -> bool:
    return any(_within(host, destination) for destination in destinations for host in hosts)


def _within(host: str, destination: Destination) -> bool:
    if isinstance(destination, str):
        return host == destination or host.endswith(f".{destination}")
    address = parse_address(host)
    return address is not None and address.version == destination.version and address in destination


LONGEST_OVERRIDE: Final = Duration(hours=24)
REMINDERS: Final = (Duration(days=30), Duration(days=7), Duration(days=1))
"""How long before the end of a ban its reminders are due, by default."""


class UnknownClients(Word):
    """Whether everything passes, or everything is refused, for a client in no network."""

    ALLOW = "allow", "All its traffic passes."
    BLOCK = "block", "All its traffic is refused."


class OnError(Word):
    """What an internal error decides about names of banned services; other names always pass."""

    BLOCK = "block", "Names of banned services are refused."
    ALLOW = "allow", "Everything passes."


class MissingSni(Word):
    """What is done with a TLS connection whose ClientHello names no readable host."""

    ALLOW = "allow", "It passes."
    CHECK_ADDRESS = "check-address", "The address that it goes to decides."
    CHECK_CERTIFICATE = "check-certificate", "The certificate that the server shows decides."
    BLOCK = "block", "It is refused."


class EchOuter(Word):
    """What is done with a ClientHello that carries only the public name of an ECH provider (RFC 9849)."""

    ALLOW = "allow", "It passes."
    BLOCK = "block", "It is refused."
    INSPECT = "inspect", "It is decrypted to see the name."


class EncryptedDns(Word):
    """How discovery of encrypted resolvers (DDR, RFC 9462) is answered to clients under a ban that blocks."""

    DISCOURAGE = "discourage", "Clients under a ban are told that there is none."
    ALLOW = "allow", "Nothing is done about it."


class EchKeys(Word):
    """What clients under a ban that blocks get of the keys with which ECH hides names, in answers from DNS."""

    WITHHOLD = "withhold", "They are taken out of answers."
    ALLOW = "allow", "They pass."


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideLimits:
    """The longest duration that an override may have, and whether people may ask for one on the page."""

    longest: Duration = LONGEST_OVERRIDE
    requests: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSettings:
    """What clients get whose questions tokgate decides: for those under a ban that blocks."""

    ech_keys: EchKeys = EchKeys.WITHHOLD


class ClientsShown(Word):
    """How the log names clients: by address, by a pseudonym for it, or by the prefix around it."""

    PLAIN = "plain", "By address."
    PSEUDONYM = "pseudonym", "By a keyed pseudonym that changes with time."
    PREFIX = "prefix", "By the network around them."


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How the block log names clients, how many days it is kept, how it is signed, and where checkpoints are sent."""

    clients: ClientsShown = ClientsShown.PLAIN
    pseudonym_days: int = 30
    retention_days: int | None = None
    checkpoint_to: tuple[str, ...] = ()
    key: str | None = None
    forward_security: bool = False
    small_groups: int = 5
    keep_free: int = 256


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """TCP ports from `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


_WEB_PORTS: Final = (
    *(853, 3128, 4433, 4443, 8000, 8008, 8080, 8081, 8088, 8443, 8888, 9443),
    *(2052, 2053, 2082, 2083, 2086, 2087, 2095, 2096, 8880),  # where Cloudflare serves any site, besides 8080 and 8443
)
WEB_PORTS: Final = tuple(PortRange(port, port) for port in _WEB_PORTS)
"""Where TLS and HTTP are usual besides 80 and 443; docs/policy.md has the reason of each."""


class Passage(Word):
    """Whether clients under a ban pass unfiltered, or are refused, while nothing filters."""

    OPEN = "open", "They pass, unfiltered."
    CLOSED = "closed", "They are refused."


_CANARY_IPV4: Final = IPv4Network("198.18.116.0/29")
_CANARY_IPV6: Final = IPv6Network("fd74:6f6b:6761:7465::/64")


@dataclass(frozen=True, slots=True, kw_only=True)
class CanarySettings:
    """How often, in seconds, the gateway's canary asks, and where it is: prefixes that nothing else here uses.

    The defaults are from the networks for benchmarks (RFC 2544) and for sites of one's own (RFC 4193).
    """

    enabled: bool = True
    seconds: int = 60
    ipv4: IPv4Network = _CANARY_IPV4
    ipv6: IPv6Network = _CANARY_IPV6


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What the gateway's rules bring here; `ports` are of TCP, for networks under a ban, besides 80 and 443.

    `on_stop` holds after a deliberate stop, `on_crash` while no gate listens although the rules are loaded.
    """

    ports: tuple[PortRange, ...] = WEB_PORTS
    on_stop: Passage = Passage.OPEN
    on_crash: Passage = Passage.CLOSED
    canary: CanarySettings = CanarySettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """How destinations are connected to. `addresses`: the machine's own from which, in turn; none: the route's.

    `client`: from the client's, where TPROXY brought it. `own_ports` of this machine's addresses are open to explicit
    clients of other machines. `connect_seconds` has a destination to answer, all of its addresses together.
    """

    addresses: tuple[IPAddress, ...] = ()
    client: bool = True
    own_ports: tuple[PortRange, ...] = ()
    connect_seconds: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PacSettings:
    """What goes past the proxy by the PAC file, besides the policy's own networks: names with all below, prefixes."""

    direct_names: tuple[str, ...] = ()
    direct_addresses: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Most open connections: of a gate, and in it of one client (an IPv4 address, or an IPv6 prefix of 64 bits)."""

    connections: int = 50_000
    per_client: int = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """An LDAP directory of users and groups. `password` and `authorities` (CA certificates, PEM) are paths of files."""

    url: str
    base: str
    bind: str | None = None
    password: str | None = None
    user_attribute: str = "uid"
    group_attribute: str = "memberOf"
    authorities: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyAuth:
    """How users of the explicit proxy authenticate: by an htpasswd file (and a file of groups), or by LDAP."""

    htpasswd: str | None = None
    groups: str | None = None
    ldap: Directory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the whole policy, with their defaults."""

    unknown_clients: UnknownClients = UnknownClients.ALLOW
    on_error: OnError = OnError.BLOCK
    missing_sni: MissingSni = MissingSni.CHECK_ADDRESS
    ech_outer: EchOuter = EchOuter.ALLOW
    encrypted_dns: EncryptedDns = EncryptedDns.DISCOURAGE
    dns: DnsSettings = DnsSettings()
    nat64_prefixes: tuple[IPv6Network, ...] = ()
    overrides: OverrideLimits = OverrideLimits()
    reminders: tuple[Duration, ...] = REMINDERS
    log: LogSettings = LogSettings()
    gateway: GatewaySettings = GatewaySettings()
    egress: EgressSettings = EgressSettings()
    limits: LimitSettings = LimitSettings()
    pac: PacSettings = PacSettings()
    load_balancers: tuple[IPNetwork, ...] = ()
    name_files: tuple[str, ...] = ()
    proxy_auth: ProxyAuth | None = None
    upstream: tuple[Upstream, ...] = ()
    origin: Origin | None = field(default=None, compare=False)
