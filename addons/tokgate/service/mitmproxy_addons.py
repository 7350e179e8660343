"""Addons that report the state of a process with mitmproxy: on the control socket, in metrics, or to a supervisor."""
# mypy: disallow-untyped-calls=False

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader
from whenever import Instant

from tokgate.config.extras import Extra, missing_extra
from tokgate.mitm.addon import Tokgate
from tokgate.runtime.banner import written
from tokgate.runtime.control_socket import REQUEST, Call, Control, ControlRequest, answer_line, progress_line
from tokgate.runtime.instance import Instance
from tokgate.service.children import counted_in, tell_supervisor
from tokgate.service.last_state import STATE_EVERY, StateFile
from tokgate.service.listeners import listen_for_scrapers, scrapers_endpoint
from tokgate.service.metrics import sample
from tokgate.service.reload_answer import answer_of
from tokgate.service.service_manager import ServiceManager
from tokgate.service.status import Status, Work, WorkerStatus, state_of, worker_of
from tokgate.traffic.counters import RECORDS_DROPPED

logger = logging.getLogger(__name__)

EVERY: Final = 1.0
"""Seconds between two reports."""


class ControlAddon:
    """An addon: answers `tokgate status` and `tokgate reload` where mitmproxy runs without a supervisor.

    It tells systemd as well that the proxy is ready and lives, and keeps the state for whoever gets no answer.
    """

    name = "tokgate-desk"

    def __init__(self, tokgate: Tokgate) -> None:
        self._tokgate: Final = tokgate
        self._known: StateFile | None = None
        self._started: Final = time.monotonic()
        self._control: Control | None = None
        self._server: asyncio.Server | None = None
        self._manager: Final = ServiceManager()
        self._living: asyncio.Task[None] | None = None

    async def running(self) -> None:
        """Open the control socket in `confdir`."""
        if self._tokgate.holder is None:
            return
        confdir = Path(ctx.options.confdir).expanduser()
        self._control, self._known = Control(confdir), StateFile(confdir)
        sock = self._control.open()
        if sock is not None:
            self._server = await asyncio.start_unix_server(self._serve, sock=sock)
        self._manager.tell("READY=1")
        self._living = asyncio.get_running_loop().create_task(self._live())

    async def _live(self) -> None:
        due = 0.0
        while (instance := self._tokgate.instance) is not None and self._tokgate.log is not None:
            self._manager.keep_alive(partial(self._state, instance))
            if self._known is not None and (time.monotonic() >= due or self._work is not None):
                self._known.write(self._state(instance), self._work, Instant.now())
                due = time.monotonic() + STATE_EVERY
            await asyncio.sleep(EVERY)

    @property
    def _work(self) -> Work | None:
        since = self._tokgate.ends_since
        return None if since is None else Work(f"it ends by {self._tokgate.stop_reason}", str(since), normal=0.0)

    def _state(self, instance: Instance) -> Status:
        return state_of(instance, self.workers(), work=self._work)

    def done(self) -> None:
        self._manager.tell("STOPPING=1")
        if self._living is not None:
            self._living.cancel()
        if self._server is not None:
            self._server.close()
        if self._control is not None:
            self._control.close(remove=True)
        if self._known is not None:
            self._known.remove()

    def workers(self) -> list[WorkerStatus]:
        """This process, as the only worker of a run without a supervisor."""
        report = report_of(self._tokgate)
        return [worker_of("proxy", os.getpid(), time.monotonic() - self._started, report["version"], report)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError, ValueError):
            call = Call.read(await asyncio.wait_for(reader.readline(), REQUEST))
            holder, instance = self._tokgate.holder, self._tokgate.instance
            if call is None or holder is None or instance is None:
                return
            reloaded, not_held = None, tuple[str, ...]()
            if call.request is ControlRequest.RESTART:
                writer.write(answer_line({"ok": False, "problems": "mitmproxy runs alone: stop and start it"}))
                await writer.drain()
                return
            if call.request is ControlRequest.RELOAD:
                writer.write(progress_line("reading the policy"))
                not_held = holder.lift(call.lift, call.by)
                reloaded = await holder.reload()
            if self._tokgate.log is None:  # tokgate has stopped meanwhile
                return
            workers, log = self.workers(), sample.log_vitals(self._tokgate.log.health())
            if call.request is ControlRequest.VITALS:
                confdir, deaths = Path(ctx.options.confdir).expanduser(), sample.Deaths(("proxy",), {}, {})
                state = self._state(instance)
                answer = answer_line(sample.vitals_of(instance, state, log=log, confdir=confdir, deaths=deaths))
            elif reloaded is None:
                answer = answer_line(self._state(instance))
            else:
                answer = answer_line(answer_of(instance, reloaded, workers, not_held))
            writer.write(answer)
            await writer.drain()


