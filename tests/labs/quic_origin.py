"""A QUIC server and a client by aioquic, in namespaces of the laboratory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

from labs.netns import Namespace
from labs.origin import Origin

ADDRESS = "203.0.113.30"
PROTOCOL = ["hello"]


class RetryingOrigin:
    """A server that answers a client's first packet with Retry (RFC 9000 §8.1.2), at an address of its own."""

    address = ADDRESS

    def __init__(self, namespace: Namespace, origin: Origin, name: str) -> None:
        self._namespace = namespace
        self._configuration = QuicConfiguration(is_client=False, alpn_protocols=PROTOCOL)
        self._configuration.load_cert_chain(origin.folder / f"{name}.pem", origin.folder / f"{name}.key")
        self._ready = threading.Event()
        self._end: Callable[[], object] = lambda: None
        self._thread = threading.Thread(
            target=lambda: namespace.inside(lambda: asyncio.run(self._serve())), daemon=True
        )

    def __enter__(self) -> Self:
        self._namespace.address("eth0", f"{ADDRESS}/24")
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        self._thread.join(30)
        self._namespace.run("ip", "addr", "del", f"{ADDRESS}/24", "dev", "eth0")

    async def _serve(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._end = partial(loop.call_soon_threadsafe, ended.set)
        server = await serve(ADDRESS, 443, configuration=self._configuration, retry=True)
        self._ready.set()
        await ended.wait()
        server.close()  # type: ignore[no-untyped-call]


def fetch(namespace: Namespace, address: str, name: str, authority: Path) -> bool:
    """Whether a client gets through a handshake, and a ping after it."""
    configuration = QuicConfiguration(is_client=True, server_name=name, alpn_protocols=PROTOCOL)
    configuration.load_verify_locations(str(authority))

    async def talk() -> bool:
        async with connect(address, 443, configuration=configuration) as client:
            await client.ping()
        return True

    return namespace.inside(lambda: asyncio.run(asyncio.wait_for(talk(), 20)))
