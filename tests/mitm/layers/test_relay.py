"""What a client under a ban says after its first words, through mitmproxy: after a retry, and through another proxy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from labs.hello_builder import RETRY, openssl_hello
from labs.proxy_lab import ALLOWED, BANNED, Client, Lab, Origin, client, eventually, policy
from tokgate.policy.snapshot import Snapshot

ALERT = bytes.fromhex("15030300020270")
CHANGE = b"\x14\3\3\0\1\1"
ESTABLISHED = b"HTTP/1.1 200 OK\r\n\r\n"
FIRST = openssl_hello(ALLOWED)


def connect(host: str) -> bytes:
    return f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


class Peer:
    """A server that answers each of what is expected, in turn, and keeps all it hears."""

    def __init__(self, *turns: tuple[bytes, bytes]) -> None:
        self.heard = b""
        self._turns = turns

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for expected, answer in self._turns:
            self.heard += await reader.readexactly(len(expected))
            writer.write(answer)
        while data := await reader.read(65536):
            self.heard += data
            writer.write(data)


@contextlib.asynccontextmanager
async def redirected(lab: Lab, origin: Origin, snapshot: Snapshot | None = None) -> AsyncIterator[Client]:
    """A client whose connections were going to a server."""
    proxy = await lab.proxy(snapshot, destination=("127.0.0.1", origin.port))
    async with client(proxy.port) as guest:
        yield guest


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (CHANGE + FIRST, None),
        (CHANGE + openssl_hello(BANNED), "ban-block"),
        (openssl_hello("www.example.com"), "name-changed"),
        (b"\x16\3\1\0\4\2\0\0\0", "unreadable"),
    ],
)
async def test_second_hello(lab: Lab, second: bytes, reason: str | None) -> None:
    """After a HelloRetryRequest the same name passes, and no other reaches the server."""
    origin = await lab.raw_origin(peer := Peer((FIRST, RETRY)))
    async with redirected(lab, origin) as guest:
        await guest.send(FIRST)
        assert await guest.exactly(len(RETRY)) == RETRY
        for start in range(0, len(second), 7):
            await guest.send(second[start : start + 7])
        if reason is None:
            assert await guest.exactly(len(second)) == second
        else:
            assert await guest.to_end() == ALERT

    assert peer.heard == FIRST + (second if reason is None else b"")
    assert [record["tokgate"]["reason"] for record in lab.records.all] == ([reason] if reason else [])


async def test_second_hello_that_does_not_wait(lab: Lab) -> None:
    """A second hello that was sent before the server asked for it is held until then, and decided about."""
    origin = await lab.raw_origin(peer := Peer((FIRST, RETRY)))
    async with redirected(lab, origin) as guest:
        await guest.send(FIRST)
        await guest.send(openssl_hello(BANNED))
        assert await guest.to_end() in (RETRY + ALERT, ALERT)

    assert peer.heard == FIRST


@pytest.mark.parametrize(
    ("answer", "behind", "heard"),
    [(b"HTTP/1.1 400\r\n", b"\x16rest", b"\x16rest"), (RETRY, FIRST, FIRST), (RETRY, FIRST[:9], b"")],
    ids=["no TLS", "retry", "cut short"],
)
async def test_a_client_that_ends_before_the_answer(lab: Lab, answer: bytes, behind: bytes, heard: bytes) -> None:
    """Its end waits behind what it has said, and comes after it."""
    answers, arrived, ended = asyncio.Event(), bytearray(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.extend(await reader.readexactly(len(FIRST)))
        await answers.wait()
        writer.write(answer)
        arrived.extend(await reader.read(-1))
        ended.set()

    origin = await lab.raw_origin(serve)
    async with redirected(lab, origin) as guest:
        await guest.send(FIRST)
        await eventually("the first hello arrives", lambda: arrived)
        await guest.send(behind)
        guest.writer.write_eof()
        await asyncio.sleep(0.05)  # without the mend its end is passed on by now
        answers.set()
        assert await guest.to_end() == answer + (b"" if heard else ALERT)
        await asyncio.wait_for(ended.wait(), 20)

    assert bytes(arrived) == FIRST + heard


async def test_clients_under_no_ban(lab: Lab) -> None:
    """Of others nothing is held and nothing decided."""
    origin = await lab.raw_origin(peer := Peer((FIRST, RETRY)))
    async with redirected(lab, origin, policy(networks=("192.0.2.0/24",))) as guest:
        await guest.send(said := FIRST + openssl_hello(BANNED))
        await eventually("all of it arrives", lambda: peer.heard == said)

    assert lab.records.all == []


@pytest.mark.parametrize("behind", [b"", FIRST])
async def test_another_proxy(lab: Lab, behind: bytes) -> None:
    """A tunnel through a proxy behind this one is carried for an allowed name."""
    origin = await lab.raw_origin(peer := Peer((connect(ALLOWED), ESTABLISHED)))
    async with redirected(lab, origin) as guest:
        await guest.send(connect(ALLOWED) + behind)
        assert await guest.exactly(len(ESTABLISHED)) == ESTABLISHED
        if not behind:
            await guest.send(FIRST)
        assert await guest.exactly(len(FIRST)) == FIRST

    assert peer.heard == connect(ALLOWED) + FIRST
    assert lab.records.all == []


@pytest.mark.parametrize(
    "then", [(connect(BANNED),), (connect(ALLOWED), openssl_hello(BANNED)), (connect(ALLOWED), connect(BANNED))]
)
async def test_banned_names_through_another_proxy(lab: Lab, then: tuple[bytes, ...]) -> None:
    """Neither a request to another proxy nor what its tunnel carries gets a banned name past this one."""
    origin = await lab.raw_origin(peer := Peer((connect(ALLOWED), ESTABLISHED)))
    async with redirected(lab, origin) as guest:
        for words in then:
            await guest.send(words)
            if words is not then[-1]:
                await guest.exactly(len(ESTABLISHED))
        end = await guest.to_end()

    assert end == ALERT or end.startswith(b"HTTP/1.1 451 ")
    assert peer.heard == b"".join(then[:-1])
    assert [record["tokgate"]["reason"] for record in lab.records.all] == ["ban-block"]


@pytest.mark.parametrize(("host", "status"), [(ALLOWED, b"200"), (BANNED, b"451")])
async def test_absolute_form_to_another_proxy(lab: Lab, host: str, status: bytes) -> None:
    """A plain request to a proxy behind this one passes as it came, or is answered by the name in it."""
    request = f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    peer = Peer((request, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    origin = await lab.raw_origin(peer)
    async with redirected(lab, origin) as guest:
        await guest.send(request)
        assert (await guest.head()).startswith(b"HTTP/1.1 " + status)

    assert peer.heard.startswith(f"GET http://{host}/".encode() if status == b"200" else b"")
