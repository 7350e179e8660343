"""The addon as mitmproxy loads it: its options, the policy and the log behind the traffic hooks, and their upkeep."""
# mypy: disallow-untyped-calls=False

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import mode_specs
from whenever import Instant

from tokgate.blocklog import lifecycle
from tokgate.blocklog.custody import Sealing, sealing_of
from tokgate.blocklog.health import Health as LogHealth
from tokgate.blocklog.place import DEFAULT_LOG
from tokgate.blocklog.stamp import Observer, this_observer
from tokgate.blocklog.writer import LogWriter
from tokgate.config.memory import settle
from tokgate.config.reload import PolicyError, PolicyHolder, Reloaded, open_policy
from tokgate.gate import phases
from tokgate.gate.counters import Counters
from tokgate.gate.coverage import CoverageTeller
from tokgate.gate.enforcer import Enforcer, RecordSink
from tokgate.gate.live import Review
from tokgate.gate.warned import WarnedClients, open_beside
from tokgate.policy.bans import LogSettings
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.timeline import Transition
from tokgate.proxy.adoption import GateMode
from tokgate.proxy.egress import Egress
from tokgate.proxy.health import Health
from tokgate.proxy.ledger import Ledger
from tokgate.proxy.live import VisitedConnections
from tokgate.proxy.mitmproxy_options import refuse_forbidden, require
from tokgate.proxy.name_servers import check_name_servers
from tokgate.proxy.reloading import announce
from tokgate.proxy.reminders import Courier
from tokgate.proxy.sign_in import SignIn, ask_in_socks
from tokgate.proxy.state import restart_needed
from tokgate.proxy.traffic import Place, Traffic
from tokgate.proxy.visit import Visit

logger = logging.getLogger(__name__)

PATIENCE: Final = 20.0
"""Seconds in which a client has to say what it wants."""
LOG_DEADLINE: Final = 5.0
"""Seconds that the log has at the end to write what is queued."""
_MODES: Final = (
    mode_specs.RegularMode,
    mode_specs.TransparentMode,
    mode_specs.Socks5Mode,
    mode_specs.WireGuardMode,
    mode_specs.LocalMode,
    mode_specs.TunMode,
    mode_specs.DnsMode,
    GateMode,
)


_NOTHING: Final = ("", "")
"""Stands for the policies and the log of a start that failed before it opened any."""


class Log(RecordSink, Protocol):
    """Where records go, with what its keeper needs: `blocklog.writer.LogWriter`, or a way to another process's."""

    @property
    def path(self) -> Path:
        """Where the records end up, for messages."""
        ...

    def start(self) -> None:
        """Open. Raises OSError if that is in vain."""
        ...

    def reopen(self) -> None:
        """Look whether the path leads to another file."""
        ...

    def health(self) -> LogHealth:
        """How it fares."""
        ...

    def close(self, deadline: float) -> bool:
        """Write what is left within `deadline` seconds; False if records were lost."""
        ...


LogFor = Callable[[Path, Observer, Sealing], Log]
"""Makes the log for a path."""

WarnedFor = Callable[[Path, Instant], WarnedClients]
"""Opens what is known of clients under warnings, for the log's path."""

PolicyFor = Callable[[Path, Instant], PolicyHolder]
"""Opens the policy in a folder. Raises PolicyError."""


class PolicyRefused(exceptions.OptionsError):
    """There is no valid policy to start with; the message is all diagnostics."""


