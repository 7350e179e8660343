"""Where names lead behind mitmproxy: banned addresses, and the gateway's own; each beside one that passes."""

import asyncio
import socket
from typing import Any

import pytest

from labs.hello_builder import openssl_hello
from labs.proxy_lab import ALLOWED, BANNED_ADDRESS, Lab, client, eventually


def resolving(lab: Lab, *answers: tuple[str, ...]) -> None:
    """Every name has the addresses of the first answer when it is asked for first, and so on; the last one stays."""
    loop = asyncio.get_running_loop()
    real, left = loop.getaddrinfo, list(answers)

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        if host not in (ALLOWED, "own.example.net"):
            return await real(host, port, **options)
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in addresses]

    lab.monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


async def test_a_name_that_changes_its_mind(lab: Lab) -> None:
    """A name that leads elsewhere when it is dialled gets no byte through."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy()
    resolving(lab, ("127.0.0.1",), (BANNED_ADDRESS,))

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await guest.send(openssl_hello(ALLOWED))
        with pytest.raises(ConnectionResetError):
            await guest.to_end()

    await eventually("the origin has seen it end", lambda: proxy.connections == 0)
    assert (bytes(origin.received), proxy.counters.loops) == (b"", 1)
