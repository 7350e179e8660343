"""A proxy in dns mode, and clients of it."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import dns.asyncquery
import dns.edns
import dns.message
import dns.name
import dns.rrset
import pytest

from labs.proxy_lab import DEADLINE, Lab, Proxy
from labs.resolver import Upstream, read_message
from tokgate.mitm.layers import dns as dns_layer

Transport = Callable[..., Any]
TRANSPORTS = pytest.mark.parametrize("transport", [dns.asyncquery.udp, dns.asyncquery.tcp], ids=["udp", "tcp"])


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
