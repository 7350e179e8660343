"""What a ClientHello gets, whatever carries it and however it came in; each refusal beside what passes."""

import socket
import ssl
from ipaddress import ip_network
from typing import Any

import pytest

from labs import builders
from labs.carriers import ALERT, BEFORE, OPENING, REDIRECTED, STARTS, Lab, Way
from labs.hello_builder import hello_for, openssl_hello
from labs.proxy_lab import ALLOWED, BANNED, BANNED_ADDRESS, ban, policy
from tokgate.evasion import hello as build
from tokgate.evasion.hello import EARLY_DATA, ech

ALLOWED_HELLO, BANNED_HELLO, NAMELESS = hello_for(ALLOWED), hello_for(BANNED), openssl_hello(None)


def test_a_banned_name_gets_an_alert_and_an_end(lab: Lab, way: Way) -> None:
    """The origin hears nothing of it, the log says who, what and why; the next name arrives octet by octet."""
    origin = lab.origin()
    assert lab.heard(way, origin.port, BANNED_HELLO) == ALERT
    assert origin.accepted == 0
    bulk = bytes(range(256)) * 4096
    with lab.reach(way, origin.port) as client:
        assert client.echoes(ALLOWED_HELLO)
        assert client.answer(bulk) == bulk
    assert origin.accepted == 1
    (record,) = lab.records.all
    assert record["event"]["action"] == "tls-handshake-refused"
    assert record["event"]["type"] == ["connection", "denied"]
    assert (record["destination"]["domain"], record["destination"]["port"]) == (BANNED, origin.port)
    assert (record["source"]["ip"], record["tls"]["client"]["server_name"]) == ("127.0.0.1", BANNED)
    assert (record["tokgate"]["ban"], record["tokgate"]["rule"]) == ("ban", "suffix:clips.example.org")
    assert record["tokgate"]["ja4"].startswith("t13d")
    assert lab.settled()


def test_real_clients(lab: Lab, way: Way) -> None:
    """OpenSSL is told unrecognized_name; of an allowed name it sees the origin's own certificate and answer."""
    origin = lab.web()
    with lab.reach(way, origin.port) as client, pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        client.tls(lab.authority.client(), BANNED)
    with lab.tls(lab.authority.client(), ALLOWED, way, origin.port) as client:
        assert client.get(ALLOWED).body == b"origin"
    assert lab.records.actions == ["tls-handshake-refused"]


@pytest.mark.parametrize("size", [1, 50, 700])
@pytest.mark.parametrize("hello", [ALLOWED_HELLO, BANNED_HELLO], ids=["allowed", "banned"])
def test_a_hello_in_pieces(lab: Lab, way: Way, hello: bytes, size: int) -> None:
    """However the hello is cut, the decision is the same, and the origin gets it whole."""
    origin = lab.origin()
    answer = lab.heard(way, origin.port, *(hello[at : at + size] for at in range(0, len(hello), size)))
    assert answer == (hello if hello is ALLOWED_HELLO else ALERT)


def test_nothing_goes_upstream_before_the_decision(lab: Lab, way: Way) -> None:
    """While a ClientHello is incomplete there is no connection to the origin."""
    origin = lab.origin()
    with lab.reach(way, origin.port) as client:
        client.send(ALLOWED_HELLO[:-1])
        with lab.reach(way, origin.port) as other:  # served after the first one's octets were
            assert other.answer(BANNED_HELLO) == ALERT
        assert origin.accepted == 0
        client.send(ALLOWED_HELLO[-1:])
        assert client.exactly(len(ALLOWED_HELLO)) == ALLOWED_HELLO


def test_early_data_does_not_reset_the_refusal(lab: Lab, way: Way) -> None:
    """A client that goes on sending still reads the alert: what it sends is thrown away, not answered with a reset."""
    with lab.reach(way, 1) as client:
        client.send(hello_for(BANNED, (EARLY_DATA, b"")), b"\x17\x03\x03" + bytes(50_000))
        assert client.to_end() == ALERT


def test_a_hello_without_end(lab: Lab, way: Way) -> None:
    """A ClientHello that can't end within 64 KiB is refused."""
    origin = lab.origin()
    with lab.reach(way, origin.port) as client:
        client.send(b"\x16\x03\x01\x40\x00\x01\x01\x00\x00")
        assert client.to_end() == ALERT
    assert origin.accepted == 0


@pytest.mark.parametrize(("networks", "passes"), [(("127.0.0.0/8",), False), (("192.0.2.0/24",), True)])
def test_an_unreadable_hello(lab: Lab, way: Way, networks: tuple[str, ...], passes: bool) -> None:
    """What begins like TLS and makes no sense is refused to clients under a ban; others are none of our business."""
    origin, said = lab.origin(), b"\x16\x03\x01\x00\x08\x01\x00\x00\x04oops"
    lab.start(policy(ban(response="page"), networks=networks))  # of which nothing can be shown
    assert lab.heard(way, origin.port, said) == (said if passes else ALERT)
    assert origin.accepted == passes


@REDIRECTED
def test_an_innocent_name_at_a_banned_address(lab: Lab, way: Way) -> None:
    """The strictest signal wins: an address of the service's own is refused whatever the name says."""
    origin = lab.origin()
    assert lab.heard(way, origin.port, ALLOWED_HELLO, at=BANNED_ADDRESS) == ALERT
    assert origin.accepted == 0
    (record,) = lab.records.all
    assert (record["tokgate"]["signal"], record["tokgate"]["mismatch"]) == ("address", True)


