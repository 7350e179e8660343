"""Metrics where one process does everything: served by a thread, made on the event loop."""
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

from tokgate.gate.endpoints import listen_for_scrapers, scrapers_endpoint
from tokgate.gate.overview import dialled
from tokgate.proxy import vitals
from tokgate.proxy.addon import Tokgate
from tokgate.proxy.desk import Desk

logger = logging.getLogger(__name__)


class Scraping:
    """An addon: `/metrics` and `/healthz` at the option `tokgate_metrics`; without it, nothing."""

    name = "tokgate-scraping"

    def __init__(self, tokgate: Tokgate, desk: Desk, say: Callable[[str], None] = logger.warning) -> None:
        """`say` is told where."""
        self._tokgate: Final = tokgate
        self._desk: Final = desk
        self._say: Final = say
        self._reloads: Final = vitals.Reloads()
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def load(self, loader: Loader) -> None:
        """Declare the option."""
        loader.add_option(
            "tokgate_metrics", str, "", "Where /metrics and /healthz are served: HOST:PORT, or PORT on loopback."
        )

    def configure(self, updated: set[str]) -> None:
        """Listen, once. Raises OptionsError."""
        place = ctx.options.tokgate_metrics
        if "tokgate_metrics" not in updated or not place or self._socket is not None:
            return
        try:
            self._socket = listen_for_scrapers(*scrapers_endpoint(place))
        except (OSError, ValueError) as error:
            raise exceptions.OptionsError(f"no metrics at {place}: {error}") from error

    def running(self) -> None:
        """Serve."""
        if self._socket is None or self._tokgate.holder is None:
            return
        from tokgate.proxy.exposition import serve  # only who wants metrics waits for its libraries

        self._tokgate.holder.subscribe(self._reloads.note)
        self._loop = asyncio.get_running_loop()
        # A daemon: a request that is being answered keeps nobody from ending.
        threading.Thread(target=serve, args=(self._socket, self._ask), name="tokgate-metrics", daemon=True).start()
        self._say(f"metrics: http://{dialled(*self._socket.getsockname()[:2])}/metrics")

    def _ask(self) -> vitals.Vitals:
        """On the server's thread: have them made where nothing changes meanwhile. Raises OSError."""
        if self._loop is None or self._loop.is_closed():
            raise ConnectionError("tokgate has ended")
        return asyncio.run_coroutine_threadsafe(self._make(), self._loop).result(vitals.PATIENCE)

    async def _make(self) -> vitals.Vitals:
        holder, health = self._tokgate.holder, self._tokgate.health()
        if holder is None:
            raise ConnectionError("tokgate has ended")
        return vitals.vitals(
            self._desk.state(holder),
            version=self._tokgate.version,
            started=health.started_at,
            counts=health.counters.tally.read(),
            log=vitals.log_vitals(health.log),
            reloads=self._reloads,
            confdir=Path(ctx.options.confdir).expanduser(),
        )
