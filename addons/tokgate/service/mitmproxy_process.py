"""A process with mitmproxy's master and the addons that a filter needs, from the start to the end of draining."""
# mypy: disallow-untyped-calls=False

import asyncio
import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from mitmproxy import ctx, exceptions
from mitmproxy.addons import core, disable_h2c, dns_resolver, errorcheck, next_layer, proxyserver
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import DnsMode, ProxyMode
from whenever import Instant

from tokgate.block_page.authority import AUTHORITY, DEFAULT_CONFDIR, establish_authority, secure_folder, uncovered
from tokgate.blocklog.paths import DEFAULT_LOG
from tokgate.blocklog.records.record import counted
from tokgate.gate.egress.dialler import Sources
from tokgate.mitm.addon import PolicyRefused, Tokgate, announcement
from tokgate.mitm.gate_mode import GateInstance
from tokgate.mitm.layers.tls import NarrowCertificates
from tokgate.runtime.banner import say
from tokgate.service.last_state import StateFile
from tokgate.service.mitmproxy_addons import ControlAddon, MetricsAddon
from tokgate.service.privileges import kind_of
from tokgate.service.status import Work
from tokgate.traffic.limits import client_key

logger = logging.getLogger(__name__)

RETIRE: Final = signal.SIGUSR1
"""To an opener: take no more connections, and exit with the last one."""
_LOCAL_MODES: Final = ("regular", "socks5", "dns")
"""Modes whose clients are configured with the proxy's address: on loopback by default."""
_WITHOUT_DNS: Final = ("regular", "transparent")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of a process with mitmproxy.

    `drain` in seconds. `listen_host` None: loopback for explicit modes, all addresses for the others.
    """

    modes: tuple[str, ...] = ("regular",)
    policies: Path = Path("policies")
    log: Path = DEFAULT_LOG
    listen_host: str | None = None
    listen_port: int | None = None
    confdir: Path = DEFAULT_CONFDIR
    drain: float = 30.0
    name_servers: tuple[str, ...] = ()
    """Addresses of the resolvers for DNS modes; none: the system's."""
    metrics: tuple[str, int] | None = None
    """Host and port of the metrics' listener."""
    mark: int | None = None


async def run(options: RunOptions, say: Callable[[str], None] = say) -> int:
    """Run mitmproxy alone, without gates, until SIGTERM or SIGINT. Exit codes: those of `serve`."""
    tokgate = Tokgate()
    known = StateFile(options.confdir.expanduser())
    known.write(None, Work("it starts", str(Instant.now())), Instant.now())
    addons = (MetricsAddon(tokgate, say), Announcer(tokgate, say))
    try:
        return await serve(options, tokgate, addons, last=(ControlAddon(tokgate),), say=say)
    finally:
        known.remove()


async def serve(
    options: RunOptions,
    tokgate: Tokgate,
    addons: Sequence[object],
    *,
    last: Sequence[object] = (),
    until: int | None = None,
    say: Callable[[str], None],
) -> int:
    """Run mitmproxy with tokgate and more addons. Exit codes: 0, 1 for an invalid policy, 3 for an unfit environment.

    `last` are addons that run once the start has succeeded. `until` is a descriptor: at its end of file mitmproxy
    drains as after SIGTERM, and RETIRE has it drain without a deadline.
    """
    confdir = options.confdir.expanduser()
    folded, told = FoldedWarnings(asyncio.get_running_loop().call_later), [*logging.getLogger().handlers]
    secure_folder(confdir)
    establish_authority(confdir, Instant.now())
    master, servers = Master(Options()), proxyserver.Proxyserver()
    tokgate.traffic.egress.sources = Sources(options.mark)
    master.addons.add(core.Core(), servers, tokgate, *addons)
    if any(kind_of(mode) not in _WITHOUT_DNS for mode in options.modes):
        master.addons.add(dns_resolver.DnsResolver())
    master.addons.add(next_layer.NextLayer(), NarrowCertificates(), disable_h2c.DisableH2C(), errorcheck.ErrorCheck())
    master.addons.add(*last)
    drain = Drain(master, servers, tokgate, options.drain)
    for handler in told:
        handler.addFilter(folded)
    try:
        _configure(master, options, confdir)
        _tell_untrusted(confdir / AUTHORITY, tokgate)
        _end_on_request(drain, until)
        await master.run()
    except exceptions.OptionsError as error:
        say(str(error))
        return 1 if isinstance(error, PolicyRefused) else 2 if isinstance(error, _BadModeError) else 3
    except SystemExit:  # ErrorCheck: a port is taken, say; it has been logged
        tokgate.stop_reason = "it could not start"
        return 3
    finally:
        tokgate.done()
        for handler in told:
            handler.removeFilter(folded)
    return 0


class Announcer:
    """An addon: says that the proxy is ready when its ports are open."""

    def __init__(self, tokgate: Tokgate, say: Callable[[str], None]) -> None:
        self._tokgate: Final = tokgate
        self._say: Final = say

    def running(self) -> None:
        if self._tokgate.holder is None:
            return
        servers = ctx.master.addons.get("proxyserver").servers
        listening = [(server.mode, list(server.listen_addrs)) for server in servers]
        for line in announcement(self._tokgate.holder.snapshot, listening, Instant.now()):
            self._say(line)


