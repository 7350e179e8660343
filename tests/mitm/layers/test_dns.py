"""DNS through mitmproxy, with real clients and a server that counts who asks: refused, answered, kept to terms."""

import asyncio
import contextlib
import socket
from typing import Any

import dns.asyncquery
import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from labs import builders
from labs.dns_lab import (
    TRANSPORTS,
    Dns,
    Start,
    Transport,
    explained,
    framed,
    stream,
)
from labs.hello_builder import openssl_hello
from labs.proxy_lab import ALLOWED, BANNED, DEADLINE, Lab, ban, client, eventually, policy
from labs.resolver import Upstream, answer, read_message, usual
from tokgate.mitm.hooks import connection as connection_hooks
from tokgate.mitm.hooks.connection import close_silent
from tokgate.policy.settings import DnsSettings, EchKeys
from tokgate.traffic import dns_questions

ECH = "ech=AEX+DQBBAAAgACDsmhA1bA9Gkp5XzFSlB0kUqvRgmJMYvRYgiO34ESwvUgAEAAEAAQASY2xvdWRmbGFyZS1lY2guY29tAAA="


@pytest.mark.parametrize("kind", ["AAAA", "MX", "ANY", "TYPE65281"])
@TRANSPORTS
async def test_refused(running: Dns, transport: Transport, kind: str) -> None:
    """A banned name does not exist, by whose decision, and nobody else hears of it, whatever is asked about it."""
    got = await running.ask(BANNED, kind, transport, use_edns=0)

    assert got.rcode() == dns.rcode.NXDOMAIN
    (error,) = got.options
    assert isinstance(error, dns.edns.EDEOption)
    assert (error.code, "The Council" in (error.text or "")) == (16, True)
    assert running.upstream.asked == []
    (record,) = running.lab.records.all
    assert (record["event"]["action"], record["dns"]["question"]["type"]) == ("dns-query-blocked", kind)
    assert record["network"]["transport"] == ("udp" if transport is dns.asyncquery.udp else "tcp")
    assert running.counted("block") == 1


@TRANSPORTS
async def test_answered(running: Dns, transport: Transport) -> None:
    """Anything else is asked and answered byte for byte, counted, and not recorded."""
    query = dns.message.make_query("wWw.Example.ORG", "TXT", use_edns=0, want_dnssec=True)
    made = answer(query, '86400 TXT "\\200\\012\\192\\012 as it is"')
    made.flags |= dns.flags.AD  # what a resolver has proved stays so
    running.upstream.reply = lambda _: [made.to_wire()]

    got = await running.send(query, transport)

    assert got.to_wire() == made.to_wire()
    assert running.upstream.received == [query.to_wire()]
    assert running.lab.records.all == []
    assert running.counted("allow") == 1


@pytest.mark.parametrize("kind", ["A", "TXT"])
async def test_names_that_mitmproxy_cannot_read(running: Dns, kind: str) -> None:
    """Names that IDNA 2003 knew otherwise, or that are no host names, are asked for as they are."""
    names = ["xn--strae-oqa.example", r"\000.example", r"a\.b.example", "-a-.example", r"\255\254.example", ""]

    for name in names:
        assert (await running.ask(dns.name.from_text(name or ".", idna_codec=None), kind)).answer

    assert running.upstream.asked[:-1] == names[:-1]


