"""What came of reading the policy again: told in the log and on standard error, and to whoever asked for it."""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from tokgate.blocklog import lifecycle
from tokgate.blocklog.document import Record
from tokgate.blocklog.stamp import Stamp
from tokgate.config.diagnostics import Diagnostic, Level, as_json, render
from tokgate.config.reload import PolicyHolder, Reloaded
from tokgate.policy.comparison import Change
from tokgate.proxy.control import Caller
from tokgate.proxy.state import Worker

logger = logging.getLogger(__name__)

ENOUGH: Final = 60.0
"""Seconds that workers have to take over a policy that was read, before whoever waits is told which have not."""
MAX_CHANGES: Final = 1000
MAX_WORDS: Final = 5
"""How many names of a change, and words of a name, are told; the rest is counted."""


def announce(reloaded: Reloaded, restart: tuple[str, ...], write: Callable[[Callable[[Stamp], Record]], None]) -> None:
    """Tell log and standard error. `restart`: settings that are in force after a restart only."""
    policy, warnings = reloaded.snapshot.policy, len(reloaded.diagnostics)
    if not reloaded.ok:
        problems = [render(d).splitlines()[0] for d in reloaded.diagnostics if d.level is Level.ERROR]
        logger.error("the new policy has errors, %s stays in force:\n%s", policy.version, "\n".join(problems))
        write(lambda stamp: lifecycle.policy_load_failed(stamp, problems, kept=policy.version))
        return
    if policy.version == reloaded.before:  # comments, or order: nothing that anybody would notice
        if reloaded.mended:
            logger.warning("the policy files are valid again, %s stays in force", policy.version)
            write(lambda stamp: lifecycle.policy_loaded(stamp, policy, warnings=warnings, restart=restart))
        return
    logger.warning("policy %s is in force, it replaces %s", policy.version, reloaded.before)
    if restart:
        logger.warning("%s: in force when tokgate is started again, not before", ", ".join(restart))
    replaced = reloaded.before
    write(lambda stamp: lifecycle.policy_loaded(stamp, policy, replaced=replaced, warnings=warnings, restart=restart))


def answer_of(
    holder: PolicyHolder,
    reloaded: Reloaded,
    workers: Collection[Worker],
    restart: tuple[str, ...],
) -> dict[str, Any]:
    """What `tokgate reload` gets. Where the files say what was in force already, the change that brought it there."""
    changed = reloaded.snapshot.version != reloaded.before
    told = reloaded if changed or not reloaded.ok else holder.last_change
    missing = list(_missing(workers, reloaded.snapshot.version))
    return {
        "ok": reloaded.ok and not missing,
        "read": reloaded.ok,
        "before": reloaded.before if told is None else told.before,
        "version": reloaded.snapshot.version,
        "unchanged": reloaded.ok and not changed,
        "since": str(holder.in_force_since),
        "changes": [] if told is None else [_change(change) for change in told.changes[:MAX_CHANGES]],
        "more_changes": 0 if told is None else max(0, len(told.changes) - MAX_CHANGES),
        "diagnostics": [_diagnostic(each) for each in reloaded.diagnostics],
        "restart_needed": list(restart),
        "workers": [w.name for w in workers if w.version == reloaded.snapshot.version and not w.retired],
        "missing": missing,
    }


def _missing(workers: Collection[Worker], version: str) -> Iterator[str]:
    """The workers that don't have the policy; those that end with their last connection don't count."""
    for worker in workers:
        if not worker.retired and worker.version is not None and worker.version != version:
            yield worker.name


def _change(change: Change) -> dict[str, Any]:
    words = [*change.what[:MAX_WORDS]]
    if len(change.what) > MAX_WORDS:
        words.append(f"{len(change.what) - MAX_WORDS} more")
    return {"section": change.kind, "name": change.name, "how": change.how.value, "what": words}


def _diagnostic(diagnostic: Diagnostic) -> dict[str, Any]:
    return as_json(diagnostic) | {"source": diagnostic.line, "length": diagnostic.length}


class Waiting:
    """Those who asked a supervisor for a reload: answered when all workers have the policy that was read."""

    def __init__(self, holder: PolicyHolder) -> None:
        """Nobody waits yet."""
        self._holder: Final = holder
        self._callers: list[Caller] = []
        self._reloaded: Reloaded | None = None
        self._give_up_at = 0.0
        self._told = ""

    def add(self, caller: Caller) -> None:
        """Have somebody wait for the next reading."""
        caller.tell("reading the policy")
        self._callers.append(caller)
        self._reloaded = None

    def read(self, reloaded: Reloaded) -> None:
        """The policy was read."""
        self._reloaded, self._told = reloaded, ""
        self._give_up_at = time.monotonic() + ENOUGH

    def look(self, workers: Collection[Worker], restart: tuple[str, ...]) -> None:
        """Answer if the time has come, else say what is awaited."""
        if not self._callers or self._reloaded is None:
            return
        answer = answer_of(self._holder, self._reloaded, workers, restart)
        if answer["read"] and answer["missing"] and time.monotonic() < self._give_up_at:
            self._tell(f"policy {answer['version']}: waiting for {', '.join(answer['missing'])}")
            return
        callers, self._callers = self._callers, []
        for caller in callers:
            caller.answer(answer)

    def _tell(self, text: str) -> None:
        if text == self._told:
            return
        self._told = text
        for caller in self._callers:
            caller.tell(text)

    def close(self) -> None:
        """Let everybody go without an answer."""
        for caller in self._callers:
            caller.close()
