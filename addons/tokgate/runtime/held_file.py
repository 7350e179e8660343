"""Keeps for the next start the policy in force, and which bans are held (no file states them any more) or lifted.

They are files in the policy format in tokgate's own folder, two for each folder of policies. The supervisor writes
them, or mitmproxy without one; openers read the held bans, so that all hold the same.
"""

import hashlib
import json
import logging
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.atomic_file import replace_file
from tokgate.config import build
from tokgate.config.checks import named_files, references
from tokgate.config.diagnostics import Level, render
from tokgate.config.reload.holder import HeldStore
from tokgate.config.sections import Sections
from tokgate.config.yaml.nodes import compose
from tokgate.config.yaml.source import Report, decode, read_file
from tokgate.policy.analysis.held_bans import restricted
from tokgate.policy.networks import Network
from tokgate.policy.snapshot import NOTHING, Policy

_log: Final = logging.getLogger(__name__)

_MODE: Final = 0o640
_HEAD: Final = (
    "# Bans that the policy files no longer state and that stay in force until somebody lifts them, kept by tokgate.\n"
    "# Don't edit: `tokgate reload --lift BAN`, or `lifted: {ban: BAN, reason: ...}` in the policy.\n"
)
_ENFORCED: Final = (
    "# The policy that tokgate enforces, for the next start: it stays in force where the files have errors, and\n"
    "# a ban that was in force and vanishes meanwhile is held.\n"
    "# Don't edit. Version: "
)


class _DamagedError(Exception):
    """A file holds no policy; the message says where."""


class HeldFile(HeldStore):
    """The files for one folder of policies."""

    def __init__(self, path: Path) -> None:
        """`path` is that of the held bans."""
        super().__init__()
        self.path: Final = path
        self._enforced: Final = path.with_name(path.name.replace("held-", "enforced-", 1))
        self._in_force: Final = self._enforced.with_suffix(".txt")
        """The names of the bans in force, one a line: it changes with their phases, the policy with the files."""

    @classmethod
    def of(cls, confdir: Path, policies: Path) -> "HeldFile":
        """The files in tokgate's folder for these policies, by their whole path."""
        key = hashlib.sha256(str(policies.resolve()).encode()).hexdigest()[:12]
        return cls(confdir / f"held-{key}.yaml")

    def read(self) -> Policy:
        """The bans that are held, with what they need, and those lifted by command. Errors are logged."""
        if not self.path.exists():
            return NOTHING
        try:
            policy = _read(self.path)
        except _DamagedError as error:
            _log.warning("a ban that was held back is lifted, since its file is damaged: %s", error)
            return NOTHING
        return replace(policy, held=tuple(policy.bans))

    def write(self, kept: Policy) -> None:
        """Keep these bans, and what was lifted by command. An error is logged."""
        if not kept.bans and not kept.lifted and not self.path.exists():
            return
        try:
            _write(self.path, _HEAD, kept)
        except OSError as error:
            _log.warning("held bans can't be kept in %s, a restart would lift them: %s", self.path, error)

    def enforced(self, stated: Container[str]) -> Policy:
        """The bans in force when tokgate last ran, with what they need, but those `stated`. Errors are logged."""
        try:
            listed = self._in_force.read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return NOTHING
        except (OSError, ValueError) as error:
            _log.warning(
                "which bans were in force can't be read, so none of them is held: %s: %s", self._in_force, error
            )
            return NOTHING
        gone = [name for name in listed if name not in stated]
        if not gone:
            return NOTHING
        try:
            policy = _read(self._enforced)
        except _DamagedError as error:
            policy, why = NOTHING, str(error)
        else:
            why = f"{self._enforced} does not state them"
        lost = [name for name in gone if name not in policy.bans]
        if lost:
            _log.warning("bans that vanished while tokgate was stopped are not held: %s: %s", ", ".join(lost), why)
        return restricted(policy, tuple(name for name in gone if name in policy.bans))

    def last(self) -> Policy | None:
        """The policy that was in force when tokgate last ran; None if none is kept. Errors are logged."""
        try:
            with self._enforced.open(encoding="utf-8") as file:
                head = "".join(islice(file, _ENFORCED.count("\n") + 1))
            policy = _read(self._enforced)
            if not head.startswith(_ENFORCED):
                raise _DamagedError("its first lines are not those that tokgate wrote")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, _DamagedError) as error:
            _log.warning("the policy that was in force last can't be read from %s: %s", self._enforced, error)
            return None
        held = tuple(name for name in self.read().held if name in policy.bans)
        return replace(policy, version=head.removeprefix(_ENFORCED).strip(), held=held)

    def write_enforced(self, policy: Policy, in_force: tuple[str, ...]) -> None:
        """Keep a policy, and which of its bans are in force. An error is logged."""
        head, stands = f"{_ENFORCED}{policy.version}\n", False
        with suppress(OSError, ValueError), self._enforced.open(encoding="utf-8") as file:
            stands = file.read(len(head)) == head
        try:
            if not stands:
                _write(self._enforced, head, replace(policy, lifted=()))
            replace_file(self._in_force, "".join(f"{name}\n" for name in in_force).encode(), _MODE)
        except OSError as error:
            why = "the next start can neither fall back on it nor hold a ban that vanishes meanwhile"
            _log.warning("the policy can't be kept in %s, %s: %s", self._enforced, why, error)


