"""What a refused TLS connection gets, and that its origin never hears of it; each beside one that passes."""

import asyncio
import ssl

import hello_builder
import pytest
from proxy_lab import ALLOWED, BANNED, BANNED_ADDRESS, Lab, ban, client, client_hello, eventually, policy

import builders

ALERT = bytes.fromhex("15030300020270")


async def test_banned_name_gets_alert_and_end(lab: Lab) -> None:
    """A banned SNI is answered with unrecognized_name and a FIN; the origin sees no connection."""
    origin = await lab.sink_origin()
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(client_hello(BANNED))
        assert await guest.to_end() == ALERT

    assert origin.connections == 0
    assert lab.records.actions == ["tls-handshake-refused"]
    record = lab.records.all[0]
    assert record["destination"]["domain"] == BANNED
    assert record["tokgate"]["ban"] == "ban"
    assert record["tokgate"]["ja4"].startswith("t13d")


async def test_openssl_names_the_alert(lab: Lab) -> None:
    """A real TLS client reports unrecognized_name."""
    proxy = await lab.proxy(destination=("127.0.0.1", 1))

    async with client(proxy.port) as guest:
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            await guest.tls(lab.authority.client(), BANNED)


async def test_allowed_name_keeps_the_origins_certificate(lab: Lab) -> None:
    """An allowed SNI reaches the origin: its own certificate, its own answer, and nothing in the log."""
    origin = await lab.web_origin(ALLOWED)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(origin.port) as direct, client(proxy.port) as guest:
        await direct.tls(lab.authority.client(), ALLOWED)
        await guest.tls(lab.authority.client(), ALLOWED)
        assert guest.fingerprint == direct.fingerprint
        reply = await guest.get(ALLOWED)

    assert (reply.status, reply.body) == (200, b"origin")
    assert lab.records.all == []


async def test_allowed_bytes_are_identical(lab: Lab) -> None:
    """What an allowed client sends arrives octet by octet, and so does the answer."""
    reply = bytes(range(256)) * 4096
    origin = await lab.sink_origin(reply)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    sent = client_hello(ALLOWED) + bytes(reversed(range(256))) * 4096

    async with client(proxy.port) as guest:
        await guest.send(sent)
        guest.writer.write_eof()
        assert await guest.to_end() == reply

    assert bytes(origin.received) == sent


@pytest.mark.parametrize("name", [BANNED, ALLOWED])
async def test_hello_in_single_octets(lab: Lab, name: str) -> None:
    """A ClientHello in segments of one octet is read like one in a single piece."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        for octet in client_hello(name):
            await guest.send(bytes([octet]))
            await asyncio.sleep(0)
        if name == ALLOWED:
            guest.writer.write_eof()
        answer = await guest.to_end()

    assert (answer, origin.connections) == ((ALERT, 0) if name == BANNED else (b"through", 1))


async def test_nothing_goes_upstream_before_the_decision(lab: Lab) -> None:
    """While a ClientHello is incomplete there is no connection to the origin."""
    origin = await lab.sink_origin()
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    hello = client_hello(ALLOWED)

    async with client(proxy.port) as guest:
        await guest.send(hello[:-1])
        await eventually("the proxy serves the client", lambda: proxy.connections == 1)
        async with client(proxy.port) as other:  # served after the first one's octets were
            await other.send(client_hello(BANNED))
            assert await other.to_end() == ALERT
        assert origin.connections == 0
        await guest.send(hello[-1:])
        await eventually("the origin sees the connection", lambda: origin.connections == 1)


async def test_silent_client_is_closed(lab: Lab) -> None:
    """A client that doesn't finish its hello in time is closed; one that has is left alone."""
    origin = await lab.sink_origin()
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as silent, client(proxy.port) as talker:
        await silent.send(client_hello(ALLOWED)[:20])
        await talker.send(client_hello(ALLOWED))
        await eventually("the talker is relayed", lambda: origin.connections == 1)
        await eventually("both are served", lambda: proxy.connections == 2)
        await proxy.traffic.close_silent(patience=0)
        assert await silent.to_end() == b""
        await talker.send(b"still here")
        await eventually("the talker is heard", lambda: origin.received.endswith(b"still here"))

    assert proxy.counters.timeouts == 1


