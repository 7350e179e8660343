"""mitmproxy's connections to destinations: by parent proxies, and from the addresses that the policy names.

Both are chosen as gates do it (`gate/egress`). mitmproxy knows parents as a mode only, for all destinations, so a
handler of a client's connection gets `open_connection` for its own. Where a parent is due there is no other way.
"""
# mypy: disallow-untyped-calls=False

import asyncio
import os
import socket
import time
from asyncio.staggered import staggered_race
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from mitmproxy.connection import Address, Client, ConnectionState, Server
from mitmproxy.http import Request
from mitmproxy.proxy import commands, events, server, server_hooks

from tokgate.gate.egress.dialler import Sources
from tokgate.gate.egress.parents import ParentRefused, answer_length, basic, connect_request, credentials_of
from tokgate.gate.event_loop import SILENCE
from tokgate.policy.settings import EgressSettings, Upstream, upstream_for
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.hostname import parse_address

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_DEADLINE: Final = 10.0
"""Seconds for a parent to give a way to a destination."""


class Egress:
    """How one proxy's connections are made, by the policy in force."""

    def __init__(self, snapshot: Callable[[], Snapshot | None]) -> None:
        """Without a snapshot there are no parents and no addresses."""
        self.sources = Sources(None)
        self.others: Callable[[Client, str, int], Awaitable[tuple[str, ...]]] | None = None
        """The addresses of a name to which a client may be connected; not known where hooks resolve none."""
        self.names: Final[WeakKeyDictionary[Client, str]] = WeakKeyDictionary()
        """The host of a client's latest plain request that passes."""
        self._snapshot: Final = snapshot

    def parent(self, *hosts: str | None) -> Upstream | None:
        """The parent proxy that reaches a destination, by the names and addresses known of it."""
        snapshot = self._snapshot()
        return None if snapshot is None else upstream_for(snapshot.upstream, hosts)

    def is_parent(self, address: Address) -> bool:
        """Whether a parent proxy is at this address: what goes there was sent to it on purpose."""
        snapshot = self._snapshot()
        upstreams = () if snapshot is None else snapshot.settings.upstream
        return any((upstream.host, upstream.port) == tuple(address[:2]) for upstream in upstreams)

    def serve(self, handler: server.ConnectionHandler) -> None:
        """Make the connections of a client's handler from now on."""
        handler.open_connection = partial(self.open_connection, handler)  # type: ignore[method-assign]

    async def connect(self, host: str, port: int) -> Streams:
        """A connection over TCP to an address or a name, by a parent where one reaches it. Raises OSError."""
        upstream = self.parent(host)
        return await (self._directly(host, port) if upstream is None else self._by_parent(upstream, host, port))

    def address_parent(self, request: Request) -> None:
        """Send a plain HTTP request to a parent as proxies expect it, in absolute form (RFC 9112 §3.2.2).

        Proxies commonly allow CONNECT to the ports of TLS only. Raises OSError if the credentials can't be read.
        """
        upstream = self.parent(request.host, request.host_header and request.host_header.partition(":")[0])
        if request.scheme != "http" or upstream is None:
            return
        try:
            credentials = credentials_of(upstream)
        except ParentRefused as error:
            raise OSError(str(error)) from error
        host = f"[{request.host}]" if ":" in request.host else request.host
        request.data.authority = (request.host_header or f"{host}:{request.port}").encode("ascii", "replace")
        if credentials is not None:
            request.headers["Proxy-Authorization"] = basic(credentials)
        request.data.host, request.data.port = upstream.host, upstream.port

    async def open_connection(self, handler: server.ConnectionHandler, command: commands.OpenConnection) -> None:
        """As mitmproxy's own, which it is without a gate, a parent proxy and an address to connect from."""
        wanted, address = command.connection, command.connection.address
        client = _transparent(handler)
        by_gate = handler.client.proxy_mode.type_name == "gate" and wanted.transport_protocol == "tcp"
        if address is None or (self._is_free(wanted, client) and not by_gate):
            await type(handler).open_connection(handler, command)
            return
        hook = server_hooks.ServerConnectionHookData(client=handler.client, server=wanted)
        await handler.handle_hook(server_hooks.ServerConnectHook(hook))
        error, streams, cancelled = wanted.error, None, False
        if error is None:
            wanted.timestamp_start = time.time()
            upstream = self._parent_of(wanted)
            try:
                async with handler.max_conns[address]:
                    host, port = address[:2]
                    if upstream is None:
                        name = wanted.sni or self.names.get(handler.client)
                        others = None
                        if by_gate and name and self.others is not None:
                            others = partial(self.others, handler.client, name, port)
                        streams = await self._directly(host, port, client, others)
                    else:
                        streams = await self._by_parent(upstream, host, port)
            except (OSError, asyncio.CancelledError) as problem:
                error = str(problem) or "connection cancelled"
                cancelled = isinstance(problem, asyncio.CancelledError)
        if streams is None:
            wanted.error = error
            await handler.handle_hook(server_hooks.ServerConnectErrorHook(hook))
            await handler.server_event(events.OpenConnectionCompleted(command, error))
            if cancelled:
                raise asyncio.CancelledError
            return
        reader, writer = streams
        wanted.timestamp_tcp_setup = time.time()
        wanted.state = ConnectionState.OPEN
        wanted.peername, wanted.sockname = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        handler.transports[wanted] = server.ConnectionIO(handler=asyncio.current_task(), reader=reader, writer=writer)
        await handler.handle_hook(server_hooks.ServerConnectedHook(hook))
        await handler.server_event(events.OpenConnectionCompleted(command, None))
        try:
            await handler.handle_connection(wanted)
        finally:
            wanted.timestamp_end = time.time()
            await handler.handle_hook(server_hooks.ServerDisconnectedHook(hook))

    def _is_free(self, wanted: Server, client: tuple[socket.socket, str] | None) -> bool:
        """Whether the policy says nothing of how a connection is made; of datagrams it never does."""
        if wanted.address is None or wanted.transport_protocol != "tcp":
            return True
        egress = self._settings()
        from_client = client is not None and self.sources.takes(client[1], egress)
        return self._parent_of(wanted) is None and self.sources.are_default(egress) and not from_client

    def _parent_of(self, wanted: Server) -> Upstream | None:
        if wanted.address is None or self.is_parent(wanted.address):
            return None
        return self.parent(wanted.address[0], wanted.sni)

    def _settings(self) -> EgressSettings:
        snapshot = self._snapshot()
        return EgressSettings() if snapshot is None else snapshot.settings.egress

    async def _directly(
        self,
        host: str,
        port: int,
        client: tuple[socket.socket, str] | None = None,
        others: Callable[[], Awaitable[tuple[str, ...]]] | None = None,
    ) -> Streams:
        """A connection to the first of the addresses that accepts one (RFC 8305); `client` as of `Dialler`.

        `others`: further addresses, which are asked for when they are needed.
        """
        addresses = [host]
        if parse_address(host) is None:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [str(entry[4][0]) for entry in found]
        async with asyncio.timeout(self._settings().connect_seconds):
            sock = await self._first(addresses, port, client, others)
            return await asyncio.open_connection(sock=sock)

    async def _first(
        self,
        addresses: list[str],
        port: int,
        client: tuple[socket.socket, str] | None,
        others: Callable[[], Awaitable[tuple[str, ...]]] | None,
    ) -> socket.socket:
        async def first_of_others() -> socket.socket:
            found = () if others is None else await others()
            return await self._first([each for each in found if each not in addresses], port, client, None)

        attempts: list[Callable[[], Awaitable[socket.socket]]]
        attempts = [partial(self._attempt, (address, port), client) for address in addresses]
        if others is not None:
            attempts.append(first_of_others)
        winner: socket.socket | None
        winner, _, errors = await staggered_race(attempts, SILENCE)
        if winner is None:
            raise next((each for each in errors if isinstance(each, OSError)), OSError("there is no address"))
        return winner

    async def _attempt(self, address: tuple[str, int], client: tuple[socket.socket, str] | None) -> socket.socket:
        begun = self.sources.connect(address, self._settings(), client)
        return await _connected(socket.socket(fileno=begun.detach()))

    async def _by_parent(self, upstream: Upstream, host: str, port: int) -> Streams:
        try:
            async with asyncio.timeout(_DEADLINE):
                request = connect_request(upstream, host, port)
                reader, writer = await self._directly(upstream.host, upstream.port)
                try:
                    writer.write(request)
                    answer_length(await reader.readuntil(b"\r\n\r\n"))
                except BaseException:
                    writer.close()
                    raise
                return reader, writer
        except (ParentRefused, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise OSError(f"the parent proxy gives no way to {host}: {error or 'no answer'}") from error


def _transparent(handler: server.ConnectionHandler) -> tuple[socket.socket, str] | None:
    """The client of a handler and its address, if TPROXY brought it: its socket has that from the gate's listener."""
    if handler.client.transport_protocol != "tcp":  # what carries mitmproxy's datagrams has no socket to ask
        return None
    io, peer = handler.transports.get(handler.client), handler.client.peername
    writer: Any = None if io is None else io.writer
    sock = None if writer is None else writer.get_extra_info("socket")
    if sock is None or not peer or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    transparent = sock.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT)  # for IPv6 as well
    return (sock, peer[0]) if transparent else None


async def _connected(sock: socket.socket) -> socket.socket:
    """The socket once its peer has answered."""
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_writer(sock, answered.set)
        try:
            await answered.wait()
        finally:
            loop.remove_writer(sock)
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
    except BaseException:
        sock.close()
        raise
    return sock
