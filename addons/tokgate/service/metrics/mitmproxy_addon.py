"""Metrics of mitmproxy without a supervisor: served by a thread, computed on mitmproxy's event loop."""
# mypy: disallow-untyped-calls=False

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader

from tokgate.config.extras import Extra, missing_extra
from tokgate.mitm.addon import Tokgate
from tokgate.runtime.banner import dialled
from tokgate.service.control_addon import ControlAddon
from tokgate.service.endpoints import listen_for_scrapers, scrapers_endpoint
from tokgate.service.metrics import sample

logger = logging.getLogger(__name__)


class MetricsAddon:
    """An addon: serves `/metrics` and `/healthz` at the option `tokgate_metrics`, if that is set."""

    name = "tokgate-scraping"

    def __init__(self, tokgate: Tokgate, control: ControlAddon, say: Callable[[str], None] = logger.warning) -> None:
        """`say` gets the URL of the metrics."""
        self._tokgate: Final = tokgate
        self._control: Final = control
        self._say: Final = say
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

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
        from tokgate.service.metrics.http_server import serve  # imported only where metrics are served

        self._loop = asyncio.get_running_loop()
        # A daemon: an open request must not delay the exit.
        threading.Thread(target=serve, args=(self._socket, self._ask), name="tokgate-metrics", daemon=True).start()
        self._say(f"metrics: http://{dialled(*self._socket.getsockname()[:2])}/metrics")

    async def _ask(self) -> sample.Vitals:
        """Called on the server's loop: compute vitals on mitmproxy's loop, between its events. Raises OSError."""
        if self._loop is None or self._loop.is_closed():
            raise ConnectionError("tokgate has ended")
        made = asyncio.run_coroutine_threadsafe(self._make(), self._loop)
        return await asyncio.wait_for(asyncio.wrap_future(made), sample.PATIENCE)

    async def _make(self) -> sample.Vitals:
        instance, log = self._tokgate.instance, self._tokgate.log
        if instance is None or log is None:
            raise ConnectionError("tokgate has ended")
        return sample.vitals_of(
            instance,
            instance.state(self._control.workers()),
            log=sample.log_vitals(log.health()),
            confdir=Path(ctx.options.confdir).expanduser(),
            deaths=sample.Deaths(("proxy",), {}, {}),
        )