async def test_ids_are_used_again(running: Dns) -> None:
    """A client that uses an id again on the same socket gets the answer to its new question, refused or not.

    Datagrams that are no DNS are not answered.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", running.proxy.port))

        async def ask(name: str) -> dns.message.Message:
            query = dns.message.make_query(name, "A", id=7)
            for data in (b"hello", bytes(11), b"\x00\x07\x80\x00" + bytes(8), query.to_wire()):
                await loop.sock_sendall(sock, data)
            async with asyncio.timeout(DEADLINE):
                got = dns.message.from_wire(await loop.sock_recv(sock, 65535))
            assert query.is_response(got)
            return got

        for _ in range(2):
            assert (await ask(ALLOWED)).answer
            assert (await ask(BANNED)).rcode() == dns.rcode.NXDOMAIN
            assert (await ask("mail.example.org")).answer

    assert running.upstream.asked == [ALLOWED, "mail.example.org"] * 2


class Sockets:
    """Counts connections to servers that are open."""

    def __init__(self) -> None:
        self.opened, self.open = 0, 0

    def server_connected(self, _: Any) -> None:
        self.opened, self.open = self.opened + 1, self.open + 1

    def server_disconnected(self, _: Any) -> None:
        self.open -= 1


async def test_sockets_are_given_back(start: Start) -> None:
    """No socket is kept for a client that has its answer, or many clients would use them up; it may ask again."""
    running, sockets = await start(), Sockets()
    running.proxy.master.addons.add(sockets)
    query = dns.message.make_query(ALLOWED, "A")
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", running.proxy.port))
        for number in (1, 2):
            await loop.sock_sendall(sock, query.to_wire())
            async with asyncio.timeout(DEADLINE):
                assert query.is_response(dns.message.from_wire(await loop.sock_recv(sock, 65535)))
            await eventually("the socket is closed", lambda: sockets.open == 0)
            assert sockets.opened == number


async def test_stray_answers(running: Dns) -> None:
    """An answer to another question is nobody's, whoever sends it first."""

    def reply(query: dns.message.Message) -> list[bytes]:
        other = dns.message.make_query("www.example.net", "A", id=query.id)
        return [b"\x00", b"hello", answer(other, "60 A 192.0.2.66").to_wire(), *usual(query)]

    running.upstream.reply = reply

    assert (await running.ask(ALLOWED)).answer[0][0].to_text() == "192.0.2.80"


@TRANSPORTS
async def test_answers_end_when_a_ban_starts(start: Start, transport: Transport) -> None:
    """Half a minute before a ban, an answer for a day is one for half a minute; other names keep their day."""
    start_of_ban = builders.ban().starts
    at = builders.at("2023-03-09T22:59:30Z")
    running = await start(policy(ban(starts=start_of_ban)), now=lambda: at)

    assert (await running.ask(BANNED, "A", transport)).answer[0].ttl == 30
    assert (await running.ask(ALLOWED, "A", transport)).answer[0].ttl == 86400


async def test_ban_starts_between_question_and_answer(start: Start) -> None:
    """An answer that comes after the ban began is none."""
    clock = [builders.at("2023-03-09T22:59:59Z")]
    running = await start(policy(ban(starts=builders.wall("2023-03-10T00:00"))), now=lambda: clock[0])

    def reply(query: dns.message.Message) -> list[bytes]:
        clock[0] = builders.at("2023-03-09T23:00:00Z")
        return usual(query)

    running.upstream.reply = reply

    assert (await running.ask(BANNED)).rcode() == dns.rcode.NXDOMAIN
    assert running.lab.records.actions == ["dns-query-blocked"]


@TRANSPORTS
async def test_aliases(running: Dns, transport: Transport) -> None:
    """A name that is an alias of a banned one is refused, by the ban of that name; another alias is answered."""
    targets = {"cloaked.example.com": BANNED, ALLOWED: "cdn.example.net"}

    def reply(query: dns.message.Message) -> list[bytes]:
        target = targets[query.question[0].name.to_text(omit_final_dot=True)]
        made = answer(query, f"300 CNAME {target}.")
        made.answer.append(dns.rrset.from_text(f"{target}.", 300, "IN", "A", "192.0.2.80"))
        return [made.to_wire()]

    running.upstream.reply = reply

    refused = await running.ask("cloaked.example.com", "A", transport, use_edns=0)
    passed = await running.ask(ALLOWED, "A", transport, use_edns=0)

    assert (refused.rcode(), refused.answer) == (dns.rcode.NXDOMAIN, [])
    assert explained(refused) == [16]
    assert [rrset.rdtype for rrset in passed.answer] == [dns.rdatatype.CNAME, dns.rdatatype.A]
    (record,) = running.lab.records.all
    assert (record["dns"]["question"]["name"], record["destination"]["domain"]) == ("cloaked.example.com", BANNED)


@pytest.mark.parametrize("setting", ["withhold", "allow"])
async def test_ech(start: Start, setting: str) -> None:
    """ECH keys are taken out for clients under a ban, and pass untouched where the policy says so."""
    running = await start(policy(dns=DnsSettings(ech_keys=EchKeys(setting))))
    running.upstream.reply = lambda query: [answer(query, f"300 HTTPS 1 . alpn=h2 {ECH}").to_wire()]

    got = await running.ask(ALLOWED, "HTTPS")

    assert ("ech=" in got.answer[0][0].to_text()) is (setting == "allow")
    assert got.answer[0].ttl == 300


