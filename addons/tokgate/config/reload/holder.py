"""The policy in force: read at start, read again when files change, and replaced whole or not at all.

Reading and compiling happen in a worker thread; readers see one reference that is replaced. Files are compared by their
status, without events: network file systems and the volumes of containers send none.
"""

import asyncio
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.config.diagnostics import Code, Diagnostic, Level, render
from tokgate.config.loader import Loaded, load
from tokgate.config.reload.gc_tuning import without_collections
from tokgate.config.reload.quiescence import LOOK_AGAIN, Fingerprint, StabilityCheck, statuses
from tokgate.config.yaml.source import Report, policy_files
from tokgate.policy.analysis.definitions import DefinitionChange, changes
from tokgate.policy.analysis.held_bans import (
    NO_EFFECTS,
    BanEffects,
    effects,
    in_force,
    restricted,
    vanished,
    with_held,
)
from tokgate.policy.bans import Lifted
from tokgate.policy.snapshot import NOTHING, Policy, Snapshot, compile_policy
from tokgate.policy.values import Origin

_log: Final = logging.getLogger(__name__)

LOOK_EVERY: Final = 0.25
"""Seconds between two looks at the files."""


class PolicyError(Exception):
    """The policy is invalid; `diagnostics` say why."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        """The message is the rendered diagnostics."""
        super().__init__("\n".join(render(each) for each in diagnostics))
        self.diagnostics: Final = diagnostics


@dataclass(frozen=True, slots=True)
class Revision:
    """The last commit that changed the policy files. `uncommitted`: they were changed since, nobody knows by whom."""

    commit: str
    author: str
    uncommitted: bool = False


class HeldStore:
    """Keeps the bans that are held back, as long as the process lives; `runtime.held_file.HeldFile` outlives it."""

    def __init__(self) -> None:
        """Nothing is held at the beginning."""
        self._kept = NOTHING

    def read(self) -> Policy:
        """The bans that are held, and under `lifted` those lifted by command."""
        return self._kept

    def write(self, kept: Policy) -> None:
        """Keep these bans in place of those that were read."""
        self._kept = kept

    def enforced(self, stated: Container[str]) -> Policy:
        """The bans that were in force when tokgate last ran, with what they need, but those that are `stated` now."""
        return NOTHING

    def last(self) -> Policy | None:
        """The whole policy that was in force when tokgate last ran; None if none is kept."""
        return None

    def write_enforced(self, policy: Policy, in_force: tuple[str, ...]) -> None:
        """Keep a policy for the next start, and which of its bans are in force."""


@dataclass(frozen=True, slots=True)
class PolicyRead:
    """What was read: `snapshot` is None if it is invalid, and the one in force if nothing changes.

    `looked` is the monotonic time at which the files still were as it was read from them.
    """

    loaded: Loaded
    snapshot: Snapshot | None
    changes: tuple[DefinitionChange, ...] = ()
    effects: BanEffects = NO_EFFECTS
    revision: Revision | None = None
    looked: float = 0.0


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of a reload; `snapshot` is the one in force now, which is the old one unless `ok`.

    `before` is the version that was in force, `changes` its differences from the new one. `recovered`: the previous
    reload had failed. `repeated`: it had failed with the same errors, and the files are the same.
    """

    ok: bool
    snapshot: Snapshot
    diagnostics: tuple[Diagnostic, ...]
    at: Instant
    before: str
    changes: tuple[DefinitionChange, ...] = ()
    recovered: bool = False
    repeated: bool = False
    effects: BanEffects = NO_EFFECTS
    revision: Revision | None = None


