"""The answer to `tokgate reload`, which waits until all processes have the policy that was read."""

import time
from collections.abc import Collection, Iterator
from typing import Final, TypedDict

from tokgate.config.diagnostics import DiagnosticOutput, as_json
from tokgate.config.reload.holder import Reloaded
from tokgate.policy.analysis.definitions import ChangeKind, weaker_settings
from tokgate.policy.analysis.held_bans import NO_EFFECTS
from tokgate.policy.values.text import shown
from tokgate.runtime.control_socket import Caller
from tokgate.runtime.instance import Instance
from tokgate.service.status import GatewayStatus, WorkerStatus, gateway_of

ENOUGH: Final = 60.0
"""Seconds for workers to get a policy that was read; then the answer names those that have not."""
MAX_CHANGES: Final = 1000
"""Changes in an answer; the rest is counted."""


class SourceDiagnostic(DiagnosticOutput):
    """A diagnostic with the line that it is about, and how many characters of it."""

    source: str | None
    length: int


class DefinitionChangeOutput(TypedDict):
    """A name whose definition changed."""

    section: str
    name: str
    how: ChangeKind
    what: list[str]


class BanEffects(TypedDict):
    """The bans that a reload touched, by what became of them; `held` are all that are held now."""

    begun: list[str]
    ended: list[str]
    lifted: list[str]
    held: list[str]


class PolicyRevision(TypedDict):
    """The last git commit that changed the policy files. `uncommitted`: they were changed since."""

    commit: str
    author: str
    uncommitted: bool


class ReloadAnswer(TypedDict):
    """`tokgate reload --json`. `missing` are processes that have not got the policy yet.

    `weaker_settings` are changed settings that let more pass than before, with both values. `not_held` are bans that
    were to be lifted and are not held.
    """

    ok: bool
    read: bool
    before: str
    version: str
    unchanged: bool
    since: str
    changes: list[DefinitionChangeOutput]
    bans: BanEffects
    revision: PolicyRevision | None
    more_changes: int
    weaker_settings: list[str]
    diagnostics: list[SourceDiagnostic]
    restart_needed: list[str]
    workers: list[str]
    missing: list[str]
    gateway: GatewayStatus | None
    not_held: list[str]


def answer_of(
    instance: Instance, reloaded: Reloaded, workers: Collection[WorkerStatus], not_held: tuple[str, ...] = ()
) -> ReloadAnswer:
    """The answer. If the files are unchanged, it tells the last change of the policy.

    `not_held`: bans that were to be lifted, and are not held.
    """
    holder, gateway = instance.holder, gateway_of(instance)
    changed = reloaded.snapshot.version != reloaded.before
    told = reloaded if changed or not reloaded.ok else holder.last_change
    missing, effects = list(_missing(workers, reloaded.snapshot.version)), NO_EFFECTS if told is None else told.effects
    return {
        "ok": reloaded.ok and not missing and (gateway is None or gateway["ok"]),
        "read": reloaded.ok,
        "before": reloaded.before if told is None else told.before,
        "version": reloaded.snapshot.version,
        "unchanged": reloaded.ok and not changed,
        "since": str(holder.in_force_since),
        "changes": [
            shown(DefinitionChangeOutput, each, section=each.kind, what=list(each.words))
            for each in (() if told is None else told.changes[:MAX_CHANGES])
        ],
        "bans": shown(BanEffects, effects, held=list(reloaded.snapshot.policy.held)),
        "revision": None if told is None or told.revision is None else shown(PolicyRevision, told.revision),
        "weaker_settings": [] if told is None else list(weaker_settings(told.changes)),
        "more_changes": 0 if told is None else max(0, len(told.changes) - MAX_CHANGES),
        "diagnostics": [
            SourceDiagnostic(**as_json(each), source=each.line, length=each.length) for each in reloaded.diagnostics
        ],
        "restart_needed": list(instance.restart_needed()),
        "workers": [w["name"] for w in workers if w["version"] == reloaded.snapshot.version and not w["retired"]],
        "missing": missing,
        "gateway": gateway,
        "not_held": list(not_held),
    }


def _missing(workers: Collection[WorkerStatus], version: str) -> Iterator[str]:
    """The workers with another policy; retired ones, which serve their last connections, don't count."""
    for worker in workers:
        if not worker["retired"] and worker["version"] not in (None, version):
            yield worker["name"]


class Waiting:
    """Callers of `tokgate reload`, answered when all workers have the policy that was read."""

    def __init__(self, instance: Instance) -> None:
        self._instance: Final = instance
        self._callers: list[tuple[Caller, tuple[str, ...]]] = []
        self._reloaded: Reloaded | None = None
        self._give_up_at = 0.0
        self._told = ""

    def add(self, caller: Caller, not_held: tuple[str, ...] = ()) -> None:
        """Add a caller, who waits for the next reload; `not_held` are bans that it wanted lifted in vain."""
        caller.tell("reading the policy")
        self._callers.append((caller, not_held))
        self._reloaded = None

    def read(self, reloaded: Reloaded) -> None:
        """Take note of a reload's result and start the deadline of the workers."""
        self._reloaded, self._told = reloaded, ""
        self._give_up_at = time.monotonic() + ENOUGH

    def look(self, workers: Collection[WorkerStatus]) -> None:
        """Answer when all workers have the policy or the deadline has passed, else report progress."""
        if not self._callers or self._reloaded is None:
            return
        version, missing = self._reloaded.snapshot.version, [*_missing(workers, self._reloaded.snapshot.version)]
        if self._reloaded.ok and missing and time.monotonic() < self._give_up_at:
            text = f"policy {version}: waiting for {', '.join(missing)}"
            for caller, _ in self._callers if text != self._told else ():
                caller.tell(text)
            self._told = text
            return
        callers, self._callers = self._callers, []
        for caller, not_held in callers:
            caller.answer(answer_of(self._instance, self._reloaded, workers, not_held))

    def close(self) -> None:
        """Close all connections without an answer."""
        for caller, _ in self._callers:
            caller.close()
