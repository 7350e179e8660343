"""Name servers that keep what they are asked, on loopback or in the origin's network; and who asks as `dig` does."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import dns.message
import dns.query
import dns.rrset

from labs.netns import Lab, Namespace
from labs.serving import DEADLINE, serving

TTL = 3600
ADDRESS = Lab.ALLOWED[4]
RECORDS = {"A": ADDRESS, "AAAA": Lab.ALLOWED[6], "HTTPS": "1 . alpn=h2", "TXT": '"as it is"'}


def answer(query: dns.message.Message, *records: str) -> dns.message.Message:
    """A server's answer, with records of the question's name as in zone files."""
    made = dns.message.make_response(query, recursion_available=True)
    for text in records:
        ttl, kind, rest = text.split(None, 2)
        made.answer.append(dns.rrset.from_text(query.question[0].name, int(ttl), "IN", kind, rest))
    return made


def usual(query: dns.message.Message) -> list[bytes]:
    """An address for a day."""
    return [answer(query, "86400 A 192.0.2.80").to_wire(max_size=65535)]


@dataclass
class Upstream:
    """A name server on loopback: what it was asked, and how it answers. It does what it is told with what is sent."""

    port: int = 0
    reply: Callable[[dns.message.Message], list[bytes]] = usual
    asked: list[str] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    send: Callable[[bytes], None] = print
    """Sends a datagram to who asked last."""

    def replies(self, data: bytes) -> list[bytes]:
        self.received.append(data)
        query = dns.message.from_wire(data, keyring=False)
        self.asked.append(query.question[0].name.to_text(omit_final_dot=True))
        return self.reply(query)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.upstream.send = lambda message: self.transport.sendto(message, addr)
        for reply in self.upstream.replies(data):
            self.transport.sendto(reply, addr)


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """One message of a TCP connection; nothing at its end."""
    try:
        async with asyncio.timeout(DEADLINE):
            return await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])
    except asyncio.IncompleteReadError:
        return b""


@contextlib.asynccontextmanager
async def name_server(made: Upstream, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Upstream]:
    """A name server, over UDP and TCP at one port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await read_message(reader):
                for reply in made.replies(data):
                    writer.write(struct.pack("!H", len(reply)) + reply)

    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        while True:
            made.port = await stack.enter_async_context(serving(serve, host, port=port))
            try:
                datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(made), (host, made.port))
            except OSError:  # free in TCP alone
                assert not port
                continue
            stack.callback(datagrams.close)
            break
        yield made


def _for_an_hour(query: dns.message.Message) -> list[bytes]:
    kind = query.question[0].rdtype.name
    records = [f"{TTL} {kind} {RECORDS[kind]}"] if kind in RECORDS else []
    return [answer(query, *records).to_wire(max_size=65535)]


@contextlib.contextmanager
def resolver_in(namespace: Namespace) -> Iterator[Upstream]:
    """A name server in the origin's network, for which every name has an address for an hour."""
    made = Upstream(reply=_for_an_hour)
    with namespace.serving(lambda: name_server(made, ADDRESS, 53)):
        yield made


def ask(
    client: Namespace, name: str, kind: str = "A", *, server: str = Lab.GATEWAY[4], tcp: bool = False
) -> dns.message.Message:
    """What a client in a namespace is answered, as `dig` asks: with EDNS."""
    query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
    if tcp:
        with client.connect(server, 53) as stream:
            stream.setblocking(False)
            return dns.query.tcp(query, server, 5, sock=stream)
    with client.datagrams(server, 53) as datagrams:
        datagrams.setblocking(False)
        return dns.query.udp(query, server, 5, sock=datagrams)