def _read(path: Path) -> Policy:
    """The policy in a file that `_write` wrote. Raises _DamagedError."""
    report, sections, networks = Report(), Sections(path.parent), dict[str, Network]()
    data = read_file(path, report)
    source = None if data is None else decode(path, data, report)
    root = None if source is None else compose(source, report)
    if source is not None and root is not None:
        sections.add(source, root, report)
        named_files.read_inventories(sections, report)
        networks = references.check_networks(sections, report)
    for each in report.diagnostics:
        if each.level is Level.ERROR:
            raise _DamagedError(render(each))
    try:
        return build.policy(sections, networks)
    except (ValueError, KeyError) as error:
        raise _DamagedError(f"{path}: {error}") from None


def _write(path: Path, head: str, kept: Policy) -> None:
    """Write a policy, and its devices as inventories beside it. Raises OSError.

    Inventories are named after the version: until the policy is replaced, the one before it has its own.
    """
    lists = {name: each.devices for name, each in kept.networks.items() if each.devices}
    inventories = {name: f"{path.stem}-{kept.version}-{name}.csv" for name in lists}
    for name, file in inventories.items():
        replace_file(path.with_name(file), build.written_inventory(lists[name]).encode(), _MODE)
    sections: dict[str, Any] = {kind: dict(entries) for kind, entries in kept.stated.items() if entries}
    for name, stated in sections.get("networks", {}).items():
        listed = {"devices": {"file": inventories[name]}} if name in inventories else {}
        sections["networks"][name] = {key: each for key, each in stated.items() if key != "devices"} | listed
    if kept.lifted:
        sections["lifted"] = [{"ban": e.ban, "reason": e.reason} | ({"by": e.by} if e.by else {}) for e in kept.lifted]
    replace_file(path, "".join((head, *_body(sections))).encode(), _MODE)
    for stale in path.parent.glob(f"{path.stem}-*.csv"):
        if stale.name not in inventories.values():
            stale.unlink()


def _body(sections: dict[str, Any]) -> Iterator[str]:
    """Sections as YAML, in the subset that is JSON: PyYAML takes seconds to write 100,000 names."""
    for section, entries in sections.items():
        yield f"{section}:\n"
        if isinstance(entries, list):
            yield from (f"  - {json.dumps(entry, ensure_ascii=False)}\n" for entry in entries)
        else:
            yield from (f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}\n" for k, v in entries.items())
    if not sections:
        yield "{}\n"
