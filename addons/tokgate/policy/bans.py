"""Bans, exemptions and settings as the policy states them: values without behaviour of their own."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tokgate.policy.decision import Response
from tokgate.policy.origin import Origin
from tokgate.policy.prefixes import IPNetwork
from tokgate.policy.schedule import Duration, Moment, Window

LONGEST_OVERRIDE: Final = Duration(hours=24)
CONTINUE_FOR: Final = Duration(hours=8)
"""How long continuing past a warning holds unless the ban says otherwise: a day at work."""
REMINDERS: Final = (Duration(days=30), Duration(days=7), Duration(days=1))
"""How long before the end of a ban it is told that it ends."""


class Action(StrEnum):
    """What a ban does from its start on; also the phase it is then in."""

    BLOCK = "block"
    WARN = "warn"
    MONITOR = "monitor"


class OnExpiry(StrEnum):
    """What follows the end of a ban."""

    LAPSE = "lapse"
    HOLD = "hold"


class Overrides(StrEnum):
    """Whether overrides may be made from a ban."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"


class UnknownClients(StrEnum):
    """A client in no network: let everything pass, or refuse everything."""

    ALLOW = "allow"
    BLOCK = "block"


class OnError(StrEnum):
    """What an internal error decides, for names of banned services only."""

    BLOCK = "block"
    ALLOW = "allow"


class MissingSni(StrEnum):
    """What is done with a TLS connection whose ClientHello names no readable host."""

    ALLOW = "allow"
    CHECK_ADDRESS = "check-address"
    CHECK_CERTIFICATE = "check-certificate"
    BLOCK = "block"


class EchOuter(StrEnum):
    """What is done with a ClientHello that carries only the public name of an ECH provider (RFC 9849)."""

    ALLOW = "allow"
    BLOCK = "block"
    INSPECT = "inspect"


class EncryptedDns(StrEnum):
    """What clients under a ban that blocks are told when they ask the resolver whether to go around it, encrypted."""

    DISCOURAGE = "discourage"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """Services x networks x time x action, with its authority and legal basis.

    Moments without offset are wall times in the zone of each of the ban's networks. At most one of `expires` and
    `duration` is given; neither means: until lifted.
    """

    name: str
    title: str
    services: tuple[str, ...]
    networks: tuple[str, ...]
    starts: Moment
    expires: Moment | None = None
    duration: Duration | None = None
    announced: Moment | None = None
    monitor_from: Moment | None = None
    warn_from: Moment | None = None
    on_expiry: OnExpiry = OnExpiry.LAPSE
    windows: tuple[Window, ...] = ()
    action: Action = Action.BLOCK
    response: Response = Response.REFUSE
    continue_for: Duration = CONTINUE_FOR
    inspect_stores: bool = False
    overrides: Overrides = Overrides.ALLOWED
    authority: str | None = None
    basis: str | None = None
    reference: str | None = None
    contact: str | None = None
    description: str | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """A reasoned hole in one ban for the clients named, in `[starts, until)`; it always ends.

    An `override` was made while the ban was in force, for a short time: the log says when it starts and ends.
    """

    name: str
    ban: str
    clients: tuple[IPNetwork, ...]
    until: Moment
    reason: str
    starts: Moment | None = None
    ticket: str | None = None
    by: str | None = None
    ended_by: str | None = None
    override: bool = False
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideLimits:
    """What overrides may be."""

    longest: Duration = LONGEST_OVERRIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Who is told of reminders outside the log: an address that takes JSON, a program that reads it."""

    webhook: str | None = None
    command: tuple[str, ...] = ()


class ClientsShown(StrEnum):
    """How the log names clients."""

    PLAIN = "plain"
    PSEUDONYM = "pseudonym"
    PREFIX = "prefix"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How the block log is kept: how it names clients, for how many days, how it is signed and where that is told."""

    clients: ClientsShown = ClientsShown.PLAIN
    pseudonym_days: int = 30
    retention_days: int | None = None

    checkpoint_to: tuple[str, ...] = ()
    key: str | None = None
    forward_security: bool = False
    near_misses: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """An LDAP directory that knows users and their groups. `password` and `authorities` are files."""

    url: str
    base: str
    bind: str | None = None
    password: str | None = None
    user_attribute: str = "uid"
    group_attribute: str = "memberOf"
    authorities: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyAuth:
    """How users of an explicit proxy prove who they are: by a file of passwords (and one of groups), or a directory."""

    htpasswd: str | None = None
    groups: str | None = None
    ldap: Directory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for the whole policy."""

    unknown_clients: UnknownClients = UnknownClients.ALLOW
    on_error: OnError = OnError.BLOCK
    missing_sni: MissingSni = MissingSni.CHECK_ADDRESS
    ech_outer: EchOuter = EchOuter.ALLOW
    encrypted_dns: EncryptedDns = EncryptedDns.DISCOURAGE
    overrides: OverrideLimits = OverrideLimits()
    reminders: tuple[Duration, ...] = REMINDERS
    notify: Notify = Notify()
    log: LogSettings = LogSettings()
    proxy_auth: ProxyAuth | None = None
    origin: Origin | None = field(default=None, compare=False)