@OPENING
@pytest.mark.parametrize(("names", "passes"), [((BANNED,), False), ((ALLOWED,), True)])
def test_missing_sni_by_certificate(lab: Lab, way: Way, names: tuple[str, ...], passes: bool) -> None:
    """`missing_sni: check-certificate` decides by the names on the origin's certificate."""
    origin = lab.web(*names)
    lab.start(policy(missing_sni="check-certificate"))
    with lab.reach(way, origin.port) as client:
        if passes:
            client.tls(lab.authority.client(), None)
            assert client.get(ALLOWED).body == b"origin"
        else:
            assert client.answer(NAMELESS) == ALERT
            assert lab.records.all[0]["tokgate"]["signal"] == "certificate"
    assert origin.accepted == 1 + passes  # one of them asked for the certificate


def test_no_certificate_to_be_had(lab: Lab) -> None:
    """Under `check-certificate` the address decides where no certificate can be had."""
    lab.start(policy(missing_sni="check-certificate"))
    assert lab.heard(Way.REDIRECTED, 1, NAMELESS, at=BANNED_ADDRESS) == ALERT
    assert lab.records.all[0]["tokgate"]["signal"] == "address"


@OPENING
def test_ech_outer_is_opened_for_inspection(lab: Lab, way: Way) -> None:
    """`ech_outer: inspect` ends TLS here, so that the client tries again without ECH."""
    origin = lab.origin()
    lab.start(policy(ech_outer="inspect"))
    with lab.reach(way, origin.port) as client:
        client.send(with_extension(openssl_hello("cloudflare-ech.com"), *ech()))
        assert client.exactly(6)[5] == 2  # a ServerHello, and it is not the origin's
    assert origin.accepted == 0


def with_extension(record: bytes, kind: int, body: bytes) -> bytes:
    """A ClientHello in one record with one more extension at its end."""
    hello = bytearray(record[9:])
    position = 34 + 1 + hello[34]
    position += 2 + int.from_bytes(hello[position : position + 2])
    position += 1 + hello[position]
    hello += kind.to_bytes(2) + len(body).to_bytes(2) + body
    hello[position : position + 2] = (len(hello) - position - 2).to_bytes(2)
    return build.records(b"\x01" + len(hello).to_bytes(3) + bytes(hello))


HOLE = builders.exemption(clients=(ip_network("127.0.0.1/32"),), until=builders.at("2999-01-01T00:00Z"))


@pytest.mark.parametrize(
    ("snapshot", "actions"),
    [
        (policy(networks=("192.0.2.0/24",)), []),
        (policy(ban(action="monitor")), ["would-block"]),
        (policy(ban(action="warn")), ["connection-warned"]),
        (policy(exemptions=(HOLE,)), ["exemption-used"]),
    ],
    ids=["another network", "monitor", "warn", "exempt"],
)
def test_what_is_milder_than_a_refusal(lab: Lab, way: Way, snapshot: Any, actions: list[str]) -> None:
    """It reaches the origin unopened, with a record where the ban has something to say about the client."""
    origin = lab.web()
    lab.start(snapshot)
    with lab.tls(lab.authority.client(), BANNED, way, origin.port) as client:
        assert client.get(BANNED).body == b"origin"
    assert lab.records.actions == actions
    assert [record["tokgate"].get("exemption") for record in lab.records.all] == ["press"] * actions.count(
        "exemption-used"
    ) + [None] * (len(actions) - actions.count("exemption-used"))


@pytest.mark.parametrize(("address", "passes"), [("127.0.0.1", True), (BANNED_ADDRESS, False)])
def test_other_bytes_are_decided_by_address(lab: Lab, address: str, passes: bool) -> None:
    """Neither TLS nor HTTP: passes to an address of nobody, and not to one of a banned service."""
    origin = lab.origin()
    with lab.reach(Way.REDIRECTED, origin.port, address) as client:
        assert client.answer(b"\x00\x01binary") == (b"\x00\x01binary" if passes else b"")
    assert (origin.accepted, lab.records.actions) == ((1, []) if passes else (0, ["connection-refused"]))


@pytest.mark.parametrize("way", [Way.REDIRECTED, Way.CONNECT])
@pytest.mark.parametrize("hello", [ALLOWED_HELLO, BANNED_HELLO], ids=["allowed", "banned"])
def test_ipv6_origins(lab: Lab, way: Way, hello: bytes) -> None:
    origin = lab.origin(family=socket.AF_INET6)
    assert lab.heard(way, origin.port, hello, at="::1") == (hello if hello is ALLOWED_HELLO else ALERT)
    assert origin.accepted == (hello is ALLOWED_HELLO)


def test_bans_begin_and_end_without_a_restart(lab: Lab, way: Way) -> None:
    """Decisions follow the wall clock, to the tick and both ways."""
    origin = lab.origin()
    lab.start(policy(ban(expires=builders.wall("2023-04-01T00:00"))))
    for instant, passes in (
        (BEFORE, True),
        (STARTS, False),
        ("2023-03-31T21:59:59.999999999Z", False),
        ("2023-03-31T22:00:00Z", True),
        (STARTS, False),
    ):
        lab.clock.set(instant)
        assert lab.heard(way, origin.port, BANNED_HELLO) == (BANNED_HELLO if passes else ALERT), instant


def test_counters_name_nobody(lab: Lab, way: Way) -> None:
    """Allowed traffic is counted by network, visibility and verdict, and leaves no record."""
    origin = lab.origin()
    carrier = lab.start()
    for hello in (ALLOWED_HELLO, ALLOWED_HELLO, BANNED_HELLO, NAMELESS):
        lab.heard(way, origin.port, hello)
    counted = {(kind.network, kind.visibility, kind.outcome): n for kind, n in carrier.counters.decisions.items() if n}
    assert counted == {
        ("office", "sni", "allow"): 2,
        ("office", "sni", "block"): 1,
        ("office", "none", "allow"): 1,
    }
    assert len(lab.records.all) == 1
