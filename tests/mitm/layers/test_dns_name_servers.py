"""Where a name server gives no answer the next one is asked, and the first is left alone for a while."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import dns.asyncquery
import dns.message
import dns.rcode
import pytest
from mitmproxy.connection import Address

from labs.dns_lab import (
    TRANSPORTS,
    Dns,
    Start,
    Transport,
    explained,
    framed,
    stream,
)
from labs.proxy_lab import ALLOWED, DEADLINE, eventually
from labs.resolver import Upstream, answer, name_server, read_message, usual
from labs.serving import serving
from tokgate.mitm.layers import dns as dns_layer
from tokgate.mitm.layers.dns import FAILED_FOR, MOST_ASKED, NameServers

FIRST, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"


@pytest.fixture
async def second(upstream: Upstream) -> AsyncIterator[Upstream]:
    """Another name server, at another address and the same port."""
    async with name_server(Upstream(), SECOND, upstream.port) as made:
        yield made


def name(running: Dns, *servers: str) -> None:
    """Say which name servers there are, as `tokgate run --name-server` does."""
    running.resolver.hosts = list(servers)


def failing(rcode: dns.rcode.Rcode) -> Callable[[dns.message.Message], list[bytes]]:
    def reply(query: dns.message.Message) -> list[bytes]:
        made = dns.message.make_response(query, recursion_available=True)
        made.set_rcode(rcode)
        return [made.to_wire()]

    return reply


SetPatience = Callable[[float, float], None]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> SetPatience:
    """Sets the seconds that a name server has, and the last one."""

    def change(each: float, last: float) -> None:
        monkeypatch.setattr(dns_layer, "PATIENCE", each)
        monkeypatch.setattr(dns_layer, "LAST_PATIENCE", last)

    change(DEADLINE, DEADLINE)
    return change


@TRANSPORTS
async def test_the_first_is_closed(
    running: Dns, second: Upstream, transport: Transport, patience: SetPatience, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing listens the next one is asked at once, and first from then on."""
    patience(2 * DEADLINE, 2 * DEADLINE)
    name(running, THIRD, SECOND)

    for number in (1, 2):
        assert (await running.ask(ALLOWED, "A", transport)).answer
        assert len(second.asked) == number
    assert caplog.text.count(f"name server {THIRD} gives no answer") == 1


async def test_the_first_is_silent(running: Dns, upstream: Upstream, second: Upstream, patience: SetPatience) -> None:
    """One that says nothing is asked once, and then left alone for a while."""
    name(running, FIRST, SECOND)
    upstream.reply = lambda _: []

    patience(0.05, DEADLINE)
    assert (await running.ask(ALLOWED)).answer
    patience(DEADLINE, DEADLINE)
    for _ in range(2):
        assert (await running.ask(ALLOWED)).answer

    assert (len(upstream.asked), len(second.asked)) == (1, 3)


async def test_a_late_answer_counts(running: Dns, upstream: Upstream, second: Upstream, patience: SetPatience) -> None:
    """The first one's answer is taken as well after the second one was asked."""
    name(running, FIRST, SECOND)
    patience(0.05, DEADLINE)
    upstream.reply = lambda _: []

    def reply(query: dns.message.Message) -> list[bytes]:
        upstream.send(usual(query)[0])
        return []

    second.reply = reply

    assert (await running.ask(ALLOWED)).answer[0][0].to_text() == "192.0.2.80"
    assert len(second.asked) == 1


@pytest.mark.parametrize("other", [SECOND, THIRD])
async def test_a_late_answer_counts_after_the_last_one_s_error(
    running: Dns,
    upstream: Upstream,
    second: Upstream,
    patience: SetPatience,
    monkeypatch: pytest.MonkeyPatch,
    other: str,
) -> None:
    """The first one is slow, the second one refuses or is closed: the first one's answer is waited for."""
    name(running, FIRST, other)
    patience(0.05, DEADLINE)
    upstream.reply = lambda _: []
    second.reply = failing(dns.rcode.REFUSED)

    async def late() -> None:
        await eventually("the first one is asked", lambda: upstream.received)
        upstream.send(usual(dns.message.from_wire(upstream.received[0]))[0])

    def then_the_first_answers(method: Callable[..., None]) -> Callable[..., None]:
        def known(servers: NameServers, address: Address) -> None:
            method(servers, address)
            if address[0] == other:
                asyncio.get_running_loop().create_task(late())

        return known

    for method in ("answered", "failed"):
        monkeypatch.setattr(NameServers, method, then_the_first_answers(getattr(NameServers, method)))

    assert (await running.ask(ALLOWED)).answer