class Drain:
    """Stops the proxy: no new connections, and a deadline for those that are open."""

    def __init__(self, master: Master, servers: proxyserver.Proxyserver, tokgate: Tokgate, deadline: float) -> None:
        self._master: Final = master
        self._servers: Final = servers
        self._tokgate: Final = tokgate
        self._deadline: Final = deadline
        self._adopters: Iterable[GateInstance] = ()
        self._task: asyncio.Task[None] | None = None
        self._give_up = math.inf

    def request(self, reason: str) -> None:
        """Start draining, or set a deadline after `retire`; a second call stops at once."""
        if self._give_up < math.inf:
            self._master.shutdown()
            return
        self._give_up = time.monotonic() + self._deadline
        self._tokgate.stop_reason, self._tokgate.ends_since = reason, Instant.now()
        self.retire()

    def retire(self) -> None:
        """Start draining without a deadline: others take new connections."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        servers = self._servers.servers
        self._adopters = [server for server in servers if isinstance(server, GateInstance)]
        try:
            await servers.update([])
            while self._open() and time.monotonic() < self._give_up:
                await asyncio.sleep(0.05)
            if left := self._open():
                logger.warning("ending with %d connections still open", left)
        finally:
            self._master.shutdown()

    def _open(self) -> int:
        """The number of connections that are served, or were handed over to be.

        Not those of DNS over UDP: mitmproxy keeps their state for a while after the answer.
        """
        clients = [handler.client for handler in list(self._servers.connections.values())]
        served = sum(not isinstance(each.proxy_mode, DnsMode) or each.transport_protocol != "udp" for each in clients)
        return served + sum(adopter.waiting for adopter in self._adopters)


FOLDED_FOR: Final = 60.0
"""Seconds in which mitmproxy's warnings that begin alike, about one client, are one line on stderr."""
_BEGINNING: Final = 50
"""Characters by which they are told apart: behind them come names of hosts, and octets."""
_LONGEST: Final = 400
_MOST: Final = 1024
"""Kinds of warnings that are remembered, of all clients."""


class FoldedWarnings(logging.Filter):
    """Passes the first of such warnings on, and a minute later how many came after it: no client can fill stderr."""

    def __init__(self, call_later: Callable[[float, Callable[[], object]], object]) -> None:
        super().__init__()
        self._call_later: Final = call_later
        self._folded: Final[dict[tuple[str, str], int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be shown; one about no client is always."""
        client = getattr(record, "client", None)
        if not client:
            return True
        message = record.getMessage()
        kind = client_key(client[0]), message[:_BEGINNING]
        if kind in self._folded:
            self._folded[kind] += 1
            return False
        if len(self._folded) >= _MOST:
            del self._folded[next(iter(self._folded))]
        self._folded[kind] = 0
        record.msg, record.args = f"{message[:_LONGEST]} [client {client[0]}]", ()
        self._call_later(FOLDED_FOR, partial(self._tell_rest, kind, record))
        return True

    def _tell_rest(self, kind: tuple[str, str], record: logging.LogRecord) -> None:
        if folded := self._folded.pop(kind, 0):
            record.msg, record.client = f"{record.msg} ({folded} more like it in a minute)", None
            logging.getLogger(record.name).handle(record)


class _BadModeError(exceptions.OptionsError):
    """A mode's specification can't be read: a usage error."""


def _configure(master: Master, options: RunOptions, confdir: Path) -> None:
    for mode in options.modes:  # first: mitmproxy's own error would state unrelated options
        try:
            ProxyMode.parse(mode)
        except ValueError as error:
            raise _BadModeError(f"mode `{mode}`: {error}") from error
    loopback = "127.0.0.1" if all(kind_of(mode) in _LOCAL_MODES for mode in options.modes) else ""
    if "dns_name_servers" in master.options:
        master.options.update(dns_name_servers=list(options.name_servers))
    master.options.update(
        confdir=str(confdir),  # an update, not a start value: only then is the authority there before the first client
        mode=list(options.modes),
        listen_host=loopback if options.listen_host is None else options.listen_host,
        listen_port=options.listen_port,
        tokgate_policies=str(options.policies),
        tokgate_log=str(options.log),
    )
    if options.metrics is not None:
        host, port = options.metrics
        master.options.update(tokgate_metrics=f"[{host}]:{port}")


def _tell_untrusted(path: Path, tokgate: Tokgate) -> None:
    """Warn of rules whose names the authority's constraints exclude: devices will show certificate warnings."""
    if tokgate.holder is None:
        return
    try:
        found = uncovered(tokgate.holder.snapshot.policy, path)
    except (OSError, ValueError) as error:
        logger.warning("the page's authority %s can't be read: %s", path, error)
        return
    if left_out := len({each.rule for each in found}):
        rules = counted(left_out, "rule")
        logger.warning("the authority can't sign pages for the names of %s: see tokgate check --authority", rules)


def _end_on_request(drain: Drain, until: int | None) -> None:
    loop = asyncio.get_running_loop()
    if until is not None:
        loop.add_reader(until, partial(_orphaned, loop, until, drain))
        loop.add_signal_handler(RETIRE, drain.retire)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (RETIRE,))
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, ValueError):  # not the main thread
            loop.add_signal_handler(number, drain.request, signal.Signals(number).name)


def _orphaned(loop: asyncio.AbstractEventLoop, until: int, drain: Drain) -> None:
    loop.remove_reader(until)
    drain.request("its supervisor is gone")
