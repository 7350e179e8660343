"""The policy in force: read at start, read again when files change, and exchanged whole or not at all.

Reading and compiling happen in a worker thread; readers see one reference that is swapped. Events of the file system
only say when to look; what counts is whether the files are others than those that were read.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import watchfiles
from whenever import Instant

from tokgate.config.diagnostics import Code, Diagnostic, Level, render
from tokgate.config.files import policy_files
from tokgate.config.loader import Loaded, load
from tokgate.config.memory import release, undisturbed
from tokgate.config.settling import LOOK_AGAIN, Fingerprint, Settling, statuses
from tokgate.config.source import Report
from tokgate.policy.comparison import Change, changes
from tokgate.policy.origin import Origin
from tokgate.policy.snapshot import Policy, Snapshot, compile_policy

_log: Final = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds after which files are looked at without any event: network file systems send none."""

_UNUSED: Final = 2
"""References to something that only the one who asks has."""


class PolicyError(Exception):
    """There is no valid policy; `diagnostics` say why."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        """The message is the rendered diagnostics."""
        super().__init__("\n".join(render(each) for each in diagnostics))
        self.diagnostics: Final = diagnostics


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of reading again; `snapshot` is the one in force now, the old one unless `ok`.

    `before` is the version that was in force, and `changes` what the new one says otherwise. `mended`: the files could
    not be taken before.
    """

    ok: bool
    snapshot: Snapshot
    diagnostics: tuple[Diagnostic, ...]
    at: Instant
    before: str
    changes: tuple[Change, ...] = ()
    mended: bool = False