async def test_answers_that_can_t_be_read(running: Dns) -> None:
    """An answer that has to be edited and can't be read becomes a failure, not a pass."""
    running.upstream.reply = lambda query: [usual(query)[0] + b"\x00"]

    got = await running.ask(ALLOWED, use_edns=0)

    assert (got.rcode(), explained(got)) == (dns.rcode.SERVFAIL, [0])


async def test_encrypted_dns(running: Dns) -> None:
    """Firefox' canary does not exist under a ban; designated resolvers are never told of."""
    canary = await running.ask("use-application-dns.net", use_edns=0)
    assert (canary.rcode(), explained(canary)) == (dns.rcode.NXDOMAIN, [15])
    got = await running.ask("_dns.resolver.arpa", "SVCB")

    assert (got.rcode(), got.answer, len(got.authority)) == (dns.rcode.NOERROR, [], 1)
    assert running.upstream.asked == []
    assert running.lab.records.all == []


async def test_nobody_to_ask(running: Dns) -> None:
    """Without anyone who could answer, a question fails at once."""
    running.resolver.hosts = []

    got = await running.ask(ALLOWED, use_edns=0)

    assert (got.rcode(), explained(got)) == (dns.rcode.SERVFAIL, [23])


@TRANSPORTS
async def test_malformed(running: Dns, transport: Transport) -> None:
    """Two questions in one message are a format error, another opcode is not implemented; neither is asked on."""
    two = dns.message.make_query(ALLOWED, "A")
    two.question += dns.message.make_query(BANNED, "A").question
    status = dns.message.make_query(ALLOWED, "A")
    status.set_opcode(dns.opcode.STATUS)

    with contextlib.suppress(dns.exception.FormError):  # the answer repeats neither question
        assert (await running.send(two, transport)).rcode() == dns.rcode.FORMERR
    with contextlib.suppress(dns.exception.FormError):
        assert (await running.send(status, transport)).rcode() == dns.rcode.NOTIMP

    assert (await running.ask(ALLOWED, "A", transport)).answer
    assert running.upstream.asked == [ALLOWED]


async def test_a_client_that_has_asked_all(running: Dns) -> None:
    """Who ends its side gets its answers, refusals or none, and then the connection ends on both sides.

    Each question has an answer of its own, also where they come octet by octet.
    """
    names = [ALLOWED, BANNED, "mail.example.org"]
    for asked in (names, names[1:2], []):
        async with stream(running.proxy.port) as client:
            for octet in framed(*(dns.message.make_query(n, "A", id=i) for i, n in enumerate(asked))):
                client.writer.write(bytes((octet,)))
                await client.writer.drain()
            client.writer.write_eof()
            got = [await client.message() for _ in asked]
            assert {each.id: each.rcode() for each in got} == {i: 3 * (n == BANNED) for i, n in enumerate(asked)}
            assert await read_message(client.reader) == b""
            await eventually("nothing is left of it", lambda: not running.proxy.connections)


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x20half", openssl_hello(ALLOWED)], ids=["octet", "half", "tls"])
async def test_silent_clients(running: Dns, data: bytes) -> None:
    """Who doesn't finish its first question in time is closed."""
    async with stream(running.proxy.port) as client:
        client.writer.write(data)
        await eventually("the connection is there", lambda: running.proxy.connections)
        await close_silent(running.proxy.traffic, 0)
        with contextlib.suppress(ConnectionResetError):  # what was sent may be unread
            async with asyncio.timeout(DEADLINE):
                assert await client.reader.read() == b""

    assert running.proxy.counters.timeouts == 1


async def test_an_end_before_the_answer(start: Start, upstream: Upstream) -> None:
    """Whose connection ends at something that is no DNS is told that the question before it has no answer."""
    upstream.reply = lambda query: []
    running = await start()
    query = dns.message.make_query(ALLOWED, "A")
    async with client(running.proxy.port) as guest:
        await guest.send(framed(query))
        await eventually("it is asked", lambda: upstream.asked)
        await guest.send(b"\0\5hello")
        answer = await guest.to_end()
    assert int.from_bytes(answer[:2]) == len(answer) - 2
    got = dns.message.from_wire(answer[2:])
    assert (query.is_response(got), got.rcode()) == (True, dns.rcode.SERVFAIL)


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("part", ["judge", "refuse", "discouraged"])
@pytest.mark.parametrize(("on_error", "rcode"), [("block", dns.rcode.NXDOMAIN), ("allow", dns.rcode.NOERROR)])
async def test_what_raises(
    start: Start, monkeypatch: pytest.MonkeyPatch, part: str, on_error: str, rcode: dns.rcode.Rcode
) -> None:
    """Whatever breaks, `on_error` decides about banned names, and all others are answered."""
    running = await start(policy(on_error=on_error))
    monkeypatch.setattr(dns_questions, part, broken)

    banned, allowed = await running.ask(BANNED, use_edns=0), await running.ask(ALLOWED)

    if part != "discouraged":  # which a refused name never comes to
        assert banned.rcode() == rcode
        assert explained(banned) == ([15] if rcode == dns.rcode.NXDOMAIN else [])
    assert allowed.answer
    assert "internal-error" in running.lab.records.actions or part == "refuse"


