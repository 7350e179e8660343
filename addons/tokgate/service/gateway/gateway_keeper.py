"""Keeps the kernel's part of a gateway in step with the policy, in the supervisor's loop.

The kernel, and the rules on disk for the machine's next start, are compared with what policy and clock call for now,
not with what was loaded: a clock that was ahead for a while is no matter. Changes of others are found by the kernel's
notifications, and by looking at all of it now and then; they are put back, recorded, and shown for a while after that.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.records import lifecycle
from tokgate.blocklog.records.record import EventAction, Record, Stamp
from tokgate.config.reload.holder import PolicyHolder
from tokgate.gateway import GatewayError, nftables
from tokgate.gateway.canary.canary import Canary
from tokgate.gateway.kernel import STATE_FILE, Differences, GatewayLock, Kernel, Notifications, RefusalTotals
from tokgate.gateway.libnftables import TableState
from tokgate.gateway.ruleset import TABLE, Ruleset, ruleset_of
from tokgate.policy.settings import Passage
from tokgate.policy.snapshot import Snapshot
from tokgate.service.background_reload import in_thread
from tokgate.service.child_programs import SuperviseOptions, module_command, module_environment

logger = logging.getLogger(__name__)

LOOK: Final = 10.0
"""Seconds after which all of it is looked at, whether or not the kernel has told of a change."""
SETTLED: Final = 0.05
"""Seconds from a notification to the look: changes often come several at a time."""
SHARE: Final = 20.0
"""How many times its duration a look has to wait, in the long run: it costs at most a twentieth of a processor."""
AT_ONCE: Final = 10.0
"""Seconds of that which are spared for looks that follow each other at once."""
QUICK: Final = 0.3
"""Seconds of work with the kernel for which whoever asks for the state can wait: it is to come within one."""
SLOW: Final = 3.0
"""Seconds of loading a table after which it is shown."""
SHOWN: Final = 120.0
"""Seconds for which a difference is shown after it was put back, for monitors that ask once a minute."""
FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 10.0
"""Seconds before what fails, or is undone again at once, is tried again: doubled each time."""

_OWNERS: Final = 0o600
"""The mode of the file with the last rules: it says whose traffic is filtered."""


@dataclass(slots=True)
class Restored:
    """Repairs: how many, the wall-clock time of the latest, until when it is shown (monotonic), and what differed."""

    count: int = 0
    at: Instant | None = None
    until: float = 0.0
    what: tuple[str, ...] = ()


class GatewayKeeper:
    """Loads the table for each policy and phase, and restores it."""

    def __init__(  # noqa: PLR0913  (each stands for a part of the system)
        self,
        kernel: Kernel,
        snapshot: Callable[[], Snapshot],
        write: Callable[[Callable[[Stamp], Record]], None],
        say: Callable[[str], None],
        *,
        canary: Canary,
        lock: GatewayLock,
        now: Callable[[], Instant] = Instant.now,
        boot_file: Path,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is loaded before `up`. `snapshot` returns the policy in force; `write` writes records.

        `boot_file` is for the rules with which the machine starts. `meanwhile` is called often while the kernel is at
        work, which takes minutes with a hundred thousand prefixes.
        """
        self._kernel: Final = kernel
        self._snapshot: Final = snapshot
        self._write: Final = write
        self._say: Final = say
        self._now: Final = now
        self._boot_file: Final = boot_file
        self._meanwhile: Final = meanwhile
        self._loads_since: Instant | None = None
        self._works = False
        self._took = 0.0
        """Seconds of the latest work with the kernel."""
        self._unkept: str | None = None
        self._notifications: Notifications | None = None
        self._rules: Ruleset | None = None
        self._wanted: TableState | None = None
        """The table of these rules in the kernel's own form, and the text for the next start, once made."""
        self._boot_text: bytes | None = None
        self._loaded_at = now()
        self._differences = Differences()
        self._failure: str | None = None
        self._restored: Final = Restored()
        self._refused = RefusalTotals({})
        self._canary: Final = canary
        self._causes: tuple[str, ...] = ()
        """What others' firewalls do, while the canary fails."""
        self._lock: Final = lock
        self._ending = False
        self._restarts = False
        self._look_at = 0.0
        self._earliest_look = 0.0
        self._delay = 0.0
        self._retry_at = 0.0

    def up(self) -> None:
        """Load all of it. Raises GatewayError, and nothing is loaded; OSError without notifications."""
        self._lock.take()
        if self._notifications is None:
            self._notifications = Notifications()
        rules = in_thread(self._due_rules, self._meanwhile)
        began = time.monotonic()
        changed = in_thread(lambda: self._kernel.up(rules), self._meanwhile)
        self._took = time.monotonic() - began
        for name, value in changed.items():
            self._say(f"{name} was {value}: it is {self._kernel.settings[name]} while tokgate runs")
        for limit in self._kernel.limits:
            self._say(f"warning: {limit}")
        self._refused = RefusalTotals(self._kernel.refused())
        self._loaded(rules)
        self._say(f"gateway: table inet {TABLE} and its routes are loaded")

    def take_over(self) -> None:
        """As `up`, after a program that had loaded all of it: what fails is shown and tried again, and gates serve."""
        try:
            self.up()
        except (GatewayError, OSError) as error:
            self._rules = self._due_rules()
            self._fail(error)

    @property
    def sockets(self) -> list[Any]:
        """What becomes readable when somebody changes the kernel's part or the canary says something; for `noticed`."""
        return [] if self._notifications is None else [*self._notifications.sockets, self._canary.socket]

    def noticed(self) -> None:
        """Hear what the canary says; plan a look, soon, where the kernel has told of a change."""
        self._canary.hear()
        if self._notifications is not None and self._notifications.drain():
            self._look_at = min(self._look_at, max(time.monotonic() + SETTLED, self._earliest_look))

    def let_go(self) -> None:
        """In a child: close what only the supervisor needs."""
        self._canary.let_go()
        self._lock.close()
        if self._notifications is not None:
            self._notifications.close()

    def due(self) -> float:
        """Seconds until the next call of `look`."""
        pause = min(max(0.0, max(self._look_at, self._retry_at) - time.monotonic()), self._canary.due())
        until = None if self._rules is None else self._rules.until
        return pause if until is None else min(pause, max(0.0, (until - self._now()).total("seconds")))

    def look(self) -> None:
        """Load what is due, compare what is there, and put back what differs. Never raises. Nothing in the end."""
        self._look(lambda work: in_thread(work, self._meanwhile))

    def _look(self, do: Callable[[Callable[[], None]], None]) -> None:
        if self._rules is None or self._ending or self._works:
            return
        self._ask_canary()
        stale = self._now() not in self._rules.holds or self._snapshot().version != self._rules.version
        if time.monotonic() < self._retry_at or not (stale or time.monotonic() >= self._look_at):
            return
        self._works, self._loads_since = True, self._now() if stale else None
        try:
            do(lambda: self._work(stale=stale))
        except (GatewayError, OSError) as error:
            self._fail(error)
        finally:
            self._works, self._loads_since = False, None

    def state(self) -> dict[str, Any]:
        """For `tokgate status`, as JSON. Looks at the kernel first, unless it just did, or that takes long."""
        if self._took < QUICK and time.monotonic() >= self._earliest_look:
            self._look_at = 0.0
            self._look(lambda work: work())
        if not self._works:
            self._count()
        restored, rules = self._restored, self._rules
        shown = restored.what if time.monotonic() < restored.until else ()
        problems = [each for each in (self._failure, self._unkept) if each is not None] + list(self._differences)
        problems += [f"wrong until {restored.at}, put back since: {each}" for each in shown]
        problems += [f"canary: {each}" for each in (*self._causes, *self._canary.problems)]
        if self._loads_since is not None and (self._now() - self._loads_since).total("seconds") >= SLOW:
            problems.append(f"the kernel takes the table that is due, since {self._loads_since}: the one before holds")
        return {
            "ok": not problems,
            "table": TABLE,
            "policy": None if rules is None else rules.version,
            "loaded_at": str(self._loaded_at),
            "until": None if rules is None or rules.until is None else str(rules.until),
            "problems": problems,
            "differences": {part: list(found) for part, found in asdict(self._differences).items()},
            "restored": {
                "count": restored.count,
                "at": None if restored.at is None else str(restored.at),
                "what": list(restored.what),
            },
            "refused": dict(self._refused.totals),
            "canary": self._canary.state(),
        }

    # -- the end

    def drain(self, *, restarts: bool = False) -> None:
        """At a deliberate stop: let everybody pass whose connection no gate has, unless the policy says otherwise.

        `restarts`: another tokgate starts as soon as this one has ended. The rules stay, and so do they in `down`.
        """
        self._ending = True
        self._restarts = restarts
        self._canary.stop()
        if self._rules is None or self._stays_closed():
            return
        try:
            self._kernel.load(self._rules.draining())
        except GatewayError as error:
            self._say(f"the gateway's rules: {error}")

    def down(self) -> None:
        """After the last connection has ended: take everything out, unless the policy says otherwise."""
        if self._rules is None:
            return
        if self._stays_closed():
            why = "for tokgate's next start" if self._restarts else "(on_stop: closed)"
            self._say(f"gateway: table inet {TABLE} stays {why}: `tokgate gateway down` takes it out")
            return
        try:
            restored = self._kernel.down()
        except GatewayError as error:
            self._say(f"the gateway's rules: {error}")
            return
        for name, value in restored.items():
            self._say(f"{name} is {value} again")
        self._say(f"gateway: table inet {TABLE} and its routes are out")

    def _stays_closed(self) -> bool:
        return self._restarts or self._snapshot().settings.gateway.on_stop is Passage.CLOSED

    # -- inside

    def _work(self, *, stale: bool) -> None:
        """Load the table that is due, if another one is loaded, and compare. Raises GatewayError and OSError."""
        began = time.monotonic()
        self._lock.take()  # after a takeover another process may have been faster
        if stale:
            rules = self._due_rules()
            self._count()
            self._kernel.load(rules)
            self._loaded(rules)
        if self._rules is not None and time.monotonic() >= self._look_at:
            self._compare(self._rules)
        self._took = time.monotonic() - began

    def _due_rules(self) -> Ruleset:
        return ruleset_of(self._snapshot(), self._now(), self._kernel.options)

    def _loaded(self, rules: Ruleset) -> None:
        """These rules are loaded now."""
        self._rules, self._wanted, self._boot_text, self._loaded_at = rules, None, None, self._now()
        self._differences, self._failure = Differences(), None
        if self._notifications is not None:
            self._notifications.drain()  # of what was just loaded
        self._look_at = time.monotonic() + LOOK
        self._keep(rules)

    def _keep(self, rules: Ruleset) -> None:
        """Write the rules for the machine's next start, unless they are there."""
        if self._boot_text is None:
            self._boot_text = nftables.boot_rules(rules).encode()
        try:
            if not self._boot_file.exists() or self._boot_file.read_bytes() != self._boot_text:
                replace_file(self._boot_file, self._boot_text, _OWNERS)
            self._unkept = None
        except OSError as error:
            unkept = f"the rules can't be kept for the machine's next start: {error}"
            if self._unkept != unkept:
                logger.error("%s", unkept)
            self._unkept = unkept

    def _ask_canary(self) -> None:
        """Keep the canary running as the policy says, and record that it failed or recovered."""
        clients = {} if self._rules is None else self._rules.canary_clients
        self._canary.follow(self._snapshot().settings.gateway.canary, clients)
        change = self._canary.look(self._now())
        if change is None:
            return
        self._look_for_causes()
        problems = (*self._causes, *change.problems)
        if change.failed:
            logger.error("the canary failed: %s", "; ".join(problems))
        self._record(EventAction.CANARY_FAILED if change.failed else EventAction.CANARY_RECOVERED, problems)

    def _look_for_causes(self) -> None:
        """A firewall that drops what comes to the gates is told while the canary fails: else it stops nobody."""
        with contextlib.suppress(GatewayError):
            self._causes = tuple(self._kernel.dropping()) if self._canary.problems else ()

    def _count(self) -> None:
        """Add up what the kernel refused; whoever loads another table may begin its counters anew."""
        with contextlib.suppress(GatewayError):
            self._refused.take(self._kernel.refused())

    def _compare(self, rules: Ruleset) -> None:
        self._count()
        started = time.monotonic()
        self._look_for_causes()
        self._keep(rules)
        if self._wanted is None:
            self._wanted = self._kernel.wanted(rules)
        if self._notifications is not None:
            self._notifications.drain()
        before, self._differences = self._differences, self._kernel.differences(self._wanted)
        ended = time.monotonic()
        self._earliest_look = max(self._earliest_look, ended - AT_ONCE) + SHARE * (ended - started)
        self._look_at = max(ended + LOOK, self._earliest_look)
        found = tuple(self._differences)
        if not found:
            self._failure = None
            if ended >= self._restored.until:
                self._delay = 0.0
            return
        if self._differences != before:
            logger.error("the gateway's kernel differs: %s", "; ".join(found))
            self._record(EventAction.GATEWAY_DIFFERS, found)
        if self._differences.repairable:
            self._restore(rules, self._differences)

    def _restore(self, rules: Ruleset, differences: Differences) -> None:
        """Put back what differs. What is undone again at once is left for a while, and longer each time."""
        self._kernel.repair(rules)
        self._loaded(rules)
        found = differences.repairable
        self._differences = replace(differences, table=(), routes=(), settings=())
        restored, ended = self._restored, time.monotonic()
        restored.count, restored.at, restored.what = restored.count + 1, self._now(), found
        restored.until = ended + SHOWN
        self._earliest_look = ended + self._delay
        self._delay = self._longer()
        self._record(EventAction.GATEWAY_RESTORED, found)
        logger.warning("the gateway's kernel was restored")

    def _fail(self, error: GatewayError | OSError) -> None:
        if self._failure != str(error):
            self._failure = str(error)
            logger.error("the gateway's kernel can't be kept in step: %s", error)
            self._record(EventAction.GATEWAY_DIFFERS, (str(error),))
        self._delay = self._longer()
        self._retry_at = time.monotonic() + self._delay

    def _longer(self) -> float:
        return min(LONGEST_DELAY, max(FIRST_DELAY, 2 * self._delay))

    def _record(self, action: EventAction, found: tuple[str, ...]) -> None:
        version = "" if self._rules is None else self._rules.version
        self._write(lambda stamp: lifecycle.gateway_changed(stamp, action, found, version))