async def test_hello_over_the_cap(lab: Lab) -> None:
    """A ClientHello that can't end within 64 KiB is refused."""
    origin = await lab.sink_origin()
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(b"\x16\x03\x01\x40\x00\x01\x01\x00\x00")
        assert await guest.to_end() == ALERT

    assert origin.connections == 0


@pytest.mark.parametrize(("networks", "answer"), [(("127.0.0.0/8",), ALERT), (("192.0.2.0/24",), b"through")])
async def test_unreadable_hello(lab: Lab, networks: tuple[str, ...], answer: bytes) -> None:
    """What begins like TLS and makes no sense is refused to clients under a ban; others are none of our business."""
    origin = await lab.sink_origin(b"through")
    snapshot = policy(ban(response="page"), networks=networks)
    proxy = await lab.proxy(snapshot, destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(b"\x16\x03\x01\x00\x08\x01\x00\x00\x04oops")
        guest.writer.write_eof()
        assert await guest.to_end() == answer

    assert origin.connections == (answer == b"through")


async def test_banned_destination_address(lab: Lab) -> None:
    """An allowed name at a banned address is refused by the address."""
    origin = await lab.sink_origin()
    proxy = await lab.proxy(destination=(BANNED_ADDRESS, origin.port))

    async with client(proxy.port) as guest:
        await guest.send(client_hello(ALLOWED))
        assert await guest.to_end() == ALERT

    assert origin.connections == 0
    assert lab.records.all[0]["tokgate"]["signal"] == "address"


@pytest.mark.parametrize(
    ("setting", "address", "refused"),
    [
        ("allow", "127.0.0.1", False),
        ("allow", BANNED_ADDRESS, False),
        ("check-address", "127.0.0.1", False),
        ("check-address", BANNED_ADDRESS, True),
        ("block", "127.0.0.1", True),
    ],
)
async def test_missing_sni(lab: Lab, setting: str, address: str, refused: bool) -> None:
    """A ClientHello without a name is treated as `missing_sni` says."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(policy(missing_sni=setting), destination=(address, origin.port))

    async with client(proxy.port) as guest:
        await guest.send(client_hello(None))
        if not refused:
            guest.writer.write_eof()
        assert await guest.to_end() == (ALERT if refused else b"through")

    assert origin.connections == (0 if refused else 1)
    assert lab.records.actions == (["tls-handshake-refused"] if refused else [])


async def test_missing_sni_is_refused_under_a_ban_only(lab: Lab) -> None:
    """`missing_sni: block` refuses nothing while no ban is in force."""
    origin = await lab.sink_origin(b"through")
    later = ban(starts=builders.wall("2030-01-01T00:00"))
    proxy = await lab.proxy(policy(later, missing_sni="block"), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(client_hello(None))
        guest.writer.write_eof()
        assert await guest.to_end() == b"through"


@pytest.mark.parametrize(("names", "refused"), [((BANNED,), True), ((ALLOWED,), False)])
async def test_missing_sni_by_certificate(lab: Lab, names: tuple[str, ...], refused: bool) -> None:
    """`missing_sni: check-certificate` decides by the names on the origin's certificate."""
    origin = await lab.web_origin(*names)
    proxy = await lab.proxy(policy(missing_sni="check-certificate"), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        if refused:
            await guest.send(client_hello(None))
            assert await guest.to_end() == ALERT
            assert lab.records.all[0]["tokgate"]["signal"] == "certificate"
        else:
            await guest.tls(lab.authority.client(), None)
            assert (await guest.get(ALLOWED)).body == b"origin"

    assert origin.connections == (1 if refused else 2)  # one of them asked for the certificate


async def test_missing_sni_without_certificate_falls_back_to_address(lab: Lab) -> None:
    """Where no certificate is to be had, the address decides."""
    proxy = await lab.proxy(policy(missing_sni="check-certificate"), destination=(BANNED_ADDRESS, 1))

    async with client(proxy.port) as guest:
        await guest.send(client_hello(None))
        assert await guest.to_end() == ALERT

    assert lab.records.all[0]["tokgate"]["signal"] == "address"


@pytest.mark.parametrize(("setting", "refused"), [("allow", False), ("block", True)])
async def test_ech_outer(lab: Lab, setting: str, refused: bool) -> None:
    """A hello that shows only an ECH provider's public name is treated as `ech_outer` says."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(policy(ech_outer=setting), destination=("127.0.0.1", origin.port))
    message = hello_builder.hello(hello_builder.server_name(b"cloudflare-ech.com"), hello_builder.ech())

    async with client(proxy.port) as guest:
        await guest.send(hello_builder.records(message))
        if not refused:
            guest.writer.write_eof()
        assert await guest.to_end() == (ALERT if refused else b"through")

    if refused:
        assert lab.records.all[0]["event"]["code"] == "ech-outer"


async def test_ech_outer_is_opened_for_inspection(lab: Lab) -> None:
    """`ech_outer: inspect` ends TLS here, so that the client tries again without ECH."""
    origin = await lab.sink_origin()
    proxy = await lab.proxy(policy(ech_outer="inspect"), destination=("127.0.0.1", origin.port))
    hello = with_extension(client_hello("cloudflare-ech.com"), *hello_builder.ech())

    async with client(proxy.port) as guest:
        await guest.send(hello)
        assert (await guest.exactly(6))[5] == 2  # a ServerHello, and it is not the origin's

    assert origin.connections == 0


async def test_grease_is_not_ech(lab: Lab) -> None:
    """The ECH extension beside a real name, as browsers always send it, hides nothing: that name is decided."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(policy(ech_outer="block"), destination=("127.0.0.1", origin.port))
    message = hello_builder.hello(hello_builder.server_name(ALLOWED.encode()), hello_builder.ech())

    async with client(proxy.port) as guest:
        await guest.send(hello_builder.records(message))
        guest.writer.write_eof()
        assert await guest.to_end() == b"through"


async def test_two_names_are_no_name(lab: Lab) -> None:
    """A server_name with two names is treated like none at all."""
    proxy = await lab.proxy(policy(missing_sni="block"), destination=("127.0.0.1", 1))
    message = hello_builder.hello(hello_builder.server_name(ALLOWED.encode(), BANNED.encode()))

    async with client(proxy.port) as guest:
        await guest.send(hello_builder.records(message))
        assert await guest.to_end() == ALERT


async def test_client_of_another_network(lab: Lab) -> None:
    """A client outside the ban's networks reaches the banned name."""
    origin = await lab.web_origin(BANNED)
    proxy = await lab.proxy(policy(networks=("192.0.2.0/24",)), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(), BANNED)
        assert (await guest.get(BANNED)).body == b"origin"


@pytest.mark.parametrize(
    ("stated", "action"),
    [({"action": "monitor"}, "would-block"), ({"action": "warn"}, "connection-warned")],
)
async def test_milder_verdicts_pass_and_are_logged(lab: Lab, stated: dict[str, str], action: str) -> None:
    """Monitored and warned traffic reaches the origin unopened, and leaves a record."""
    origin = await lab.web_origin(BANNED)
    proxy = await lab.proxy(policy(ban(**stated)), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(), BANNED)
        assert (await guest.get(BANNED)).body == b"origin"

    assert lab.records.actions == [action]


def with_extension(record: bytes, kind: int, body: bytes) -> bytes:
    """A ClientHello in one record with one more extension at its end."""
    hello = bytearray(record[9:])
    position = 34 + 1 + hello[34]
    position += 2 + int.from_bytes(hello[position : position + 2])
    position += 1 + hello[position]
    hello += kind.to_bytes(2) + len(body).to_bytes(2) + body
    hello[position : position + 2] = (len(hello) - position - 2).to_bytes(2)
    message = b"\x01" + len(hello).to_bytes(3) + hello
    return record[:3] + len(message).to_bytes(2) + message