def open_policy(path: Path, now: Instant) -> "PolicyHolder":
    """Read and compile; raises PolicyError when there is no valid policy."""
    began = time.time_ns()
    seen = fingerprint(path)
    loaded = load(path, now)
    if loaded.policy is None:
        raise PolicyError(loaded.diagnostics)
    # Which inventories there are is known only now: one that changed meanwhile counts as not seen, and is read again.
    seen |= {path: status for path, status in statuses(loaded.inventories).items() if status[-1] < began}
    return PolicyHolder(path, compile_policy(loaded.policy), loaded, loaded_at=now, seen=seen)


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
    ) -> None:
        """Start from a policy that was loaded; `seen` are the files as they were then."""
        self.path: Final = path
        self.snapshot = snapshot
        self.loaded = loaded
        self.loaded_at = Instant.now() if loaded_at is None else loaded_at
        self.in_force_since = self.loaded_at
        self.last_error: str | None = None
        self.last_change: Reloaded | None = None
        """The reading that brought the policy in force, unless it is the one of the start."""
        self._others: tuple[Path, ...] = loaded.inventories
        """Inventories: files that the policy files name."""
        self._seen: Fingerprint = self._look() if seen is None else seen
        self._lock: Final = asyncio.Lock()
        self._latest: tuple[float, Reloaded] | None = None
        """Until when what was read last was what the files said, and what came of it."""
        self._subscribers: list[Callable[[Reloaded], None]] = []
        self._watching = False
        self._replaced: list[Snapshot] = []

    def subscribe(self, callback: Callable[[Reloaded], None]) -> None:
        """Have `callback` called in the event loop after each reading, good or bad."""
        self._subscribers.append(callback)

    def changed(self) -> bool:
        """Whether the files are others than those that were read last; costs a `stat` of each."""
        return self._look() != self._seen

    async def reload(self) -> Reloaded:
        """Read again once the files rest. An invalid policy changes nothing but `last_error`.

        Who asks while it is read gets what comes of that: what changes meanwhile is read in the same turn.
        """
        asked = time.monotonic()
        async with self._lock:
            if self._latest is not None and asked < self._latest[0]:
                return self._latest[1]
            while True:
                result = await self.read_rested(await self._settled())
                if result is not None:
                    return result

    async def read_rested(self, seen: Fingerprint) -> Reloaded | None:
        """Read again files that rest, in the state `seen`; None if they have to come to rest once more.

        They changed while they were read, or name files that were not looked at.
        """
        reloaded = await asyncio.to_thread(self._read)
        self._seen, self._others = seen, reloaded[0].inventories
        looked = time.monotonic()
        if await asyncio.to_thread(self._look) != seen:
            return None
        result = self._exchange(*reloaded)
        self._latest = looked, result
        for callback in self._subscribers:
            try:
                callback(result)
            except Exception:
                _log.exception("a subscriber to policy changes failed")
        return result

    async def watch(self) -> None:
        """Read again whenever the files change, and let go of policies that nobody uses any more, until cancelled."""
        self._watching = True
        async with aclosing(self._wake_ups()) as wake_ups:
            async for _ in wake_ups:
                if await asyncio.to_thread(self.changed):
                    await self.reload()
                if self._replaced:
                    await asyncio.to_thread(self._let_go)

    def _let_go(self) -> None:
        """Free what was replaced, in a worker thread, once decisions made with it are history."""
        for _ in range(len(self._replaced)):
            old = self._replaced.pop(0)
            if sys.getrefcount(old) > _UNUSED:
                self._replaced.append(old)
                continue
            held: list[object] = [old]
            del old
            release(held)

    def _read(self) -> tuple[Loaded, Snapshot | None, tuple[Change, ...]]:
        """Load, compile and compare, in a worker thread; a fault of ours is reported like a fault of the policy's."""
        try:
            with undisturbed():
                loaded = load(self.path, Instant.now())
                policy = loaded.policy
                if policy is None:
                    return loaded, None, ()
                if not _says_the_same(self.snapshot.policy, policy):
                    return loaded, compile_policy(policy), self._changes(policy)
                loaded, unneeded = replace(loaded, policy=self.snapshot.policy), [policy]
                del policy
                release(unneeded)
                return loaded, self.snapshot, ()
        except Exception as error:
            _log.exception("loading the policy failed")
            message = f"loading failed unexpectedly: {type(error).__name__}: {error}"
            diagnostic = Diagnostic(Level.ERROR, Origin(str(self.path), 1, 1), message, Code.INTERNAL)
            return Loaded(None, (diagnostic,), (), ()), None, ()

    def _changes(self, policy: Policy) -> tuple[Change, ...]:
        old = self.snapshot.policy
        return () if policy.version == old.version else tuple(changes(old, policy))

    def _exchange(self, loaded: Loaded, snapshot: Snapshot | None, changed: tuple[Change, ...]) -> Reloaded:
        """Put the new policy in force, if there is one."""
        before, now, mended = self.snapshot.version, Instant.now(), self.last_error is not None
        if snapshot is None:
            errors = loaded.errors
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            self.last_error = render(errors[0]).splitlines()[0] + more
            return Reloaded(False, self.snapshot, loaded.diagnostics, now, before)
        if self._watching and snapshot is not self.snapshot:
            self._replaced.append(self.snapshot)
        self.snapshot, self.loaded, self.loaded_at, self.last_error = snapshot, loaded, now, None
        result = Reloaded(True, snapshot, loaded.diagnostics, now, before, changed, mended)
        if snapshot.version != before:
            self.last_change, self.in_force_since = result, now
        return result

    def settling(self) -> Settling:
        """For whoever can't wait in `reload`: tells when the files rest, to be read by `read_rested`."""
        return Settling(self._look, self._seen, self._restless)

    async def _settled(self) -> Fingerprint:
        """Wait until the files rest; longer when something was lost."""
        settling = await asyncio.to_thread(self.settling)
        while (state := await asyncio.to_thread(settling.rested)) is None:
            await asyncio.sleep(LOOK_AGAIN)
        return state

    def _restless(self) -> None:
        self.last_error = f"the policy files in {self.path} keep changing: not read yet"
        _log.warning(self.last_error)

    def _look(self) -> Fingerprint:
        return fingerprint(self.path) | statuses(self._others)

    async def _wake_ups(self) -> AsyncGenerator[None]:
        """Yield when something may have changed; begins anew when the folder is another one."""
        while True:
            folder = await asyncio.to_thread(_identity, self.path)
            yield
            try:
                async with aclosing(self._events()) as events:
                    async for _ in events:
                        yield
                        if await asyncio.to_thread(_identity, self.path) != folder:
                            break
            except (OSError, RuntimeError) as error:  # gone, or the system's limit of watches is reached
                _log.debug("watching %s: %s", self.path, error)
                await asyncio.sleep(LOOK_EVERY)

    def _events(self) -> AsyncGenerator[object]:
        return watchfiles.awatch(
            self.path,
            watch_filter=None,
            debounce=50,
            step=20,
            rust_timeout=int(LOOK_EVERY * 1000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )


def _says_the_same(old: Policy, new: Policy) -> bool:
    """Whether nothing can tell two policies apart: records name the file that a ban is in."""
    return old.version == new.version and _ban_files(old) == _ban_files(new)


def _ban_files(policy: Policy) -> dict[str, str | None]:
    return {name: None if ban.origin is None else ban.origin.file for name, ban in policy.bans.items()}


def fingerprint(path: Path) -> Fingerprint:
    """The state of the policy files, without reading them."""
    return statuses(policy_files(path, Report()))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
