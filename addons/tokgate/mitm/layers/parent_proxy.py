"""Connections of mitmproxy by a parent proxy (`settings.upstream`), in every mode; without a way there is none.

mitmproxy knows parents as a mode only, for all destinations and without SOCKS. Importing this module puts
`open_connection` in the place of its handlers', which also makes those that come from addresses of the policy.
"""
# mypy: disallow-untyped-calls=False

import asyncio
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

from mitmproxy.connection import Address, ConnectionState
from mitmproxy.http import Request
from mitmproxy.proxy import commands, events, server, server_hooks

from tokgate.gate.egress.parent_handshake import ParentRefused, basic
from tokgate.gate.egress.parents import credentials_of, handshake
from tokgate.mitm.layers.egress import Egress, Streams, connect
from tokgate.policy.settings import Upstream, UpstreamKind

_DEADLINE: Final = 10.0
"""Seconds for a parent to give a way to a destination."""
_CONTINUE: Final = server.ConnectionHandler.open_connection


class Parents:
    """Which parent reaches a destination that is known by these names and addresses; by default none does."""

    find: ClassVar[Callable[..., Upstream | None]] = staticmethod(lambda *hosts: None)
    is_one: ClassVar[Callable[[Address], bool]] = staticmethod(lambda address: False)
    """Whether a parent is at an address: what goes there was sent to it on purpose."""


async def dial(upstream: Upstream, host: str, port: int) -> Streams:
    """A connection to a destination, by a parent. Raises OSError."""
    try:
        async with asyncio.timeout(_DEADLINE):
            conversation = handshake(upstream, host, port)
            reader, writer = await connect(upstream.host, upstream.port)
            try:
                await _converse(conversation, reader, writer)
            except BaseException:
                writer.close()
                raise
            return reader, writer
    except (ParentRefused, TimeoutError, asyncio.IncompleteReadError) as error:
        raise OSError(f"the parent proxy gives no way to {host}: {error or 'no answer'}") from error


async def _converse(conversation: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Octet by octet: what stands behind the answer is the destination's."""
    writer.write(conversation.first)
    pending = b""
    while True:
        pending += await reader.readexactly(1)
        progress = conversation.read(pending)
        if progress is not None:
            pending = pending[progress.consumed :]
            writer.write(progress.say)
            if progress.done:
                return


def by_parent(request: Request) -> None:
    """Send a plain HTTP request to an HTTP parent as proxies expect it, in absolute form (RFC 9112 §3.2.2).

    Proxies commonly allow CONNECT to the ports of TLS only. Raises OSError if the credentials can't be read.
    """
    upstream = Parents.find(request.host, request.host_header and request.host_header.partition(":")[0])
    if request.scheme != "http" or upstream is None or upstream.kind is not UpstreamKind.HTTP:
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


async def open_connection(handler: server.ConnectionHandler, command: commands.OpenConnection) -> None:
    """As mitmproxy's own, which it is where there is neither a parent proxy nor an address to connect from."""
    wanted = command.connection
    address = wanted.address
    if address is None or wanted.transport_protocol != "tcp":
        await _CONTINUE(handler, command)
        return
    upstream = None if Parents.is_one(address) else Parents.find(address[0], wanted.sni)
    if upstream is None and Egress.sources().are_default:
        await _CONTINUE(handler, command)
        return
    hook = server_hooks.ServerConnectionHookData(client=handler.client, server=wanted)
    await handler.handle_hook(server_hooks.ServerConnectHook(hook))
    error, streams, cancelled = wanted.error, None, False
    if error is None:
        wanted.timestamp_start = time.time()
        try:
            async with handler.max_conns[address]:
                streams = await (connect(*address[:2]) if upstream is None else dial(upstream, *address[:2]))
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


server.ConnectionHandler.open_connection = open_connection  # type: ignore[method-assign, assignment]
