"""Counts the readings of the policy, and tells of each in the log and on standard error."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

from tokgate.blocklog.records import lifecycle
from tokgate.blocklog.records.record import Record, Stamp
from tokgate.config.diagnostics import Level, render
from tokgate.config.reload.holder import Reloaded
from tokgate.policy.analysis.definitions import weaker_settings
from tokgate.policy.settings import LogSettings

logger = logging.getLogger(__name__)


def restart_needed(running: LogSettings, wanted: LogSettings) -> tuple[str, ...]:
    """The keys of the log's settings that differ from those the log was opened with, at the start."""
    keys = (each.name for each in fields(LogSettings) if each.compare and each.name != "small_groups")
    return tuple(f"settings.log.{key}" for key in keys if getattr(running, key) != getattr(wanted, key))


@dataclass(slots=True)
class Reloads:
    """How often the policy was read again, and when last. Times are seconds since the epoch."""

    succeeded: int = 0
    failed: int = 0
    last_success: float | None = None
    last_failure: float | None = None

    def note(self, reloaded: Reloaded) -> None:
        """Count a reload as succeeded or failed, at its own instant."""
        at = reloaded.at.timestamp(unit="millisecond") / 1000
        if reloaded.ok:
            self.succeeded, self.last_success = self.succeeded + 1, at
        else:
            self.failed, self.last_failure = self.failed + 1, at


def announce(reloaded: Reloaded, restart: tuple[str, ...], write: Callable[[Callable[[Stamp], Record]], None]) -> None:
    """Report a reload in the log and on standard error. `restart`: settings that take effect at a restart only."""
    policy, warnings = reloaded.snapshot.policy, len(reloaded.diagnostics)
    if reloaded.repeated:  # `tokgate reload` right after an edit that was read already: its answer tells the caller
        return
    if not reloaded.ok:
        problems = [render(d).splitlines()[0] for d in reloaded.diagnostics if d.level is Level.ERROR]
        # A warning, since mitmproxy ends where an error is logged while it starts.
        logger.warning("the new policy has errors, %s stays in force:\n%s", policy.version, "\n".join(problems))
        write(lambda stamp: lifecycle.policy_load_failed(stamp, problems, kept=policy.version))
        return
    if policy.version == reloaded.before:  # comments or order changed: no effect
        if reloaded.recovered:
            logger.warning("the policy files are valid again, %s stays in force", policy.version)
            write(lambda stamp: lifecycle.policy_loaded(stamp, policy, warnings=warnings, restart=restart))
        return
    logger.warning("policy %s is in force, it replaces %s", policy.version, reloaded.before)
    for each in weaker_settings(reloaded.changes):
        logger.warning("a setting now lets more pass than before: %s", each)
    if restart:
        logger.warning("%s: in force when tokgate is started again, not before", ", ".join(restart))
    for name in policy.held:
        logger.warning(
            "the ban %s is no longer in the files, and stays in force until the policy says under `lifted` why, "
            "or `tokgate reload --lift %s`",
            *(name, name),
        )
    write(
        lambda stamp: lifecycle.policy_loaded(
            stamp,
            policy,
            replaced=reloaded.before,
            warnings=warnings,
            restart=restart,
            effects=reloaded.effects,
            changes=reloaded.changes,
            revision={} if reloaded.revision is None else asdict(reloaded.revision),
        )
    )