class Reporter:
    """An addon: reports to the supervisor each second, and after each reload."""

    name = "tokgate-reporter"

    def __init__(self, sock: socket.socket, tokgate: Tokgate) -> None:
        """`sock` leads to the supervisor."""
        self._socket: Final = sock
        self._tokgate: Final = tokgate
        self._task: asyncio.Task[None] | None = None

    def running(self) -> None:
        if self._tokgate.holder is not None:
            self._tokgate.holder.subscribe(lambda _: self._report())
            self._task = asyncio.get_running_loop().create_task(self._report_on())

    def done(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _report_on(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(EVERY)

    def _report(self) -> None:
        if self._tokgate.log is None:  # tokgate has stopped, while a policy was read, say
            return
        told = report_of(self._tokgate)
        self._tokgate.counters.put(RECORDS_DROPPED, told["records_dropped"])
        tell_supervisor(self._socket, **told)


def report_of(tokgate: Tokgate) -> dict[str, Any]:
    """The report of a process with mitmproxy that has a policy; its keys are those of a gate's report."""
    if tokgate.holder is None or tokgate.log is None:
        raise RuntimeError("tokgate has no policy")
    log = tokgate.log.health()
    return counted_in(tokgate.counters) | {
        "version": tokgate.holder.snapshot.version,
        "policy_error": tokgate.holder.last_error,
        "connections": tokgate.connections,
        "records_dropped": log.dropped,
        "log_error": None if log.ok else log.tampered or log.last_error,
    }


class MetricsAddon:
    """An addon: serves `/metrics` and `/healthz` at the option `tokgate_metrics`, if that is set."""

    name = "tokgate-scraping"

    def __init__(self, tokgate: Tokgate, say: Callable[[str], None] = logger.warning) -> None:
        """`say` gets the URL of the metrics."""
        self._tokgate: Final = tokgate
        self._say: Final = say
        self._socket: socket.socket | None = None

    def load(self, loader: Loader) -> None:
        loader.add_option(
            "tokgate_metrics", str, "", "Where /metrics and /healthz are served: HOST:PORT, or PORT on loopback."
        )

    def configure(self, updated: set[str]) -> None:
        """Open the listening socket, once. Raises OptionsError."""
        place = ctx.options.tokgate_metrics
        if "tokgate_metrics" not in updated or not place or self._socket is not None:
            return
        missing = missing_extra(Extra.METRICS)
        if missing is not None:
            raise exceptions.OptionsError(missing)
        try:
            self._socket = listen_for_scrapers(*scrapers_endpoint(place))
        except (OSError, ValueError) as error:
            raise exceptions.OptionsError(f"no metrics at {place}: {error}") from error

    def running(self) -> None:
        """Start the thread that serves, if there is a socket."""
        if self._socket is None or self._tokgate.holder is None:
            return
        from tokgate.service.metrics.http_server import Server  # imported only where metrics are served

        ask = sample.Requester(Path(ctx.options.confdir).expanduser(), Path(ctx.options.tokgate_log)).ask
        # A daemon: an open request must not delay the exit.
        threading.Thread(target=Server(self._socket, ask).serve_forever, name="tokgate-metrics", daemon=True).start()
        self._say(f"metrics: http://{written(*self._socket.getsockname()[:2])}/metrics")
