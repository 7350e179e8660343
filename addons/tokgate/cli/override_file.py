"""An override's file: how it reads, and how it gets on the disk whole or not at all, one writer at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import yaml
from whenever import Instant

from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.terminal import shown
from tokgate.policy.bans import Exemption
from tokgate.policy.instants import local
from tokgate.policy.schedule import Moment

_SCHEMA_LINE: Final = "# yaml-language-server: $schema=../../schema/policy.schema.json"
_MODE: Final = 0o644
"""Policies hold no secrets, and tokgate may run as another user."""


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to an override, for those who read the file."""

    did: str
    at: Instant
    by: str


@dataclass(frozen=True, slots=True)
class Text:
    """An override as its file states it. `history` is shown in comments, lines of `Change`s or as they were."""

    override: Exemption
    zone: str
    history: tuple[Change | str, ...]

    def encode(self) -> bytes:
        """The file's bytes."""
        override, zone = self.override, self.zone
        stated: dict[str, Any] = {
            "ban": override.ban,
            "clients": [str(client) for client in override.clients],
            "starts": _written(override.starts, zone),
            "until": _written(override.until, zone),
            "reason": override.reason,
            "ticket": override.ticket,
            "by": override.by,
            "ended_by": override.ended_by,
            "override": True,
        }
        stated = {key: value for key, value in stated.items() if value is not None}
        body = yaml.safe_dump(
            {"version": 1, "exemptions": {override.name: stated}}, sort_keys=False, allow_unicode=True, width=1 << 20
        )
        return "\n".join((_SCHEMA_LINE, "#", *map(self._comment, self.history), body)).encode()

    def _comment(self, change: Change | str) -> str:
        if isinstance(change, str):
            return change
        return f"# {change.did.capitalize()} by `tokgate override`: {local(change.at, self.zone)}, {change.by}"

    @classmethod
    def read(cls, path: Path, override: Exemption, zone: str) -> Self:
        """An override's file as it is; refuses one that holds anything else, or is somewhere else."""
        where = override.origin
        if where is None or Path(where.file) != path:
            message = f"it stands in {where} and not in {shown(str(path))}: change its `until` there"
            raise CommandError(message, Exit.FINDINGS)
        text = path.read_text(encoding="utf-8-sig")
        said = yaml.load(text, Loader=yaml.BaseLoader)
        if set(said) - {"version", "exemptions"} or set(said["exemptions"]) != {override.name}:
            message = f"{shown(str(path))} holds more than this override: change its `until` there ({where})"
            raise CommandError(message, Exit.FINDINGS)
        comments = [line for line in text.splitlines() if line.startswith("#")]
        return cls(override, zone, tuple(line for line in comments if line not in (_SCHEMA_LINE, "#")))


def _written(moment: Moment | None, zone: str) -> str | None:
    """With its offset, so that it means the same in every network of the ban."""
    if isinstance(moment, Instant):
        return moment.to_tz(zone).to_fixed_offset().format_iso(unit="second")
    return None if moment is None else moment.format_iso()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other commands that change overrides waiting; released by the system should this process die."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write(path: Path, text: bytes) -> None:
    """Put a file in place by renaming: who reads the folder meanwhile sees the old state or the new one."""
    folder = path.parent
    if not folder.exists():
        folder.mkdir()
        folder.chmod(0o755)  # whatever the mask: tokgate may run as another user
    fresh = folder / f".{path.name}.new"  # hidden: not a policy file
    try:
        with fresh.open("wb") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), _MODE)
            os.fsync(stream.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    _sync(folder)


def remove(path: Path) -> None:
    """Take a file away for good."""
    path.unlink()
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
