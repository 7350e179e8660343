"""Bans and exemptions as the policy states them: values without behaviour."""

from dataclasses import dataclass, field
from typing import Final

from tokgate.policy.decision import Response
from tokgate.policy.schedule import Duration, Moment, Window
from tokgate.policy.values import Language, Origin, Word
from tokgate.policy.values.prefixes import IPNetwork

CONTINUE_FOR: Final = Duration(hours=8)
"""How long continuing past a warning holds by default: a working day."""


class Action(Word):
    """What a ban does from its start on; also the phase that begins then."""

    BLOCK = "block", "Refused."
    WARN = "warn", "People are warned and may go on."
    MONITOR = "monitor", "Only logged."


class OnExpiry(Word):
    """Whether a ban stops at its end (`lapse`), or stays in force as overdue (`hold`)."""

    LAPSE = "lapse", "The ban ends."
    HOLD = "hold", "The ban stays in force and is reported as overdue."


class Overrides(Word):
    """Whether `tokgate override` may except clients from a ban."""

    ALLOWED = "allowed", "Exceptions may be made."
    FORBIDDEN = "forbidden", "No exceptions: `tokgate override` refuses."


ALL: Final = "all"
"""What a ban on all has in place of services, and what its decisions have for a service where none is known."""
TRANSLATED: Final = ("title", "description", "reason", "contact")
"""The texts of a ban that may be given in several languages."""


@dataclass(frozen=True, slots=True)
class Translation:
    """One of a ban's texts, by its key, in a language."""

    key: str
    language: Language
    text: str

    def __str__(self) -> str:
        return f"{self.key}.{self.language}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """Services x networks x time x action, with its authority and legal basis.

    Moments without offset are wall times in the time zone of each of the ban's networks. At most one of `expires` and
    `duration` is given; without either the ban holds until lifted.
    """

    name: str
    title: str
    services: tuple[str, ...]
    networks: tuple[str, ...]
    starts: Moment
    on_all: bool = False
    """It bans all that the gateway sees, but the services that it excepts; it names none."""
    excepted: tuple[str, ...] = ()
    extends: str | None = None
    """The ban that ends where this one starts, whatever end it states."""
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
    reason: str | None = None
    """Why it is."""
    translations: tuple[Translation, ...] = ()
    """Texts that are given by language; the ban's own field is the first of them."""
    origin: Origin | None = None

    @property
    def what(self) -> str:
        """The services, in words of YAML: `tiktok, tiktok-ads`, `all except library`."""
        if not self.on_all:
            return ", ".join(self.services)
        return f"{ALL} except {', '.join(self.excepted)}" if self.excepted else ALL

    def said(self, key: str, *languages: str | None) -> str | None:
        """A text of TRANSLATED in the first of these languages that it is given in, or else as stated first."""
        given = {each.language: each.text for each in self.translations if each.key == key}
        stated: str | None = getattr(self, key)
        return next((given[Language(each)] for each in languages if each in given), stated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """Takes one ban out for the clients named, in `[starts, until)`, for a stated reason; it always ends.

    An `override` is a short exemption made while the ban is in force: the log records its start and its end.
    """

    name: str
    ban: str
    until: Moment
    reason: str
    clients: tuple[IPNetwork, ...] = ()
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    """Names of devices in an inventory of the policy, or hardware addresses."""
    interfaces: tuple[str, ...] = ()
    starts: Moment | None = None
    ticket: str | None = None
    by: str | None = None
    ended_by: str | None = None
    override: bool = False
    origin: Origin | None = None

    @property
    def identified(self) -> tuple[str, ...]:
        """Who is exempt besides addresses, in words."""
        kinds = (("user", self.users), ("group", self.groups), ("device", self.devices), ("interface", self.interfaces))
        return tuple(f"{kind} {name}" for kind, names in kinds for name in names)

    @property
    def whom(self) -> tuple[str, ...]:
        """Who is exempt, addresses first, each in words for people."""
        return (*map(str, self.clients), *self.identified)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifted:
    """A ban that was taken out of the policy before its end, on purpose: without this it is held back."""

    ban: str
    reason: str
    by: str | None = None
    origin: Origin | None = field(default=None, compare=False)
