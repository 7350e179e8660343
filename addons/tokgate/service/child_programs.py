"""What the supervisor's child processes run, by role, and the channels that they inherit."""

import contextlib
import hashlib
import json
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from tokgate.blocklog.records.record import this_observer
from tokgate.blocklog.write.checkpointer import log_options_of
from tokgate.blocklog.write.collector import collect
from tokgate.blocklog.write.writer import WriterHealth
from tokgate.config.reload.holder import PolicyHolder
from tokgate.gate.acceptor import AcceptingGates
from tokgate.gate.quic.carrier import QuicInheritance, channel
from tokgate.gate.quic.sockets import QuicSockets
from tokgate.gate.sockets import Listener
from tokgate.gateway import capabilities
from tokgate.gateway.ruleset import TableOptions
from tokgate.service import listeners
from tokgate.service.children import Channels, Role, end_with_supervisor, tell_supervisor
from tokgate.service.gate_process import GateProcess, Inheritance
from tokgate.service.listeners import ListenEndpoint
from tokgate.service.metrics import sample
from tokgate.service.privileges import needed_to_run
from tokgate.traffic.counters import SharedCounters
from tokgate.traffic.limits import Limits
from tokgate.traffic.warning_state import WarnedClients

BEHIND_TRAFFIC: Final = 10
"""The nice value of openers and of policy reloads, so that gates come first; see nice(2)."""
_IMPORT_ROOT: Final = Path(__file__).parents[2]
"""The folder of the package, for the child's PYTHONPATH: mitmproxy adds a script's folder to its own path only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperviseOptions:
    """The options of a run with several processes. Times in seconds."""

    endpoints: tuple[ListenEndpoint, ...]
    policies: Path
    log: Path
    confdir: Path
    workers: int
    openers: int = 1
    drain: float = 30.0
    mark: int | None = None
    limits: Limits = field(default_factory=Limits)
    metrics: tuple[str, int] | None = None
    """Host and port of the metrics' listener."""
    gateway: TableOptions | None = None
    """How the kernel brings clients to the gates, where tokgate sees to that."""

    @property
    def shape(self) -> str:
        """What listeners, channels and the kernel's part are made by: with another one nothing can be taken over.

        The user, too: one user's processes take no signals from another's.
        """
        kernel = (self.mark, self.gateway, os.geteuid())
        made_by = (self.endpoints, self.workers, self.metrics, self.log, self.confdir, *kernel)
        return hashlib.sha256(repr(made_by).encode()).hexdigest()[:12]