async def test_terms_raise(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer whose terms can't be told passes, unless errors block its name."""
    running = await start(policy(ban(action="warn")))
    monkeypatch.setattr(dns_questions, "terms", broken)

    assert (await running.ask(BANNED)).rcode() == dns.rcode.NXDOMAIN
    assert (await running.ask(ALLOWED)).answer
    assert running.proxy.counters.errors["dns"] == 2


@pytest.mark.parametrize(("on_error", "passes"), [("block", False), ("allow", True)])
async def test_front_can_t_be_put_in_place(
    start: Start, monkeypatch: pytest.MonkeyPatch, on_error: str, passes: bool
) -> None:
    """Without our layer mitmproxy's would answer everything: only if errors let everything pass."""
    running = await start(policy(on_error=on_error))
    monkeypatch.setattr(connection_hooks, "DnsLayer", broken)

    async with stream(running.proxy.port) as client:
        client.writer.write(framed(dns.message.make_query(ALLOWED, "A")))
        assert bool(await read_message(client.reader)) is passes

    assert running.proxy.counters.errors["client_connected"] == 1


async def test_own_questions_are_known(running: Dns) -> None:
    """A resolver that asks itself gets no answer from itself."""
    running.resolver.port = running.proxy.port

    async with stream(running.proxy.port) as client:
        client.writer.write(framed(dns.message.make_query(ALLOWED, "A")))
        assert (await client.message()).rcode() == dns.rcode.SERVFAIL

    assert running.proxy.counters.loops == 1


async def test_redirected_dns(lab: Lab, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to a resolver's port are read as DNS in all modes; the resolver that was asked answers the rest.

    A question that is padded until its length looks like TLS is decided as any other.
    """
    monkeypatch.setattr(connection_hooks, "DNS_PORT", upstream.port)
    proxy = await lab.proxy(destination=("127.0.0.1", upstream.port))
    padded = dns.message.make_query(BANNED, "A", use_edns=0)
    padding = bytes(0x1603 - len(padded.to_wire()) - 4)
    padded.use_edns(0, options=[dns.edns.GenericOption(dns.edns.OptionType.PADDING, padding)])

    async with stream(proxy.port) as client:
        client.writer.write(framed(padded, dns.message.make_query(ALLOWED, "A")))
        assert (await client.message()).rcode() == dns.rcode.NXDOMAIN
        assert (await client.message()).answer

    assert upstream.asked == [ALLOWED]
    assert lab.records.all[0]["destination"]["ip"] == "127.0.0.1"


async def test_questions_that_wait_are_bounded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks on without any answer fills no memory: the oldest question is given up for the newest."""
    monkeypatch.setattr("tokgate.mitm.layers.dns.OPEN_QUESTIONS", 2)
    running = await start()
    waiting: list[bytes] = []

    def together(query: dns.message.Message) -> list[bytes]:
        waiting.append(answer(query, "60 A 192.0.2.80").to_wire())
        return waiting if len(waiting) == 4 else []

    running.upstream.reply = together
    queries = [dns.message.make_query(ALLOWED, "A", id=number) for number in range(1, 5)]
    async with stream(running.proxy.port) as client:
        client.writer.write(framed(*queries))
        assert [(await client.message()).id for _ in range(2)] == [3, 4]
        running.upstream.reply = usual
        client.writer.write(framed(dns.message.make_query(ALLOWED, "A", id=5)))
        assert (await client.message()).id == 5


async def test_a_question_is_answered_once(running: Dns) -> None:
    """What a server, or somebody in its name, sends to a question that has its answer reaches nobody."""
    running.upstream.reply = lambda query: usual(query) * 2
    async with stream(running.proxy.port) as client:
        for number in (1, 2):
            client.writer.write(framed(dns.message.make_query(ALLOWED, "A", id=number)))
            assert (await client.message()).id == number
