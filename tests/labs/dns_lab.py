"""A proxy in dns mode with name servers on loopback that count who asks."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import dns.asyncquery
import dns.edns
import dns.message
import dns.name
import dns.rrset
import pytest

from labs.proxy_lab import DEADLINE, Lab, Proxy
from labs.serving import serving
from tokgate.mitm.layers import dns as dns_layer

Transport = Callable[..., Any]
TRANSPORTS = pytest.mark.parametrize("transport", [dns.asyncquery.udp, dns.asyncquery.tcp], ids=["udp", "tcp"])


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


class Stream:
    """A TCP client in raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def message(self) -> dns.message.Message:
        """The next message."""
        return dns.message.from_wire(await read_message(self.reader))


@contextlib.asynccontextmanager
async def stream(port: int) -> AsyncIterator[Stream]:
    """Connect."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Stream(reader, writer)
    finally:
        writer.transport.abort()


def framed(*queries: dns.message.Message) -> bytes:
    """As TCP carries messages."""
    return b"".join(
        struct.pack("!H", len(data)) + data for data in (query.to_wire(max_size=65535) for query in queries)
    )


class Resolver:
    """The name servers that a proxy in dns mode knows."""

    def __init__(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts = ["127.0.0.1"]
        self._monkeypatch = monkeypatch
        self.port = port
        monkeypatch.setattr(dns_layer, "name_servers", lambda _: self.hosts)

    @property
    def port(self) -> int:
        """Where all of them listen."""
        return self._port

    @port.setter
    def port(self, port: int) -> None:
        self._port = port
        self._monkeypatch.setattr(dns_layer, "DNS_PORT", port)


class Dns:
    """A proxy in dns mode, its resolver, and the server that this asks."""

    def __init__(self, lab: Lab, proxy: Proxy, upstream: Upstream, resolver: Resolver) -> None:
        self.lab, self.proxy, self.upstream, self.resolver = lab, proxy, upstream, resolver

    async def ask(
        self, name: str | dns.name.Name, kind: str = "A", transport: Transport = dns.asyncquery.udp, **options: Any
    ) -> dns.message.Message:
        """One question, by a client of its own."""
        query = dns.message.make_query(name, kind, **options)
        return await self.send(query, transport)

    async def send(self, query: dns.message.Message, transport: Transport = dns.asyncquery.udp) -> dns.message.Message:
        """One message, by a client of its own."""
        got = await transport(query, "127.0.0.1", port=self.proxy.port, timeout=DEADLINE)
        assert isinstance(got, dns.message.Message)
        return got

    def counted(self, verdict: str) -> int:
        """How many decisions with this verdict were counted as seen in DNS."""
        kinds = self.proxy.counters.decisions.items()
        return sum(number for kind, number in kinds if (kind.visibility, kind.outcome) == ("dns", verdict))


def explained(message: dns.message.Message) -> list[int]:
    """The codes of the extended errors in a message."""
    return [option.code for option in message.options if isinstance(option, dns.edns.EDEOption)]


Start = Callable[..., Any]


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
