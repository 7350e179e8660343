"""Reminders and override records that were written, so that each is written once.

They are kept in a small file beside the log, so that a restart repeats none. One process keeps it: the supervisor, or
mitmproxy without one. If the file can't be written, a restart may repeat records. Where the log disguises clients, the
file has the prefixes around them as well.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.paths import notified_path_for
from tokgate.blocklog.records import lifecycle
from tokgate.blocklog.records.record import Record, Stamp
from tokgate.blocklog.write.pseudonyms import prefix_around
from tokgate.policy.analysis.terms import Override, in_force, overrides
from tokgate.policy.analysis.timeline import Reminder, ReminderKey, due_reminders, missed_reminders, planned_reminders
from tokgate.policy.bans import Exemption
from tokgate.policy.settings import ClientsShown
from tokgate.policy.snapshot import Snapshot

logger = logging.getLogger(__name__)

REMEMBERED: Final = 24 * 40
"""Hours after the end of a ban for which its reminders are kept: a clock that is set back repeats none."""
_FORMAT: Final = 1
_MODE: Final = 0o640
_IDENTIFIED: Final = ("users", "groups", "devices", "interfaces")

Write = Callable[[Callable[[Stamp], Record]], None]
"""Writes the record that the callable makes from a stamp."""

_Identity = tuple[str, str, tuple[str, ...]]
"""An override's name, ban and clients: another ban or other clients make it another override."""


@dataclass(frozen=True, slots=True)
class Running:
    """An override whose start was recorded and whose end was not."""

    exemption: Exemption
    until: Instant

    @property
    def identity(self) -> _Identity:
        """The key that identifies the override across policy changes."""
        return self.exemption.name, self.exemption.ban, self.exemption.whom