class Tokgate:
    """The addon. Its parts that see traffic are in `traffic`, a sub-addon."""

    name = "tokgate"

    def __init__(
        self,
        *,
        now: Callable[[], Instant] = Instant.now,
        patience: float = PATIENCE,
        worker: str | None = None,
        log_for: LogFor = LogWriter,
        policy_for: PolicyFor = open_policy,
        warned_for: WarnedFor = open_beside,
        counters: Counters | None = None,
    ) -> None:
        """`now` is the wall clock; `patience` in seconds.

        A `worker` is one of several processes: what concerns all of them is recorded by their supervisor.
        """
        self.traffic: Final = Traffic()
        self.addons: Final = [SignIn(self.traffic), Egress(self.traffic), self.traffic]
        self.counters: Final = counters if counters is not None else Counters()
        self.holder: PolicyHolder | None = None
        self.log: Log | None = None
        self.stop_reason = "asked to"
        self.version = "unknown"
        self._now: Final = now
        self._patience: Final = patience
        self._worker: Final = worker
        self._log_for: Final = log_for
        self._policy_for: Final = policy_for
        self._warned_for: Final = warned_for
        self._started_at: Final = now()
        self._opened: tuple[str, str] | None = None
        self._log_kept: LogSettings | None = None
        self._coverage: Final = CoverageTeller(self._started_at)
        self._review: Review[Visit] | None = None
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    def load(self, loader: Loader) -> None:
        """Declare the options."""
        loader.add_option("tokgate_policies", str, "policies", "The tokgate policy: a YAML file, or a folder of them.")
        loader.add_option("tokgate_log", str, str(DEFAULT_LOG), "The file to which tokgate appends its block log.")
        loader.add_option(
            "tokgate_implementer",
            str,
            "",
            "URI of whoever runs this filter, named on the block page (RFC 7725). Default: the ban's contact.",
        )

    def configure(self, updated: set[str]) -> None:
        """Hold mitmproxy to what a filter needs, and open policy and log once. Raises OptionsError."""
        try:
            refuse_forbidden(ctx.options)
            _check_modes(ctx.options.mode)
            check_name_servers(ctx.options)
        except exceptions.OptionsError:
            if self._opened is None:
                self._opened = _NOTHING  # mitmproxy comes back with the options of before, which nobody asked for
            raise
        for name in require(ctx.options):
            logger.warning("tokgate needs the option %s as %r and has set it", name, getattr(ctx.options, name))
        if updated & {"tokgate_policies", "tokgate_log"}:  # others' options come first, one by one
            self._open_once((ctx.options.tokgate_policies, ctx.options.tokgate_log))
            if self.holder is not None:
                ask_in_socks(ctx.options, wanted=self.holder.snapshot.settings.proxy_auth is not None)
        self.traffic.place = Place(
            connections=lambda: _proxyserver().connections,
            listens_at=lambda: frozenset(address[1] for address in _proxyserver().listen_addrs()),
            implementer=ctx.options.tokgate_implementer,
            hostname=socket.gethostname(),
        )

    def running(self) -> None:
        """Begin the upkeep: reload, phases, silent clients, what is open."""
        if self.holder is None:
            return
        settle()
        self._keep(self.holder.watch())
        if self._worker is None:
            self._keep(phases.follow(self.holder, self._phase_changed, self._now))
            ledger = Ledger(Path(ctx.options.tokgate_log), self._enforcer().write, Courier(reaps=True))
            self._keep(ledger.follow(self.holder, self._now))
            self._keep(self._tell_coverage())
        self._keep(self._close_silent())
        self._review = Review(self._enforcer(), VisitedConnections(self.traffic.visits, self._enforcer()))
        self._keep(_judge_again(self._review))

    def done(self) -> None:
        """End the upkeep and the log; once."""
        for task in self._tasks:
            task.cancel()
        log, self.log = self.log, None
        if log is not None:
            if self._review is not None:
                self._review.close()
            self._enforcer().close()
            if self._worker is None:
                self._enforcer().write(self._coverage.tell(self.counters.decisions, self._now()))
                self._enforcer().write(lambda stamp: lifecycle.stopped(stamp, os.getpid(), self.stop_reason))
            if not log.close(LOG_DEADLINE):
                logger.error("the block log could not be written to its end: see %s", log.path)

    def hang_up(self) -> None:
        """SIGHUP: read the policy again and open the log again."""
        if self.log is not None:
            self.log.reopen()
        if self.holder is not None:
            self._keep(self._reload(self.holder))

    def health(self) -> Health:
        """How it is going."""
        if self.holder is None or self.log is None:
            raise RuntimeError("tokgate has no policy")
        return Health(
            started_at=self._started_at,
            policy_version=self.holder.snapshot.version,
            policy_loaded_at=self.holder.loaded_at,
            policy_error=self.holder.last_error,
            log=self.log.health(),
            counters=self.counters,
            connections=len(_proxyserver().connections),
        )

    def _open_once(self, wanted: tuple[str, str]) -> None:
        """Open what is wanted. After a failure mitmproxy comes back with the options of before: not to be tried."""
        if self._opened is None:
            self._opened = wanted
            self._open(*map(Path, wanted))
        elif self.holder is not None and self._opened != wanted:
            raise exceptions.OptionsError("tokgate_policies and tokgate_log can't change while tokgate runs")

    def _open(self, policies: Path, log: Path) -> None:
        try:
            self.holder = self._policy_for(policies, self._now())
        except PolicyError as error:
            raise PolicyRefused(f"there is no valid policy to start with:\n{error}") from None
        observer = this_observer(self._worker)
        self.version = observer.version
        self._log_kept = self.holder.snapshot.settings.log
        self.log = self._log_for(log, observer, sealing_of(self._log_kept))
        try:
            self.log.start()
        except OSError as error:  # another process writes it
            self.holder = self.log = None
            raise exceptions.OptionsError(f"tokgate can't write its log {log}: {error}") from error
        warned = self._warned_for(log, self._now())
        enforcer = Enforcer(self.holder, self.log, observer, counters=self.counters, now=self._now, warned=warned)
        self.traffic.enforcer = enforcer
        # Before any port is open: who sees one may ask for a reload, and SIGHUP ends who has no handler for it.
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not the main thread, or no loop yet
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.hang_up)
        if self._worker is not None:
            return
        policy = self.holder.snapshot.policy
        enforcer.write(lambda stamp: lifecycle.started(stamp, os.getpid(), policy))
        self.holder.subscribe(self._reloaded)
        if count := len(self.holder.loaded.warnings):
            logger.warning("the policies have %d warnings, which `tokgate check` shows", count)

    def restart_needed(self) -> tuple[str, ...]:
        """The settings of the policy in force that wait for a restart."""
        if self.holder is None or self._log_kept is None:
            return ()
        return restart_needed(self._log_kept, self.holder.snapshot.settings.log)

    def _reloaded(self, reloaded: Reloaded) -> None:
        """Tell log and standard error what came of reading the policy again."""
        announce(reloaded, self.restart_needed(), self._enforcer().write)

    def _phase_changed(self, transition: Transition, snapshot: Snapshot) -> None:
        self._enforcer().write(lambda stamp: lifecycle.phase_changed(stamp, transition, snapshot.version))

    async def _tell_coverage(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self._coverage.due(now := self._now()):
                self._enforcer().write(self._coverage.tell(self.counters.decisions, now))

    async def _close_silent(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._patience / 2))
            self._enforcer().settle()
            await self.traffic.close_silent(self._patience)

    async def _reload(self, holder: PolicyHolder) -> None:
        await holder.reload()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background; should it fail, that is logged, and enforcement goes on."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("tokgate: %s failed", task.get_coro(), exc_info=error)
            self._enforcer().failed("upkeep", error)

    def _enforcer(self) -> Enforcer:
        if self.traffic.enforcer is None:
            raise RuntimeError("tokgate has no policy")
        return self.traffic.enforcer


async def _judge_again(review: Review[Visit]) -> None:
    while True:
        await asyncio.sleep(review.look())


def _check_modes(specs: list[str]) -> None:
    """Raises OptionsError for modes that are no filter's: they lead all clients to one destination."""
    for spec in specs:
        try:
            mode = mode_specs.ProxyMode.parse(spec)
        except ValueError as error:
            raise exceptions.OptionsError(str(error)) from error
        if not isinstance(mode, _MODES):
            raise exceptions.OptionsError(f"tokgate does not filter in mode {mode.type_name}")


def _proxyserver() -> Proxyserver:
    server = ctx.master.addons.get("proxyserver")
    if not isinstance(server, Proxyserver):
        raise RuntimeError("mitmproxy runs without its proxyserver")
    return server
