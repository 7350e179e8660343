"""Clients that know the proxy: which tunnels are granted by CONNECT and SOCKS 5, and what is judged inside them."""

import pytest

from labs.carriers import ALERT, EXPLICIT, OPENING, Lab, Way
from labs.hello_builder import hello_for
from labs.proxy_lab import ALLOWED, BANNED, BANNED_ADDRESS, ban, policy

ALLOWED_HELLO, BANNED_HELLO = hello_for(ALLOWED), hello_for(BANNED)


@pytest.mark.parametrize("host", [ALLOWED, "127.0.0.1"])
@EXPLICIT
def test_an_allowed_destination(lab: Lab, way: Way, host: str) -> None:
    """By name or address it gets a tunnel with the origin's own certificate in it, and no record."""
    origin = lab.web()
    with lab.tls(lab.authority.client(), ALLOWED, way, origin.port, host) as client:
        assert client.get(ALLOWED).body == b"origin"
    assert (origin.accepted, lab.records.all) == (1, [])


@pytest.mark.parametrize("host", [BANNED, BANNED.upper(), f"{BANNED}.", "clips.example.org", BANNED_ADDRESS])
def test_a_banned_destination_by_connect(lab: Lab, host: str) -> None:
    """It is refused before any tunnel, with the reason and the id of the record; what only looks like it passes."""
    origin = lab.origin()
    with lab.dial(Way.CONNECT) as client:
        reply = client.connect(host, origin.port)
    assert reply.status == 451
    assert reply.headers["tokgate-ban"] == "ban"
    assert b"Circular 716" in reply.body
    (record,) = lab.records.all
    assert (record["event"]["action"], record["event"]["id"]) == ("connect-refused", reply.headers["tokgate-event"])
    assert record["tokgate"]["signal"] == ("address" if host == BANNED_ADDRESS else "http-host")
    assert origin.accepted == 0
    with lab.dial(Way.CONNECT) as client:
        assert client.connect("xclips.example.org", origin.port).status == 200


@pytest.mark.parametrize("host", [BANNED, BANNED_ADDRESS])
def test_a_banned_destination_by_socks(lab: Lab, host: str) -> None:
    """Refused by the reply that SOCKS has for it (RFC 1928 §6) or at the ClientHello, whatever that says."""
    origin = lab.origin()
    with lab.dial(Way.SOCKS) as client:
        reply = client.socks(host, origin.port)
        if reply:
            assert (reply, client.to_end()) == (2, b"")
        else:
            assert client.answer(ALLOWED_HELLO) == ALERT
    (record,) = lab.records.all
    assert record["event"]["type"][-1] == "denied"
    assert origin.accepted == 0


@EXPLICIT
def test_a_banned_name_inside_an_allowed_tunnel(lab: Lab, way: Way) -> None:
    """The tunnel's own first bytes are judged, and the log tells both names."""
    origin = lab.origin()
    assert lab.heard(way, origin.port, BANNED_HELLO, at=ALLOWED) == ALERT
    (record,) = lab.records.all
    assert record["tokgate"]["mismatch"] is True
    assert {"sni": [BANNED], "http-host": [ALLOWED]}.items() <= record["tokgate"]["names"].items()


@EXPLICIT
def test_a_banned_tunnel_with_an_innocent_name_inside(lab: Lab, way: Way) -> None:
    """What a monitored tunnel shows changes nothing: the host that was asked for is in the record."""
    origin = lab.origin()
    lab.start(policy(ban(action="monitor")))
    assert lab.heard(way, origin.port, ALLOWED_HELLO, at=BANNED) == ALLOWED_HELLO
    assert [(r["event"]["action"], r["tokgate"]["names"]["http-host"]) for r in lab.records.all][-1:] == [
        ("would-block", [BANNED])
    ]


@EXPLICIT
@pytest.mark.parametrize("size", [1, 1 << 16])
def test_clients_that_do_not_wait(lab: Lab, way: Way, size: int) -> None:
    """A request in pieces, or with everything after it at once, is answered all the same."""
    origin = lab.origin()
    lab.start()
    asked = {
        Way.CONNECT: f"CONNECT 127.0.0.1:{origin.port} HTTP/1.1\r\nHost: 127.0.0.1:{origin.port}\r\n\r\n".encode(),
        Way.SOCKS: b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\1" + origin.port.to_bytes(2),
    }[way]
    said = asked + ALLOWED_HELLO
    with lab.dial(way) as client:
        client.send(*(said[at : at + size] for at in range(0, len(said), size)))
        answer = b""
        while not answer.endswith(ALLOWED_HELLO):
            answer += client.sock.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 200" if way is Way.CONNECT else b"\x05\x00\x05\x00")


@EXPLICIT
@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "localhost\0.example.org"])
def test_addresses_that_only_a_resolver_reads(lab: Lab, way: Way, host: str) -> None:
    """An address in a spelling that policy doesn't know is not dialled."""
    origin = lab.origin()
    with lab.dial(way) as client:
        if way is Way.CONNECT:
            assert client.connect(host, origin.port).status == 400
        elif client.socks(host, origin.port) == 0:
            client.send(ALLOWED_HELLO)
            assert client.is_over()
    assert origin.accepted == 0


@pytest.mark.parametrize("line", ["CONNECT www.example.net HTTP/1.1", "CONNECT a@b:443 HTTP/1.1", "CONNECT x:1 FOO"])
def test_bad_requests(lab: Lab, line: str) -> None:
    """A CONNECT that names no destination is the client's mistake, and is told so."""
    with lab.dial(Way.CONNECT) as client:
        client.send(f"{line}\r\n\r\n".encode())
        assert client.reply("CONNECT").status == 400


@EXPLICIT
@pytest.mark.parametrize("host", ["", "localhost", "0.0.0.0", "127.0.0.1."])
def test_a_tunnel_back_to_the_proxy(lab: Lab, way: Way, host: str) -> None:
    """Through it a client would come in a second time, with the proxy's own address, of which no ban may speak."""
    carrier = lab.start()
    place, port = carrier.door(way)
    with lab.dial(way) as client:
        if lab.granted(client, way, host or place, port):
            client.send(ALLOWED_HELLO)
            assert client.is_over()
    assert lab.settled()


@OPENING
def test_the_connection_serves_on_after_a_refusal(lab: Lab) -> None:
    """After a refused CONNECT the same connection can ask for an allowed name."""
    origin = lab.web()
    with lab.dial(Way.CONNECT) as client:
        assert client.connect(BANNED, origin.port).status == 451
        assert client.connect(ALLOWED, origin.port).status == 200
        client.tls(lab.authority.client(), ALLOWED)
        assert client.get(ALLOWED).body == b"origin"
