"""What was told already, so that each thing is told once: bans near their end, overrides that started and ended.

Kept in a small file beside the log, so that restarts tell nothing again. One process keeps it: the supervisor, or the
single process. Telling never waits, and failing to keep the file costs at most a repetition after a restart.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog import lifecycle
from tokgate.blocklog.document import Record
from tokgate.blocklog.stamp import Stamp
from tokgate.gate.enforcer import SnapshotSource
from tokgate.policy import overrides, reminders
from tokgate.policy.bans import Exemption
from tokgate.policy.prefixes import IPNetwork
from tokgate.policy.snapshot import Snapshot
from tokgate.proxy.reminders import Courier, letter

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds: how late an override's end may be recorded."""
REMEMBERED: Final = 24 * 40
"""Hours after the end of a ban in which its reminders are remembered: a clock set back tells nothing again."""
_FORMAT: Final = 1

Write = Callable[[Callable[[Stamp], Record]], None]
"""Writes the record that the callable makes of a stamp."""

_Identity = tuple[str, str, tuple[IPNetwork, ...]]
"""An override's name, ban and clients: another ban or other clients make it another override."""


@dataclass(frozen=True, slots=True)
class Running:
    """An override whose start was recorded and whose end was not."""

    exemption: Exemption
    until: Instant

    @property
    def identity(self) -> _Identity:
        """What makes it the same override after a change of the policy."""
        return self.exemption.name, self.exemption.ban, self.exemption.clients


