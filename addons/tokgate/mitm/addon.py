"""The addon as mitmproxy loads it: its options, the policy and the log behind the traffic hooks, and their upkeep."""
# mypy: disallow-untyped-calls=False

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import mode_specs
from mitmproxy.utils import human
from whenever import Instant

from tokgate.blocklog.paths import DEFAULT_LOG, requests_path_for
from tokgate.blocklog.records.record import Observer, this_observer
from tokgate.blocklog.write.checkpointer import LogOptions, log_options_of
from tokgate.blocklog.write.writer import LogWriter, WriterHealth
from tokgate.config.reload.gc_tuning import freeze_objects
from tokgate.config.reload.holder import HeldStore, PolicyError, PolicyHolder, open_policy
from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.gate_mode import GateInstance, GateMode
from tokgate.mitm.hooks.connection import ConnectionHooks, ServerHooks, TurnHooks, close_silent, hear_servers
from tokgate.mitm.hooks.explicit_targets import ExplicitTargetHooks
from tokgate.mitm.hooks.http import HttpHooks
from tokgate.mitm.hooks.proxy_auth import ProxyAuthHooks, ask_in_socks
from tokgate.mitm.hooks.traffic import ProxyContext, Traffic
from tokgate.mitm.options import check_name_servers, refuse_forbidden, require
from tokgate.policy.snapshot import Snapshot
from tokgate.runtime.banner import dialled, overview
from tokgate.runtime.held_file import HeldFile
from tokgate.runtime.instance import Instance
from tokgate.traffic.counters import Counters
from tokgate.traffic.enforcer import Enforcer, RecordSink
from tokgate.traffic.exception_requests import RequestFolder
from tokgate.traffic.live_review import LiveReview
from tokgate.traffic.warning_state import WarnedClients, open_beside

logger = logging.getLogger(__name__)

SILENCE: Final = 1.0
"""Seconds of a redirected client's silence after which its server may speak first."""
PATIENCE: Final = 20.0
"""Seconds in which a client has to say what it wants."""
LOG_DEADLINE: Final = 5.0
"""Seconds that the log has at the end to write what is queued."""
_MODES: Final = (
    mode_specs.RegularMode,
    mode_specs.TransparentMode,
    mode_specs.Socks5Mode,
    mode_specs.DnsMode,
    GateMode,
)


class Log(RecordSink, Protocol):
    """Where records go: `blocklog.write.writer.LogWriter`, or a way to another process's."""

    @property
    def path(self) -> Path:
        """Where the log is, for messages and for files beside it."""

    def start(self) -> None:
        """Open. Raises OSError if that is in vain."""

    def health(self) -> WriterHealth:
        """The state of writing: counts, errors, and since when it fails."""

    def close(self, deadline: float) -> bool:
        """Write what is left within `deadline` seconds; False if records were lost."""


LogFor = Callable[[Path, Observer, LogOptions], Log]
"""Makes the log for a path."""

WarnedFor = Callable[[Path, Instant], WarnedClients]
"""Opens what is known of clients under warnings, for the log's path."""

PolicyFor = Callable[[Path, Instant, HeldStore], PolicyHolder]
"""Opens the policy in a folder, with the bans that are held back. Raises PolicyError."""


class PolicyRefused(exceptions.OptionsError):
    """There is no valid policy to start with; the message is all diagnostics."""


