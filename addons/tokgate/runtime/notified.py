"""Reminders and records of overrides and requests that were written, so that each is written once.

They are kept in a small file beside the log, so that a restart repeats none. One process keeps it: the supervisor, or
mitmproxy without one. If the file can't be written, a restart may repeat records. Where the log disguises clients, the
file has the prefixes around them as well.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.paths import notified_path_for, requests_path_for
from tokgate.blocklog.records import lifecycle
from tokgate.blocklog.records.record import Record, Stamp
from tokgate.blocklog.records.requests import RequestState, exception_answered
from tokgate.blocklog.write.pseudonyms import prefix_around
from tokgate.policy.analysis.terms import Override, in_force, overrides
from tokgate.policy.analysis.timeline import Reminder, ReminderKey, due_reminders, missed_reminders, planned_reminders
from tokgate.policy.bans import Exemption
from tokgate.policy.schedule import Span
from tokgate.policy.settings import ClientsShown
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.exception_requests import RequestFolder

logger = logging.getLogger(__name__)

REMEMBERED: Final = 24 * 40
"""Hours after the end of a ban for which its reminders are kept: a clock that is set back repeats none."""
_FORMAT: Final = 1
_MODE: Final = 0o640
_IDENTIFIED: Final = ("users", "groups", "devices", "interfaces")
_SAID: Final = ("name", "ban", "reason", "ticket", "by")

Write = Callable[[Callable[[Stamp], Record]], None]
"""Writes the record that the callable makes from a stamp."""

_Identity = tuple[str, str, tuple[str, ...]]
"""An override's name, ban and clients: another ban or other clients make it another override."""