async def test_the_last_error_is_the_answer_where_the_other_hangs_up(
    start: Start, second: Upstream, patience: SetPatience, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is left to wait for: the client is told what was said, and not that none answered."""
    running, refused = await start(), asyncio.Event()
    second.reply = failing(dns.rcode.REFUSED)
    patience(0.05, DEADLINE)
    monkeypatch.setattr(NameServers, "answered", lambda *_: refused.set())

    async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_message(reader)
        await refused.wait()

    async with serving(hang_up, THIRD, port=second.port):
        name(running, THIRD, SECOND)
        assert (await running.ask(ALLOWED, "A", dns.asyncquery.tcp)).rcode() == dns.rcode.REFUSED


async def test_a_client_asks_again_meanwhile(
    running: Dns, upstream: Upstream, second: Upstream, patience: SetPatience
) -> None:
    """Its repeated question is passed on, and gives a silent name server no more time."""
    name(running, FIRST, SECOND)
    patience(0.5, DEADLINE)
    query = dns.message.make_query(ALLOWED, "A").to_wire()
    loop, answered = asyncio.get_running_loop(), asyncio.Event()

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            answered.set()

    client, _ = await loop.create_datagram_endpoint(Client, remote_addr=("127.0.0.1", running.proxy.port))

    def reply(_: dns.message.Message) -> list[bytes]:
        loop.call_soon(client.sendto, query)
        return []

    upstream.reply = reply
    with contextlib.closing(client):
        client.sendto(query)
        async with asyncio.timeout(DEADLINE):
            await answered.wait()
        upstream.reply = lambda _: []
    assert len(upstream.asked) > 1
    assert len(second.asked) > 0


async def test_a_server_ends_its_connection_between_two_answers(running: Dns, caplog: pytest.LogCaptureFixture) -> None:
    """What it has left unanswered it is asked again on a new connection, and it isn't said to have failed."""
    asked: list[int] = []

    async def one_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queries = [dns.message.from_wire(await read_message(reader)) for _ in range(3 - len(asked))]
        asked.append(queries[0].id)
        writer.write(framed(answer(queries[0], "60 A 192.0.2.80")))

    async with serving(one_each) as running.resolver.port, stream(running.proxy.port) as client:
        client.writer.write(framed(*(dns.message.make_query(ALLOWED, "A", id=number) for number in (1, 2, 3))))
        got = [await client.message() for _ in range(3)]
        assert await read_message(client.reader) == b""

    assert [(each.id, each.rcode()) for each in got] == [(number, dns.rcode.NOERROR) for number in asked]
    assert sorted(asked) == [1, 2, 3]
    assert "gives no answer" not in caplog.text


async def test_a_server_closes_after_a_zone(running: Dns, second: Upstream) -> None:
    """A zone has its own end: nothing follows it, and no other server is asked for it."""

    async def transfer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = dns.message.from_wire(await read_message(reader))
        writer.write(framed(*[answer(query, "60 SOA ns. x. 1 2 3 4 5")] * 2))

    async with serving(transfer, THIRD, port=second.port), stream(running.proxy.port) as client:
        name(running, THIRD, SECOND)
        client.writer.write(framed(dns.message.make_query(ALLOWED, "AXFR", id=9)))
        assert [(await client.message()).id for _ in range(2)] == [9, 9]
        assert await read_message(client.reader) == b""
    assert second.asked == []


async def test_the_first_hangs_up(start: Start, second: Upstream) -> None:
    """A connection on which a name server has ended its side is closed, while the client waits for the next one."""
    running, ended = await start(), asyncio.Event()
    second.reply = lambda _: []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write_eof()
        await reader.read()
        ended.set()

    async with serving(hang_up, THIRD, port=second.port), stream(running.proxy.port) as client:
        name(running, THIRD, SECOND)
        client.writer.write(framed(dns.message.make_query(ALLOWED, "A")))
        await eventually("the proxy has closed it", ended.is_set)
        await eventually("the next one is asked", lambda: second.asked)


async def test_connecting_takes_long(running: Dns, second: Upstream, patience: SetPatience) -> None:
    """A name server whose host drops what comes keeps nobody from asking the next one."""
    with full_listener(second.port):
        name(running, THIRD, SECOND)
        patience(0.05, DEADLINE)
        assert (await running.ask(ALLOWED, "A", dns.asyncquery.tcp)).answer


@contextlib.contextmanager
def full_listener(port: int) -> Iterator[None]:
    """Accepts no connection: its queue is full, and Linux drops each SYN that comes then (listen(2))."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((THIRD, port), backlog=0))
        waiting = stack.enter_context(socket.create_connection(listener.getsockname()))
        assert waiting
        yield


@TRANSPORTS
@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP])
async def test_the_first_fails(
    running: Dns, upstream: Upstream, second: Upstream, transport: Transport, rcode: dns.rcode.Rcode
) -> None:
    """One that says that it has failed is asked again for other names; names that don't exist are an answer."""
    name(running, FIRST, SECOND)
    upstream.reply = failing(rcode)

    for number in (1, 2):
        assert (await running.ask(ALLOWED, "A", transport)).answer
        assert (len(upstream.asked), len(second.asked)) == (number, number)
    upstream.reply = failing(dns.rcode.NXDOMAIN)
    assert (await running.ask(ALLOWED, "A", transport)).rcode() == dns.rcode.NXDOMAIN
    assert len(second.asked) == 2


async def test_all_fail(running: Dns, upstream: Upstream, second: Upstream) -> None:
    """The last one's own error is the answer."""
    name(running, FIRST, SECOND)
    upstream.reply = second.reply = failing(dns.rcode.REFUSED)

    assert (await running.ask(ALLOWED, use_edns=0)).rcode() == dns.rcode.REFUSED
    assert (len(upstream.asked), len(second.asked)) == (1, 1)


@TRANSPORTS
async def test_all_are_silent(
    running: Dns, upstream: Upstream, second: Upstream, transport: Transport, patience: SetPatience
) -> None:
    """After each has had its time the client learns that there is no answer."""
    name(running, FIRST, SECOND, THIRD)
    upstream.reply = second.reply = lambda _: []
    patience(0.05, 0.05)

    got = await running.ask(ALLOWED, "A", transport, use_edns=0)

    assert (got.rcode(), explained(got)) == (dns.rcode.SERVFAIL, [23])
    assert (len(upstream.asked), len(second.asked)) == (1, 1)


async def test_one_alone(running: Dns, upstream: Upstream, patience: SetPatience) -> None:
    """A name server that is the only one is asked for every question, however often it failed."""
    upstream.reply = lambda _: []
    patience(0.05, 0.05)
    assert (await running.ask(ALLOWED)).rcode() == dns.rcode.SERVFAIL
    upstream.reply = usual
    patience(DEADLINE, DEADLINE)
    assert (await running.ask(ALLOWED)).answer


def test_order() -> None:
    """As configured, but who has just failed last, for a while or until it answers; and no more than a few."""
    clock = [0.0]
    known = NameServers(lambda: clock[0])
    servers = [(f"192.0.2.{number}", 53) for number in range(1, MOST_ASKED + 2)]

    assert known.in_order([servers[0], *servers]) == servers[:MOST_ASKED]
    known.failed(servers[0])
    assert known.in_order(servers) == servers[1:]
    clock[0] = FAILED_FOR
    assert known.in_order(servers)[0] == servers[0]
    known.failed(servers[0])
    known.answered(servers[0])
    known.answered(servers[1])
    assert known.in_order(servers)[0] == servers[0]