class NoGateway:
    """Stands in for `GatewayKeeper` where the kernel's part is not tokgate's to keep: its methods have no effect."""

    sockets: Final[list[Any]] = []

    def up(self) -> None:
        """Nothing is loaded, watched, compared or taken out."""

    take_over = noticed = let_go = look = down = up

    def due(self) -> float:
        return math.inf

    def state(self) -> dict[str, Any] | None:
        return None

    def drain(self, *, restarts: bool = False) -> None:
        """Nothing is loaded."""


def keeper_of(
    options: SuperviseOptions,
    holder: PolicyHolder,
    write: Callable[[Callable[[Stamp], Record]], None],
    say: Callable[[str], None],
    meanwhile: Callable[[], None],
) -> GatewayKeeper | NoGateway:
    """What keeps the kernel in step, where the options ask for that."""
    if options.gateway is None:
        return NoGateway()
    kernel = Kernel(options.gateway, options.confdir / STATE_FILE)
    command, tproxy = module_command("tokgate.gateway.canary.process"), kernel.routes is not None
    canary = Canary(command, module_environment(), tproxy=tproxy)
    return GatewayKeeper(
        kernel,
        lambda: holder.snapshot,
        write,
        say,
        canary=canary,
        lock=GatewayLock(),
        boot_file=options.confdir / nftables.BOOT_FILE,
        meanwhile=meanwhile,
    )