class NotificationHistory:
    """Writes due records of reminders, overrides and answered requests, and keeps which were written."""

    def __init__(self, log: Path, write: Write) -> None:
        """Reads the file beside `log`."""
        self._path: Final = notified_path_for(log)
        self._write: Final = write
        self._told: set[ReminderKey] = set()
        self._running: dict[_Identity, Override] = {}
        """The overrides whose start was recorded and whose end was not."""
        self._read_disguised = False
        self._seen: Snapshot | None = None
        self._plan: tuple[Reminder, ...] = ()
        self._overrides: dict[str, Override] = {}
        self._requests: Final = RequestFolder(requests_path_for(log))
        self._answered: set[str] = set()
        """The requests for exceptions whose answer was recorded."""
        self._read(self._path)

    def look(self, snapshot: Snapshot, now: Instant) -> bool:
        """Write the records that are due; whether there were any. Call `save` then."""
        if not self.knows(snapshot):
            self.plan_for(snapshot)
        due = list(due_reminders(self._plan, now, self._told))
        if due:  # kept before it is written: a failure must not repeat every second
            self._told |= {notice for notice in missed_reminders(self._plan, now) if notice.ends > now}
            self._told = {notice for notice in self._told if notice.ends.add(hours=REMEMBERED) > now}
        for reminder in due:
            self._write(partial(lifecycle.ban_near_expiry, track=reminder.track, policy_version=snapshot.version))
        running = {_identity(each.exemption): each for each in in_force(self._overrides, now).values()}
        before, self._running = self._recognised(running), running
        version = snapshot.version
        for last, why in (self._as_ended(each, now) for identity, each in before.items() if identity not in running):
            write = partial(lifecycle.override_ended, exemption=last.exemption, until=last.span.end, why=why)
            self._write(partial(write, policy_version=version))
        for each in (each for identity, each in running.items() if identity not in before):
            write = partial(lifecycle.override_started, exemption=each.exemption, until=each.span.end)
            self._write(partial(write, policy_version=version))
        return bool(due) or running != before

    def knows(self, snapshot: Snapshot) -> bool:
        """Whether `plan_for` was done for this policy."""
        return snapshot is self._seen

    def plan_for(self, snapshot: Snapshot) -> None:
        """Compute all reminders and overrides of a policy. Slow; may run in another thread, before `look`."""
        self._plan, self._overrides = planned_reminders(snapshot), dict(overrides(snapshot))
        self._seen = snapshot

    def follow_requests(self, snapshot: Snapshot) -> bool:
        """Write the records of requests for exceptions that were answered; whether there were any. Raises OSError."""
        known = self._requests.all()
        answered = {name: each for name, each in known.items() if each["state"] != RequestState.PENDING}
        before, self._answered = self._answered, set(answered)
        for request in (answered[name] for name in answered if name not in before):
            self._write(partial(exception_answered, request=request, policy_version=snapshot.version))
        return before != self._answered

    def _recognised(self, running: dict[_Identity, Override]) -> dict[_Identity, Override]:
        """The overrides that were running, by the identities of those that still are: the file may have prefixes."""
        if not self._read_disguised:
            return self._running
        self._read_disguised = False
        names = {_identity(_disguised(each.exemption)): identity for identity, each in running.items()}
        return {
            identity if identity in running else names.get(identity, identity): each
            for identity, each in self._running.items()
        }

    def _as_ended(self, ended: Override, now: Instant) -> tuple[Override, str]:
        """An ended override as the policy states it now, and why it ended."""
        known = self._overrides.get(ended.exemption.name)
        if known is None or _identity(known.exemption) != _identity(ended.exemption):
            return ended, "its time is over" if ended.span.end <= now else "it was taken out of the policy"
        if known.span.end > now:
            return known, "it starts later now"
        return known, "its time is over" if known.exemption.ended_by is None else "ended early"

    # -- the file

    def save(self) -> None:
        """Write the file. An error is logged."""
        ordered = sorted(self._told, key=lambda notice: (notice.ban, notice.zone, notice.ends, notice.before))
        document = {
            "version": _FORMAT,
            "disguised": self._disguises,
            "reminders": [
                {"ban": each.ban, "zone": each.zone, "ends": each.ends.format_iso(), "before": each.before}
                for each in ordered
            ],
            "overrides": [_stated(each, disguised=self._disguises) for each in self._running.values()],
            "requests": sorted(self._answered),
        }
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        try:
            replace_file(self._path, text.encode("utf-8"), _MODE)
        except OSError as error:
            logger.warning("what was told can't be kept in %s, a restart may tell it again: %s", self._path, error)

    @property
    def _disguises(self) -> bool:
        """Whether clients must not be told apart: what isn't known is disguised, too."""
        return self._seen is None or self._seen.settings.log.clients is not ClientsShown.PLAIN

    def _read(self, path: Path) -> None:
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            if said["version"] != _FORMAT:
                raise ValueError(f"format {said['version']} is not known")
            told = {
                ReminderKey(each["ban"], each["zone"], Instant.parse_iso(each["ends"]), each["before"])
                for each in said["reminders"]
            }
            running = [_running(each) for each in said["overrides"]]
            answered = {str(each) for each in said.get("requests", ())}
            self._read_disguised = bool(said.get("disguised"))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("what was told can't be read from %s, it will be told again: %s", path, error)
            return
        self._told, self._running = told, {_identity(each.exemption): each for each in running}
        self._answered = answered


def _disguised(exemption: Exemption) -> Exemption:
    """An override by what the log shows of whom it is for: the prefixes around addresses, neither users nor devices."""
    prefixes = tuple(dict.fromkeys(map(prefix_around, exemption.clients)))
    return replace(exemption, clients=prefixes, users=(), devices=())


def _identity(exemption: Exemption) -> _Identity:
    return exemption.name, exemption.ban, exemption.whom


def _stated(override: Override, *, disguised: bool) -> dict[str, Any]:
    exemption = _disguised(override.exemption) if disguised else override.exemption
    return {
        "clients": [str(client) for client in exemption.clients],
        **{key: list(getattr(exemption, key)) for key in _IDENTIFIED},
        **{key: getattr(exemption, key) for key in _SAID},
        "until": override.span.end.format_iso(),
    }


def _running(stated: dict[str, Any]) -> Override:
    until = Instant.parse_iso(stated["until"])
    fields: dict[str, Any] = {key: tuple(stated[key]) for key in _IDENTIFIED} | {key: stated[key] for key in _SAID}
    clients = tuple(map(ip_network, stated["clients"]))
    exemption = Exemption(**fields, clients=clients, until=until, override=True)
    return Override(exemption, Span(Instant.MIN, until))