def open_policy(
    path: Path, now: Instant, held: HeldStore | None = None, compiled: Callable[[Policy], Snapshot] = compile_policy
) -> "PolicyHolder":
    """Read and compile a policy, with the bans that `held` holds back.

    If it is invalid, the one that was in force when tokgate last ran stays so; raises PolicyError where none is kept.
    Bans that were in force when tokgate last ran, and vanished since, are held back too.
    """
    began = time.time_ns()
    seen = fingerprint(path)
    loaded = load(path, now)
    # Files that these name are known only now: one that changed since `began` counts as not read, and is read again.
    seen |= {path: status for path, status in statuses(loaded.named_files).items() if status[-1] < began}
    held = HeldStore() if held is None else held
    if loaded.policy is not None:
        policy = held_at_start(loaded.policy, held, now)
    elif (last := held.last()) is not None:
        policy, loaded = last, replace(loaded, policy=last)
    else:
        raise PolicyError(loaded.diagnostics)
    return PolicyHolder(path, compiled(policy), loaded, loaded_at=now, seen=seen, held=held, compiled=compiled)


class PolicyHolder:
    """Holds the snapshot in force. Reading `snapshot` is one attribute access, from any thread."""

    def __init__(
        self,
        path: Path,
        snapshot: Snapshot,
        loaded: Loaded,
        *,
        loaded_at: Instant | None = None,
        seen: Fingerprint | None = None,
        held: HeldStore | None = None,
        follows: bool = False,
        compiled: Callable[[Policy], Snapshot] = compile_policy,
    ) -> None:
        """Start from a loaded policy; `seen` is the state of its files at that time.

        `held` keeps the bans that are held back. A holder that `follows` another process's only reads there.
        """
        self.path: Final = path
        self.snapshot = snapshot
        self.loaded = loaded
        self.loaded_at = Instant.now() if loaded_at is None else loaded_at
        self.in_force_since = self.loaded_at
        self.last_error: str | None = None
        self.errors: tuple[Diagnostic, ...] = ()
        """Why the files are not in force; `last_error` is the first of them."""
        self.failing_since: Instant | None = None
        """Since when they are not; both as far as this process knows."""
        self.last_change: Reloaded | None = None
        """The reload that put the policy in force; None if it is the one read at start."""
        self._held: Final = HeldStore() if held is None else held
        self._worker: Final = WorkerThread()
        self._held_lock: Final = threading.Lock()
        """Between reading what is kept and replacing it: `keep` runs in a thread beside `lift`."""
        self._follows: Final = follows
        self._compiled: Final = compiled
        self._others: tuple[Path, ...] = loaded.named_files
        """Inventories and files of names that the policy files name."""
        self._seen: Fingerprint = self._look() if seen is None else seen
        self._lock: Final = asyncio.Lock()
        self._latest: tuple[float, Reloaded] | None = None
        """The last reload, and the monotonic time at which the files still were as it had read them."""
        self._failed: tuple[Fingerprint, tuple[Diagnostic, ...]] | None = None
        """The files and errors of the last reload, if it failed."""
        self._subscribers: list[Callable[[Reloaded], None]] = []
        if loaded.errors:
            self._refuse(loaded.errors, self.loaded_at)

    def subscribe(self, callback: Callable[[Reloaded], None]) -> None:
        """Call `callback` after each reload, also a failed one, in the thread that calls `exchange`."""
        self._subscribers.append(callback)

    def changed(self) -> bool:
        """Whether the files differ from those that were read last; one `stat` for each file."""
        return self._look() != self._seen

    def lift(self, names: Collection[str], by: str) -> tuple[str, ...]:
        """Have bans that are held back lifted at the next reload; the names of those that are not held."""
        policy = self.snapshot.policy
        known = [name for name in names if name in policy.held]
        lifted = tuple(Lifted(ban=name, reason="`tokgate reload --lift`", by=by) for name in known)
        still = tuple(name for name in policy.held if name not in known)
        if known:
            with self._held_lock:
                self._held.write(replace(restricted(policy, still), lifted=(*self._held.read().lifted, *lifted)))
        return tuple(name for name in names if name not in known)

    async def reload(self) -> Reloaded:
        """Read the files again once they are stable. An invalid policy changes nothing but `last_error`.

        Concurrent calls share one reload; if files change during it, it reads them again before it returns.
        """
        asked = time.monotonic()
        async with self._lock:
            if self._latest is not None and asked < self._latest[0]:
                return self._latest[1]
            while (read := await self._worker.run(partial(self.read, await self._until_stable()))) is None:
                pass
            result = self.exchange(read)
            if result.ok:
                await self._worker.run(partial(self.keep, Instant.now()))
            return result

    def read(self, seen: Fingerprint) -> PolicyRead | None:
        """Read files that are stable in the state `seen`, in any thread; None if they have to become stable once more.

        That is so if they changed while they were read, or name other files than before.
        """
        read = self._read()
        self._seen, self._others = seen, read.loaded.named_files
        looked = time.monotonic()
        return replace(read, looked=looked) if self._look() == seen else None

    def exchange(self, read: PolicyRead) -> Reloaded:
        """Put a policy that was read in force, if it is valid, and tell the subscribers."""
        loaded, snapshot = read.loaded, read.snapshot
        before, now, recovered = self.snapshot.version, Instant.now(), self.last_error is not None
        if snapshot is None:
            repeated = self._refuse(loaded.errors, now)
            result = Reloaded(False, self.snapshot, loaded.diagnostics, now, before, repeated=repeated)
        else:
            self.snapshot, self.loaded, self.loaded_at, self.last_error = snapshot, loaded, now, None
            self._failed, self.errors, self.failing_since = None, (), None
            result = Reloaded(True, snapshot, loaded.diagnostics, now, before, read.changes, recovered)
            result = replace(result, effects=read.effects, revision=read.revision)
            if snapshot.version != before:
                self.last_change, self.in_force_since = result, now
        self._latest = read.looked, result
        for callback in self._subscribers:
            try:
                callback(result)
            except Exception:
                _log.exception("a subscriber to policy changes failed")
        return result

    async def watch(self) -> None:
        """Reload whenever the files change, until cancelled."""
        while True:
            if await self._worker.run(self.changed):
                await self.reload()
            await asyncio.sleep(LOOK_EVERY)

    def _read(self) -> PolicyRead:
        """Load, compile and compare, in a worker thread; an internal error is reported as a diagnostic."""
        now = Instant.now()
        try:
            with without_collections():
                loaded = load(self.path, now)
                if loaded.policy is None:
                    return PolicyRead(loaded, None)
                policy = held_back(loaded.policy, self.snapshot, self._held.read().lifted, now)
                loaded = replace(loaded, policy=policy)
                old = self.snapshot
                if old.version == policy.version and _ban_files(old.policy) == _ban_files(policy):  # which records name
                    return PolicyRead(replace(loaded, policy=old.policy), old)
                snapshot = self._compiled(policy)
                if old.version == policy.version:
                    return PolicyRead(loaded, snapshot)
                revision = None if self._follows else revision_of(self.path)
                changed = tuple(changes(old.policy, policy))
                return PolicyRead(loaded, snapshot, changed, effects(old, snapshot, now), revision)
        except Exception as error:
            _log.exception("loading the policy failed")
            message = f"loading failed unexpectedly: {type(error).__name__}: {error}"
            diagnostic = Diagnostic(Level.ERROR, Origin(str(self.path), 1, 1), message, Code.INTERNAL)
            return PolicyRead(Loaded(None, (diagnostic,), (), ()), None)

    def keep(self, now: Instant) -> None:
        """Keep for the next start which bans are held, and which are in force at `now`; to be called when that changes.

        What was lifted by command is kept until the files state it again.
        """
        if self._follows:
            return
        with self._held_lock:
            policy, kept = self.snapshot.policy, self._held.read()
            stated = policy.bans.keys() - set(policy.held)
            lifted = tuple(each for each in kept.lifted if each.ban not in stated)
            if policy.held != kept.held or lifted != kept.lifted:
                self._held.write(replace(restricted(policy, policy.held), lifted=lifted))
            self._held.write_enforced(policy, tuple(in_force(self.snapshot.tracks, now)))

    def _refuse(self, errors: tuple[Diagnostic, ...], now: Instant) -> bool:
        """Take note of why the files are not in force; whether that was so before, by the same files."""
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        self.last_error, self.errors = render(errors[0]).splitlines()[0] + more, errors
        self.failing_since = self.failing_since or now
        before, self._failed = self._failed, (self._seen, errors)
        return before == self._failed

    def stability_check(self) -> StabilityCheck:
        """For callers that can't await `reload`: says when the files are stable, for `read`."""

        def report_unstable() -> None:
            self.last_error = f"the policy files in {self.path} keep changing: not read yet"
            self.failing_since = self.failing_since or Instant.now()
            _log.warning(self.last_error)

        return StabilityCheck(self._look, self._seen, report_unstable)

    async def _until_stable(self) -> Fingerprint:
        """Wait until the files are stable; longer if one was removed or emptied."""
        check = await self._worker.run(self.stability_check)
        while (state := await self._worker.run(check.stable_state)) is None:  # noqa: ASYNC110  (files tell nothing)
            await asyncio.sleep(LOOK_AGAIN)
        return state

    def _look(self) -> Fingerprint:
        return fingerprint(self.path) | statuses(self._others)