class NotificationHistory:
    """Writes due reminder and override records, and keeps which were written."""

    def __init__(self, log: Path, write: Write) -> None:
        """Reads the file beside `log`."""
        self._path: Final = notified_path_for(log)
        self._write: Final = write
        self._told: set[ReminderKey] = set()
        self._running: dict[_Identity, Running] = {}
        self._read_disguised = False
        self._seen: Snapshot | None = None
        self._plan: tuple[Reminder, ...] = ()
        self._overrides: dict[str, Override] = {}
        self._read(self._path)

    def look(self, snapshot: Snapshot, now: Instant) -> bool:
        """Write the records that are due; whether there were any. Call `save` then."""
        if not self.knows(snapshot):
            self.plan_for(snapshot)
        reminded = self._remind(snapshot, now)
        return self._follow_overrides(snapshot, now) or reminded

    def knows(self, snapshot: Snapshot) -> bool:
        """Whether `plan_for` was done for this policy."""
        return snapshot is self._seen

    def plan_for(self, snapshot: Snapshot) -> None:
        """Compute all reminders and overrides of a policy. Slow; may run in another thread, before `look`."""
        self._plan, self._overrides = planned_reminders(snapshot), dict(overrides(snapshot))
        self._seen = snapshot

    def _remind(self, snapshot: Snapshot, now: Instant) -> bool:
        found = list(due_reminders(self._plan, now, self._told))
        if found:  # kept before it is written: a failure must not repeat every second
            self._told |= {notice for notice in missed_reminders(self._plan, now) if notice.ends > now}
            self._told = {notice for notice in self._told if notice.ends.add(hours=REMEMBERED) > now}
        for reminder in found:
            self._write(partial(lifecycle.ban_near_expiry, track=reminder.track, policy_version=snapshot.version))
        return bool(found)

    def _follow_overrides(self, snapshot: Snapshot, now: Instant) -> bool:
        version = snapshot.version
        active = in_force(self._overrides, now)
        running = {run.identity: run for run in (Running(each.exemption, each.span.end) for each in active.values())}
        before, self._running = self._recognised(running), running
        ended = [run for identity, run in before.items() if identity not in running]
        started = [run for identity, run in running.items() if identity not in before]
        for run in ended:
            last, why = self._as_ended(run, now)
            write = partial(lifecycle.override_ended, exemption=last.exemption, until=last.until, why=why)
            self._write(partial(write, policy_version=version))
        for run in started:
            write = partial(lifecycle.override_started, exemption=run.exemption, until=run.until)
            self._write(partial(write, policy_version=version))
        return running != before

    def _recognised(self, running: dict[_Identity, Running]) -> dict[_Identity, Running]:
        """The overrides that were running, by the identities of those that still are: the file may have prefixes."""
        if not self._read_disguised:
            return self._running
        self._read_disguised = False
        names = {replace(run, exemption=_disguised(run.exemption)).identity: each for each, run in running.items()}
        return {
            identity if identity in running else names.get(identity, identity): run
            for identity, run in self._running.items()
        }

    def _as_ended(self, run: Running, now: Instant) -> tuple[Running, str]:
        """An ended override as the policy states it now, and why it ended."""
        known = self._overrides.get(run.exemption.name)
        if known is not None and Running(known.exemption, known.span.end).identity == run.identity:
            run = Running(known.exemption, known.span.end)
            if known.span.end > now:
                return run, "it starts later now"
            return run, "its time is over" if known.exemption.ended_by is None else "ended early"
        if run.until <= now:
            return run, "its time is over"
        return run, "it was taken out of the policy"

    # -- the file

    def save(self) -> None:
        """Write the file. An error is logged."""
        text = json.dumps(self._document(), indent=1, ensure_ascii=False) + "\n"
        try:
            replace_file(self._path, text.encode("utf-8"), _MODE)
        except OSError as error:
            logger.warning("what was told can't be kept in %s, a restart may tell it again: %s", self._path, error)

    def _document(self) -> dict[str, Any]:
        ordered = sorted(self._told, key=lambda notice: (notice.ban, notice.zone, notice.ends, notice.before))
        return {
            "version": _FORMAT,
            "disguised": self._disguises,
            "reminders": [
                {"ban": each.ban, "zone": each.zone, "ends": each.ends.format_iso(), "before": each.before}
                for each in ordered
            ],
            "overrides": [_stated(run, disguised=self._disguises) for run in self._running.values()],
        }

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
            self._read_disguised = bool(said.get("disguised"))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("what was told can't be read from %s, it will be told again: %s", path, error)
            return
        self._told, self._running = told, {run.identity: run for run in running}


def _disguised(exemption: Exemption) -> Exemption:
    """An override by what the log shows of whom it is for: the prefixes around addresses, neither users nor devices."""
    prefixes = tuple(dict.fromkeys(map(prefix_around, exemption.clients)))
    return replace(exemption, clients=prefixes, users=(), devices=())


def _stated(run: Running, *, disguised: bool) -> dict[str, Any]:
    exemption = _disguised(run.exemption) if disguised else run.exemption
    return {
        "name": exemption.name,
        "ban": exemption.ban,
        "clients": [str(client) for client in exemption.clients],
        **{key: list(getattr(exemption, key)) for key in _IDENTIFIED},
        "until": run.until.format_iso(),
        "reason": exemption.reason,
        "ticket": exemption.ticket,
        "by": exemption.by,
    }


def _running(stated: dict[str, Any]) -> Running:
    until = Instant.parse_iso(stated["until"])
    exemption = Exemption(
        name=stated["name"],
        ban=stated["ban"],
        clients=tuple(ip_network(client) for client in stated["clients"]),
        users=tuple(stated.get("users", ())),
        groups=tuple(stated.get("groups", ())),
        devices=tuple(stated.get("devices", ())),
        interfaces=tuple(stated.get("interfaces", ())),
        until=until,
        reason=stated["reason"],
        ticket=stated["ticket"],
        by=stated["by"],
        override=True,
    )
    return Running(exemption, until)