class ChildPrograms:
    """The programs of all roles, and the channels that they share with the supervisor and with each other."""

    def __init__(
        self, options: SuperviseOptions, holder: PolicyHolder, channels: Channels, let_go: Callable[[], None]
    ) -> None:
        """`let_go` is called in a child and closes what only the supervisor needs."""
        self.channels = channels
        self.records: Final = channels.records_in
        self.reports: Final = channels.reports_out
        self.metrics: socket.socket | None = None
        self.listeners: Final[list[Listener]] = []
        self.quic: QuicSockets | None = None
        self.warned = WarnedClients()
        self.accepting: Final = AcceptingGates(options.workers)
        self._options: Final = options
        self._holder: Final = holder
        self.quic_channels = [channel() for _ in range(options.workers)]
        self._let_go: Final = let_go

    def become(self, role: Role, slot: int, shared: SharedCounters, backlog: int, waits: bool) -> NoReturn:
        """In a child that was just forked: run the program of its role, and exit with its code; 3 after an error."""
        code = 3
        try:
            code = self._run(role, slot, shared, backlog, waits)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _run(self, role: Role, slot: int, shared: SharedCounters, backlog: int, waits: bool) -> int:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited through exec, until the opener has a handler
        os.setpgid(0, 0)  # the terminal's signals are for the supervisor, which sends its own
        os.close(self.channels.lifeline_in)
        end_with_supervisor(self.channels.lifeline_out, self._options.drain)
        self._let_go()
        if os.geteuid() != 0:
            kept = (
                ()
                if role in (Role.COLLECTOR, Role.METRICS)
                else needed_to_run(self._options.mark, self._options.endpoints)
            )
            with contextlib.suppress(OSError):  # the supervisor has logged it
                capabilities.limit_to(kept)
        if role is not Role.GATE:  # a port is closed when no process has it open
            self.close_listeners()
        if role is Role.COLLECTOR:
            self.records.close()
            return collect(
                self.channels.records_out,
                self._options.log,
                this_observer(),
                self.channels.lifeline_out,
                log_options_of(self._holder.snapshot.settings.log),
                report=self._report_on_log,
                backlog=backlog,
            )
        if role is Role.METRICS:
            self.records.close()
            self._serve_metrics()
            return 0
        if role is Role.OPENER:
            self._exec_opener(slot, shared, backlog)
        options, quic = self._options, self.quic
        given = Inheritance(
            snapshot=self._holder.snapshot,
            listeners=tuple(self.listeners),
            channels=self.channels,
            observer=this_observer(f"{role.value}-{slot}"),
            shared=shared,
            limits=options.limits,
            drain=options.drain,
            warned=self.warned,
            accepting=self.accepting,
            slot=slot,
            mark=options.mark,
            backlog=backlog,
            waits=waits,
            quic=None if quic is None else QuicInheritance(quic.fronts[slot], quic.outlets, *self.quic_channels[slot]),
        )
        GateProcess(given).run()
        return 0

    def close_listeners(self) -> None:
        """Close what clients come to, for TCP and for QUIC."""
        listeners.close_listeners(self.listeners)
        if self.quic is not None:
            self.quic.close()

    def _exec_opener(self, slot: int, shared: SharedCounters, backlog: int) -> None:
        """Exec an opener: a fresh interpreter, since mitmproxy must not be in processes that fork."""
        options = self._options
        policy = os.memfd_create("tokgate-policy")
        with os.fdopen(os.dup(policy), "wb") as file:
            pickle.dump(self._holder.snapshot.policy, file)
        warned = self.warned.descriptor
        assert warned is not None
        descriptors = {
            "handovers": self.channels.openers_out.fileno(),
            "records": self.records.fileno(),
            "reports": self.channels.reports_in.fileno(),
            "lifeline": self.channels.lifeline_out,
            "policy": policy,
            "counters": shared.share(),
            "warned": warned,
            "backlog": backlog,
        }
        for descriptor in descriptors.values():
            os.set_inheritable(descriptor, True)
        given = descriptors | {
            "name": f"{Role.OPENER.value}-{slot}",
            "policies": str(options.policies),
            "log": str(options.log),
            "confdir": str(options.confdir),
            "drain": options.drain,
            "mark": options.mark,
            "nice": BEHIND_TRAFFIC,
        }
        if os.geteuid() != 0:
            capabilities.pass_on()  # what a mark or a client's address takes; root's programs have it anyway
        command = module_command("tokgate.service.opener_process", json.dumps(given))
        os.execve(sys.executable, command, module_environment())

    def _report_on_log(self, health: WriterHealth) -> None:
        """In the collector: report to the supervisor."""
        error = None if health.ok else health.tampered or health.last_error
        tell_supervisor(self.channels.reports_in, log=sample.log_vitals(health), log_error=error)

    def _serve_metrics(self) -> None:
        """In the process for metrics: serve until the supervisor has exited."""
        from tokgate.service.metrics.http_server import serve_until  # the other processes don't need its libraries

        if self.metrics is None:
            raise RuntimeError("nobody asked for metrics")
        requester = sample.Requester(self._options.confdir, self._options.log)
        report = partial(tell_supervisor, self.channels.reports_in)
        serve_until(self.metrics, requester.ask, self.channels.lifeline_out, report)


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this package.

    `-P`, since `-m` alone looks for modules in the working directory first, which anybody may have written. Not `-I`:
    this process has followed PYTHONPATH, too.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """The environment, with the package's folder first in PYTHONPATH, and without relative folders."""
    given = filter(os.path.isabs, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(_IMPORT_ROOT), *given))}