def _ban_files(policy: Policy) -> dict[str, str | None]:
    return {name: None if ban.origin is None else ban.origin.file for name, ban in policy.bans.items()}


def fingerprint(path: Path) -> Fingerprint:
    """The state of the policy files, without reading them."""
    return statuses(policy_files(path, Report()))


def revision_of(policies: Path) -> Revision | None:
    """The revision of a folder or file of policies; None without git, outside a work tree, or without a commit."""
    folder, inside = (policies, ".") if policies.is_dir() else (policies.parent, policies.name)
    try:
        last = _git(folder, "log", "-1", "--no-show-signature", "--format=%h%x00%an <%ae>", "--", inside)
        commit, separator, author = last.strip().partition("\0")
        if not separator:
            return None
        return Revision(commit, author, bool(_git(folder, "status", "--porcelain", "--", inside).strip()))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


PATIENCE: Final = 5.0
"""Seconds for each call of git."""

_QUIET: Final = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
"""Nothing that a repository configures is run, and no lock is taken: a pull at the same moment would fail for it."""


def _git(folder: Path, *arguments: str) -> str:
    command = ("git", *_QUIET, "-C", str(folder), *arguments)
    done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    return done.stdout.decode("utf-8", "replace")


def held_back(policy: Policy, old: Snapshot, lifted: tuple[Lifted, ...], now: Instant) -> Policy:
    """A policy from files, with the bans of the old one that vanished from them; `lifted` by command."""
    policy = replace(policy, lifted=(*policy.lifted, *lifted)) if lifted else policy
    return with_held(policy, old.policy, vanished(old, policy, now))


def held_at_start(policy: Policy, store: HeldStore, now: Instant) -> Policy:
    """A policy from files, with the bans that are held, and those of the last run that vanished while none ran."""
    kept, last = store.read(), store.enforced(policy.bans.keys())
    return held_back(policy, compile_policy(with_held(kept, last, tuple(last.bans))), kept.lifted, now)


class WorkerThread:
    """One thread, which starts with the first work and stays.

    While the system allows none, the event loop does the work itself: it waits, and no policy stays out of force.
    """

    def __init__(self) -> None:
        """Nothing is started before `run`."""
        self._pool: ThreadPoolExecutor | None = None

    async def run[T](self, work: Callable[[], T]) -> T:
        """The result of `work`, which runs after what was given before."""
        pool = self._pool or ThreadPoolExecutor(1)
        try:
            done = asyncio.get_running_loop().run_in_executor(pool, work)
        except RuntimeError:  # EAGAIN of pthread_create(3)
            return work()
        self._pool = pool
        return await done
