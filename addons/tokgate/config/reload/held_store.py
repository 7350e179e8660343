"""Where bans are kept that a reload holds back, and how a policy that was read comes to hold them."""

from collections.abc import Container
from dataclasses import replace
from typing import Protocol

from whenever import Instant

from tokgate.policy.analysis.held_bans import NOTHING, vanished, with_held
from tokgate.policy.bans import Lifted
from tokgate.policy.snapshot import Policy, Snapshot, compile_policy


class HeldStore(Protocol):
    """Keeps the bans that are held back: `runtime.held_file.HeldFile` where they have to outlive the process."""

    def read(self) -> Policy:
        """The bans that are held, and under `lifted` those lifted by command."""

    def write(self, kept: Policy) -> None:
        """Keep these bans in place of those that were read."""

    def enforced(self, stated: Container[str]) -> Policy:
        """The bans that were in force when tokgate last ran, with what they need, but those that are `stated` now."""

    def write_enforced(self, policy: Policy, in_force: tuple[str, ...]) -> None:
        """Keep a policy, for the next start, and which of its bans are in force."""


class HeldInMemory:
    """Keeps held bans as long as the process lives."""

    def __init__(self) -> None:
        """Nothing is held at the beginning."""
        self._kept = NOTHING

    def read(self) -> Policy:
        return self._kept

    def write(self, kept: Policy) -> None:
        self._kept = kept

    def enforced(self, stated: Container[str]) -> Policy:
        """No bans: a run that keeps nothing follows none."""
        return NOTHING

    def write_enforced(self, policy: Policy, in_force: tuple[str, ...]) -> None:
        """Keep nothing."""


def held_back(policy: Policy, old: Snapshot, lifted: tuple[Lifted, ...], now: Instant) -> Policy:
    """A policy from files, with the bans of the old one that vanished from them; `lifted` by command."""
    policy = replace(policy, lifted=(*policy.lifted, *lifted)) if lifted else policy
    return with_held(policy, old.policy, vanished(old, policy, now))


def held_at_start(policy: Policy, store: HeldStore, now: Instant) -> Policy:
    """A policy from files, with the bans that are held, and those of the last run that vanished while none ran."""
    kept, last = store.read(), store.enforced(policy.bans.keys())
    return held_back(policy, compile_policy(with_held(kept, last, tuple(last.bans))), kept.lifted, now)
