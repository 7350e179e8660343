"""The file of an override: its format, writing and removing it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import yaml
from whenever import Instant

from tokgate.blocklog.atomic_file import sync
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.output_file import replace_policy_file
from tokgate.cli.terminal import shown
from tokgate.policy.bans import Exemption
from tokgate.policy.schedule import Moment
from tokgate.policy.values.text import local

_SCHEMA_LINE: Final = "# yaml-language-server: $schema=../../schema/policy.schema.json"


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the history: what was done to an override, by whom, when."""

    did: str
    at: Instant
    by: str


@dataclass(frozen=True, slots=True)
class Text:
    """The content of the file. `history` is written as comments: lines of `Change`s, or lines that were read."""

    override: Exemption
    zone: str
    history: tuple[Change | str, ...]

    def encode(self) -> bytes:
        """The content of the file, in UTF-8."""
        override, zone = self.override, self.zone
        stated: dict[str, Any] = {
            "ban": override.ban,
            "clients": [str(client) for client in override.clients],
            "users": list(override.users),
            "groups": list(override.groups),
            "devices": list(override.devices),
            "interfaces": list(override.interfaces),
            "starts": _written(override.starts, zone),
            "until": _written(override.until, zone),
            "reason": override.reason,
            "ticket": override.ticket,
            "by": override.by,
            "ended_by": override.ended_by,
            "override": True,
        }
        stated = {key: value for key, value in stated.items() if value not in (None, [])}
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
        """Read the file of an override. Raises CommandError if it holds anything else, or is another file."""
        where = override.origin
        if where is None or Path(where.file) != path:
            message = f"it stands in {where} and not in {shown(str(path))}: change its `until` there"
            raise CommandError(message, Exit.FINDINGS)
        text = path.read_text(encoding="utf-8-sig")
        said = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  (makes nothing but text, lists and mappings)
        if set(said) - {"version", "exemptions"} or set(said["exemptions"]) != {override.name}:
            message = f"{shown(str(path))} holds more than this override: change its `until` there ({where})"
            raise CommandError(message, Exit.FINDINGS)
        comments = [line for line in text.splitlines() if line.startswith("#")]
        return cls(override, zone, tuple(line for line in comments if line not in (_SCHEMA_LINE, "#")))


def _written(moment: Moment | None, zone: str) -> str | None:
    """With its offset, so that it is the same instant in every network of the ban."""
    if isinstance(moment, Instant):
        return moment.to_tz(zone).to_fixed_offset().format_iso(unit="second")
    return None if moment is None else moment.format_iso()


def write(path: Path, text: bytes) -> None:
    """Replace a file, and make its folder where it is missing. Raises OSError."""
    folder = path.parent
    if not folder.exists():
        folder.mkdir()
        folder.chmod(0o755)  # whatever the mask: tokgate may run as another user
    replace_policy_file(path, text)


def remove(path: Path) -> None:
    """Delete a file, and sync its folder. Raises OSError."""
    path.unlink()
    sync(path.parent)