class Tokgate:
    """The addon. What sees traffic are its sub-addons, in `hooks`; what they share is in `traffic`."""

    name = "tokgate"

    def __init__(
        self,
        *,
        now: Callable[[], Instant] = Instant.now,
        worker: str | None = None,
        log_for: LogFor = LogWriter,
        policy_for: PolicyFor = open_policy,
        warned_for: WarnedFor = open_beside,
        counters: Counters | None = None,
    ) -> None:
        """`now` is the wall clock.

        A `worker` is one of several processes: what concerns all of them is recorded by their supervisor.
        """
        self.traffic: Final = Traffic()
        self.addons: Final = hooks(self.traffic)
        self.counters: Final = counters if counters is not None else Counters()
        self.holder: PolicyHolder | None = None
        self.log: Log | None = None
        self.stop_reason = "asked to"
        self.ends_since: Instant | None = None
        self.instance: Instance | None = None
        """The work besides traffic; None under a supervisor, which does it."""
        self._now: Final = now
        self._worker: Final = worker
        self._log_for: Final = log_for
        self._policy_for: Final = policy_for
        self._warned_for: Final = warned_for
        self._opened: tuple[str, str] | None = None
        self._review: LiveReview[ClientConnection] | None = None
        self._tasks: Final[set[asyncio.Task[object]]] = set()

    def load(self, loader: Loader) -> None:
        loader.add_option("tokgate_policies", str, "policies", "The tokgate policy: a YAML file, or a folder of them.")
        loader.add_option("tokgate_log", str, str(DEFAULT_LOG), "The file to which tokgate appends its block log.")

    def configure(self, updated: set[str]) -> None:
        """Hold mitmproxy to what a filter needs, and open policy and log once. Raises OptionsError."""
        try:
            refuse_forbidden(ctx.options)
            _check_modes(ctx.options.mode)
            check_name_servers(ctx.options)
        except exceptions.OptionsError:
            if self._opened is None:
                self._opened = "", ""  # mitmproxy comes back with the options of before, which nobody asked for
            raise
        for name in require(ctx.options):
            logger.warning("tokgate needs the option %s as %r and has set it", name, getattr(ctx.options, name))
        if updated & {"tokgate_policies", "tokgate_log"}:  # others' options come first, one by one
            self._open_once((ctx.options.tokgate_policies, ctx.options.tokgate_log))
            if self.holder is not None:
                ask_in_socks(ctx.options, wanted=self.holder.snapshot.settings.proxy_auth is not None)
        self.traffic.context = ProxyContext(
            connections=lambda: _proxyserver().connections,
            listens_at=lambda: frozenset(address[1] for address in _proxyserver().listen_addrs()),
            hostname=socket.gethostname(),
        )

    def running(self) -> None:
        """Begin the upkeep: reload, phases, silent clients, what is open."""
        if self.holder is None:
            return
        freeze_objects()
        self._keep(self.holder.watch())
        if self.instance is not None:
            self._keep(self.instance.follow())
        self._keep(self._close_silent())
        self._review = LiveReview(self.traffic.enforcer, self.traffic)
        self._keep(self._judge_again(self._review))

    def done(self) -> None:
        """Stop the background tasks and close the log, at the first call."""
        for task in self._tasks:
            task.cancel()
        log, self.log = self.log, None
        if log is not None:
            if self._review is not None:
                self._review.close()
            self.traffic.enforcer.close()
            if self.instance is not None:
                self.instance.stop(self.stop_reason)
            if not log.close(LOG_DEADLINE):
                logger.error("the block log could not be written to its end: see %s", log.path)

    def hang_up(self) -> None:
        """SIGHUP: read the policy again."""
        if self.holder is not None:
            self._keep(self.holder.reload())

    @property
    def connections(self) -> int:
        """The number of clients' connections."""
        return len(_proxyserver().connections)

    def _open_once(self, wanted: tuple[str, str]) -> None:
        """Open what is wanted. After a failure mitmproxy comes back with the options of before: not to be tried."""
        if self._opened is None:
            self._opened = wanted
            self._open(*map(Path, wanted))
        elif self.holder is not None and self._opened != wanted:
            raise exceptions.OptionsError("tokgate_policies and tokgate_log can't change while tokgate runs")

    def _open(self, policies: Path, log: Path) -> None:
        try:
            held = HeldFile.of(Path(ctx.options.confdir).expanduser(), policies)
            self.holder = self._policy_for(policies, self._now(), held)
        except PolicyError as error:
            raise PolicyRefused(f"there is no valid policy to start with:\n{error}") from None
        observer = this_observer(self._worker)
        log_kept = self.holder.snapshot.settings.log
        self.log = self._log_for(log, observer, log_options_of(log_kept))
        try:
            self.log.start()
        except OSError as error:  # another process writes it
            self.holder = self.log = None
            raise exceptions.OptionsError(f"tokgate can't write its log {log}: {error}") from error
        warned = self._warned_for(log, self._now())
        enforcer = Enforcer(self.holder, self.log, observer, counters=self.counters, now=self._now, warned=warned)
        self.traffic.enforcer = enforcer
        self.traffic.requests = RequestFolder(requests_path_for(log.absolute()))
        GateInstance.counters = self.counters
        # Before any port is open: who sees one may ask for a reload, and SIGHUP ends who has no handler for it.
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not the main thread, or no loop yet
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.hang_up)
        if self._worker is not None:
            return
        self.instance = Instance(
            self.holder,
            log,
            enforcer.write,
            self.counters.shared.read,
            version=observer.version,
            log_kept=lambda: log_kept,
            now=self._now,
        )
        self.instance.start()
        if count := len(self.holder.loaded.warnings):
            logger.warning("the policies have %d warnings, which `tokgate check` shows", count)

    async def _judge_again(self, review: LiveReview[ClientConnection]) -> None:
        while True:
            await asyncio.sleep(review.look())

    async def _close_silent(self) -> None:
        while True:
            await asyncio.sleep(SILENCE)
            self.traffic.enforcer.settle()
            await hear_servers(self.traffic, SILENCE)
            await close_silent(self.traffic, PATIENCE)

    def _keep(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something in the background; should it fail, that is logged, and enforcement goes on."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("tokgate: %s failed", task.get_coro(), exc_info=error)
            self.traffic.enforcer.failed("upkeep", error)


class ScriptedTokgate(Tokgate):
    """The addon as a script of mitmproxy's, which prints a traceback for whatever a script raises at the start."""

    def configure(self, updated: set[str]) -> None:
        """The same. What is wrong with the options at the start is logged, and mitmproxy ends."""
        begun = self.holder is not None
        try:
            super().configure(updated)
        except exceptions.OptionsError as error:
            if begun:
                raise
            logger.error("%s", error)


def _check_modes(specs: list[str]) -> None:
    """Raises OptionsError for modes that tokgate does not filter in."""
    for spec in specs:
        try:
            mode = mode_specs.ProxyMode.parse(spec)
        except ValueError as error:
            raise exceptions.OptionsError(str(error)) from error
        if not isinstance(mode, _MODES):
            known = ", ".join(each.type_name for each in _MODES if each is not GateMode)
            said = f"tokgate does not filter in mode {mode.type_name}; the modes are {known}"
            if mode.transport_protocol != "tcp":
                said += "; phones come through the gateway, by `tokgate phone`"
            raise exceptions.OptionsError(said)


def _proxyserver() -> Proxyserver:
    server = ctx.master.addons.get("proxyserver")
    if not isinstance(server, Proxyserver):
        raise RuntimeError("mitmproxy runs without its proxyserver")
    return server


def hooks(traffic: Traffic) -> tuple[object, ...]:
    """The addons in the order in which they are asked: turns, authentication, explicit targets, then decisions."""
    deciding = ConnectionHooks(traffic), HttpHooks(traffic), ServerHooks(traffic)
    return TurnHooks(traffic), ProxyAuthHooks(traffic), ExplicitTargetHooks(traffic), *deciding


def announcement(
    snapshot: Snapshot, listening: Iterable[tuple[mode_specs.ProxyMode, Sequence[tuple[str, int]]]], at: Instant
) -> Iterator[str]:
    proxy, carries = None, False
    for mode, addresses in listening:
        carries |= not isinstance(mode, mode_specs.DnsMode)
        shown = " and ".join(dict.fromkeys(human.format_address(address[:2]) for address in addresses))
        yield f"{mode.type_name}: listening on {shown}" if shown else f"{mode.type_name}: started"
        if isinstance(mode, mode_specs.RegularMode | mode_specs.Socks5Mode) and addresses and proxy is None:
            scheme = "http" if isinstance(mode, mode_specs.RegularMode) else "socks5h"
            proxy = f"{scheme}://{dialled(*addresses[0][:2])}"
    yield from overview(snapshot, at, proxy, names=carries)