class Ledger:
    """Looks, about once a second, whether there is something to tell, and remembers what was told."""

    def __init__(self, log: Path, write: Write, courier: Courier) -> None:
        """Reads what is remembered beside `log`; without a file beside it (a pipe, a device) restarts tell again."""
        self._path: Final = beside(log)
        self._write: Final = write
        self._courier: Final = courier
        self._told: set[reminders.Notice] = set()
        self._running: dict[_Identity, Running] = {}
        self._seen: Snapshot | None = None
        self._failure = ""
        self._plan: tuple[reminders.Reminder, ...] = ()
        self._overrides: dict[str, overrides.Override] = {}
        if self._path is not None:
            self._read(self._path)

    def look(self, snapshot: Snapshot, now: Instant) -> bool:
        """Tell what is to be told now; whether there was anything. Then `save`."""
        if snapshot is not self._seen:
            self._plan_for(snapshot)
        self._courier.reap()
        reminded = self._remind(snapshot, now)
        return self._follow_overrides(snapshot, now) or reminded

    def look_and_save(self, snapshot: Snapshot, now: Instant) -> None:
        """Both, for a process that carries no traffic. Never raises."""
        if self._look(snapshot, now):
            self.save()

    async def follow(self, source: SnapshotSource, now: Callable[[], Instant] = Instant.now) -> None:
        """Both, again and again until cancelled, in an event loop that carries traffic."""
        while True:
            if source.snapshot is not self._seen:  # takes longest: tens of milliseconds for a thousand bans
                with contextlib.suppress(Exception):  # what fails here fails again below, and is told
                    await asyncio.to_thread(self._plan_for, source.snapshot)
            if self._look(source.snapshot, now()):
                await asyncio.to_thread(self.save)
            await asyncio.sleep(LOOK_EVERY)

    def _plan_for(self, snapshot: Snapshot) -> None:
        """Work out what there will be to tell under a policy."""
        self._plan, self._overrides = reminders.plan(snapshot), dict(overrides.overrides(snapshot))
        self._seen = snapshot

    def _look(self, snapshot: Snapshot, now: Instant) -> bool:
        """`look`; should it fail, that is told, once, and enforcement goes on."""
        try:
            anything = self.look(snapshot, now)
        except Exception as error:
            if repr(error) != self._failure:
                self._failure = repr(error)
                logger.exception("reminders and overrides can't be followed")
                self._write(partial(lifecycle.internal_error, error=error, where="ledger"))
            return False
        self._failure = ""
        return anything

    def _remind(self, snapshot: Snapshot, now: Instant) -> bool:
        found = list(reminders.due(self._plan, now, self._told))
        if found:  # remembered before it is told: should telling fail, it must not fail every second
            self._told |= {notice for notice in reminders.missed(self._plan, now) if notice.ends > now}
            self._told = {notice for notice in self._told if notice.ends.add(hours=REMEMBERED) > now}
        for reminder in found:
            record = self._written(
                partial(lifecycle.ban_near_expiry, track=reminder.track, policy_version=snapshot.version)
            )
            if record is not None:
                self._courier.send(snapshot.settings.notify, letter(record, reminder))
        return bool(found)

    def _written(self, build: Callable[[Stamp], Record]) -> Record | None:
        """Write a record; the record, unless it could not be made."""
        made: list[Record] = []

        def remember(stamp: Stamp) -> Record:
            made.append(build(stamp))
            return made[0]

        self._write(remember)
        return made[0] if made else None

    def _follow_overrides(self, snapshot: Snapshot, now: Instant) -> bool:
        version = snapshot.version
        held = overrides.standing(self._overrides, now)
        standing = {run.identity: run for run in (Running(each.exemption, each.span.end) for each in held.values())}
        before, self._running = self._running, standing
        ended = [run for identity, run in before.items() if identity not in standing]
        started = [run for identity, run in standing.items() if identity not in before]
        for run in ended:
            last, why = self._last_words(run, now)
            self._write(
                partial(
                    lifecycle.override_ended,
                    exemption=last.exemption,
                    until=last.until,
                    policy_version=version,
                    why=why,
                )
            )
        for run in started:
            self._write(
                partial(lifecycle.override_started, exemption=run.exemption, until=run.until, policy_version=version)
            )
        return standing != before

    def _last_words(self, run: Running, now: Instant) -> tuple[Running, str]:
        """An ended override as the policy has it now, and why it ended."""
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
        """Keep what was told: written beside, then renamed, so that it is there whole or not at all."""
        if self._path is None:
            return
        text = json.dumps(self._document(), indent=1, ensure_ascii=False) + "\n"
        fresh = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(descriptor)
            fresh.replace(self._path)
        except OSError as error:
            logger.warning("what was told can't be kept in %s, a restart may tell it again: %s", self._path, error)

    def _document(self) -> dict[str, Any]:
        ordered = sorted(self._told, key=lambda notice: (notice.ban, notice.zone, notice.ends, notice.before))
        return {
            "version": _FORMAT,
            "reminders": [
                {"ban": each.ban, "zone": each.zone, "ends": each.ends.format_iso(), "before": each.before}
                for each in ordered
            ],
            "overrides": [_stated(run) for run in self._running.values()],
        }

    def _read(self, path: Path) -> None:
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            if said["version"] != _FORMAT:
                raise ValueError(f"format {said['version']} is not known")
            told = {
                reminders.Notice(each["ban"], each["zone"], Instant.parse_iso(each["ends"]), each["before"])
                for each in said["reminders"]
            }
            running = [_running(each) for each in said["overrides"]]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("what was told can't be read from %s, it will be told again: %s", path, error)
            return
        self._told, self._running = told, {run.identity: run for run in running}


def beside(log: Path) -> Path | None:
    """Where what was told is kept: `block.told.json` for `block.ndjson`; nowhere for a log that is no file."""
    try:
        if log.exists() and not log.is_file():
            return None
    except OSError:  # what is there can't be seen: then neither can it be written, and that will be told
        pass
    return log.with_name(f"{log.stem}.told.json")


def _stated(run: Running) -> dict[str, Any]:
    exemption = run.exemption
    return {
        "name": exemption.name,
        "ban": exemption.ban,
        "clients": [str(client) for client in exemption.clients],
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
        until=until,
        reason=stated["reason"],
        ticket=stated["ticket"],
        by=stated["by"],
        override=True,
    )
    return Running(exemption, until)
