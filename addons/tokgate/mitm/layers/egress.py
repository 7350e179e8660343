"""Connections of mitmproxy's to destinations from the addresses that the policy names, as gates make theirs."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import ClassVar

from tokgate.gate.egress.sources import Sources
from tokgate.policy.values.hostname import parse_address

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Egress:
    """How connections to destinations are made."""

    sources: ClassVar[Callable[[], Sources]] = staticmethod(Sources)
    """Where they come from, by the policy in force."""


async def connect(host: str, port: int) -> Streams:
    """A connection over TCP to an address, or to the first address of a name that accepts one. Raises OSError."""
    problem = OSError(f"{host} has no address")
    for address in await _addresses(host, port):
        try:
            sock = await _connected(address)
        except OSError as error:
            problem = error
        else:
            return await asyncio.open_connection(sock=sock)
    raise problem


async def _addresses(host: str, port: int) -> list[tuple[str, int]]:
    if parse_address(host) is not None:
        return [(host, port)]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(str(entry[4][0]), port) for entry in found]


async def _connected(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(fileno=Egress.sources().connect(address).detach())
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_writer(sock, answered.set)
        try:
            await answered.wait()
        finally:
            loop.remove_writer(sock)
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, f"{os.strerror(number)}: {address[0]}")
    except BaseException:
        sock.close()
        raise
    return sock
