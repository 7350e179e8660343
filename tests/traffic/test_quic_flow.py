"""Flows of QUIC: each connection by its name, and nothing sent on undecided."""

from collections.abc import Callable
from typing import Any

import pytest

from labs import builders
from labs.proxy_lab import ALLOWED, BANNED, NOW, ban, policy
from labs.quic_lab import EARLY, SHORT
from labs.quic_packets import QuicClient
from labs.records import Records, enforcer_of
from tokgate.evasion import hello as build
from tokgate.policy import decide
from tokgate.policy.observation import Endpoint, Transport
from tokgate.traffic import admission, kind
from tokgate.traffic.quic_flow import MAX_CONNECTIONS, MAX_PENDING, QuicFlow
from tokgate.traffic.seen import Arrival
from tokgate.traffic.warning_state import Person
from tokgate.wire.quic import initials

CLIENT = ("127.0.0.1", 40000)


class Flow(QuicFlow):
    """One flow of datagrams, from its first one on."""

    def __init__(self, records: Records, snapshot: Any = None, *, address: str = "203.0.113.9") -> None:
        super().__init__(
            Arrival(
                client=Endpoint(*CLIENT), destination=Endpoint(address, 443), connection="1", transport=Transport.UDP
            )
        )
        self.enforcer = enforcer_of(snapshot or policy(), records, now=lambda: NOW)
        self.to_client: list[bytes] = []
        self.to_server: list[bytes] = []

    def sends(self, *data: bytes) -> "Flow":
        for datagram in data:
            verdict = self.take(self.enforcer, datagram)
            self.to_server += verdict.forward
            self.to_client += [verdict.answer] if verdict.answer else []
        return self

    def counted(self) -> dict[str, int]:
        kinds = self.enforcer.counters.decisions.items()
        return {f"{kind.visibility} {kind.outcome}": number for kind, number in kinds}


@pytest.fixture
def flow(records: Records) -> Callable[..., Flow]:
    def begin(*args: Any, **options: Any) -> Flow:
        return Flow(records, *args, **options)

    return begin


@pytest.mark.parametrize("large", [False, True])
def test_refused(flow: Callable[..., Flow], records: Records, large: bool) -> None:
    """A banned name gets CONNECTION_CLOSE with the alert's code and the ban's words; nothing goes to the server."""
    client = QuicClient(BANNED, large=large)
    one = flow().sends(*client.flight)

    (told,) = one.to_client
    end = client.told(told)
    assert end is not None
    assert (end.error_code, "The Council" in end.reason_phrase) == (0x0170, True)
    assert (one.to_server, one.shown) == ([], [])
    assert records.actions == ["quic-refused"]
    record = records.all[0]
    assert (record["tokgate"]["signal"], record["tokgate"]["visibility"]) == ("quic-sni", "quic-sni")
    assert (record["network"]["transport"], record["destination"]["port"]) == ("udp", 443)
    assert record["tokgate"]["ja4"].startswith("q13d")


def test_nothing_is_sent_on_before_the_hello_is_whole(flow: Callable[..., Flow]) -> None:
    """The server gets nothing before the name is known, whatever comes in between."""
    client = QuicClient(ALLOWED, large=True)
    last = client.flight.pop()

    one = flow().sends(*client.flight, EARLY, SHORT)
    assert one.to_server == []
    one.sends(last)

    assert one.to_server == [*client.flight, EARLY, SHORT, last]


def test_early_data_of_a_refused_connection(flow: Callable[..., Flow]) -> None:
    """What belongs to a refused connection falls; each further first packet is told no, for a while."""
    client = QuicClient(BANNED)
    one = flow().sends(*client.flight, EARLY, SHORT)
    assert (len(one.to_client), one.to_server) == (1, [])

    one.sends(*client.flight * 20)

    assert len(one.to_client) == 8


@pytest.mark.parametrize("name", [ALLOWED, f"longer-than-the-banned-one.{ALLOWED}"])
def test_another_name_under_the_same_keys(flow: Callable[..., Flow], name: str) -> None:
    """Keys come from an id that the client makes up: a second hello under the id of an allowed one is not sent on."""
    allowed, banned = QuicClient(name, identity=b"identity"), QuicClient(BANNED, identity=b"identity")

    one = flow().sends(*allowed.flight, *allowed.flight, *banned.flight)

    assert one.to_server == allowed.flight * 2
    assert flow().sends(*banned.flight, *allowed.flight).to_server == []


@pytest.mark.parametrize("size", [900, 40])
@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (ALLOWED, build.hello(build.server_name(ALLOWED.encode())), None),
        (ALLOWED, build.hello(build.server_name(BANNED.encode())), "ban-block"),
        (ALLOWED, build.hello(build.server_name(b"www.example.com")), "name-changed"),
        (ALLOWED, b"\2\0\0\x64" + bytes(100), "unreadable"),
        (None, build.hello(build.server_name(b"www.example.com")), "name-changed"),
    ],
)
def test_second_hellos(
    flow: Callable[..., Flow], records: Records, first: str | None, second: bytes, reason: str | None, size: int
) -> None:
    """A server that asks for another hello hears of no other name, however many packets it comes in."""
    client = QuicClient(first)
    again = client.again(second, size)

    one = flow().sends(*client.flight)
    one.sends(*again)

    assert one.to_server == (client.flight if reason else [*client.flight, *again])
    assert bool(one.to_client) is (reason is not None)
    assert [record["tokgate"]["reason"] for record in records.all] == ([reason] if reason else [])
    unread = reason in ("name-changed", "unreadable")
    assert records.actions == (["unreadable-refused" if unread else "quic-refused"] if reason else [])
    counted = one.counted()
    assert one.sends(again[-1]).counted() == counted, "it is decided once"
    others = flow(policy(networks=("192.0.2.0/24",))).sends(*client.flight, *again)
    assert others.to_server == [*client.flight, *again]


def test_a_second_hello_that_never_gets_whole(flow: Callable[..., Flow], records: Records) -> None:
    """It is refused after as many datagrams as a first one, and takes no more memory."""
    client = QuicClient(ALLOWED)
    part = client.again(build.hello(build.server_name(ALLOWED.encode())), 40)[0]
    one = flow().sends(*client.flight, *[part] * (MAX_PENDING - 1))
    assert (one.to_server, one.to_client) == (client.flight, [])

    one.sends(part)

    assert (one.to_server, len(one.to_client)) == (client.flight, 1)
    assert [record["tokgate"]["reason"] for record in records.all] == ["unreadable"]
    assert records.actions == ["unreadable-refused"]
    others = flow(policy(networks=("192.0.2.0/24",))).sends(*client.flight, part)
    assert others.to_server == [*client.flight, part], "who is under no ban waits for nothing"


def test_a_second_hello_of_who_has_continued(flow: Callable[..., Flow]) -> None:
    """It passes as the first did, also for a client that another ban refuses something else."""
    services = builders.service("clips", "suffix:clips.example.org"), builders.service("news", "suffix:example.net")
    bans = ban(response="page", action="warn"), ban(name="other", services=("news",))
    office = builders.network("office", "127.0.0.0/8")
    one = flow(builders.snapshot(*bans, services=services, networks=(office,)))
    one.enforcer.warned.continues(Person(CLIENT[0]), "ban", NOW.add(hours=1))
    client = QuicClient(BANNED)
    again = client.again(build.hello(build.server_name(BANNED.encode())))

    assert one.sends(*client.flight, *again).to_server == [*client.flight, *again]
    assert one.enforcer.counters.errors == {}


def test_a_second_hello_that_does_not_wait(flow: Callable[..., Flow], records: Records) -> None:
    """A second hello that comes ahead of the first is read with it: neither gets to a server that would go by it."""
    client = QuicClient(ALLOWED)
    again = client.again(build.hello(build.server_name(BANNED.encode())))

    one = flow().sends(*again, *client.flight)

    assert (one.to_server, len(one.to_client)) == ([], 1)
    assert [record["tokgate"]["reason"] for record in records.all] == ["ban-block"]


@pytest.mark.parametrize(("others", "counted"), [(MAX_CONNECTIONS - 1, 0), (MAX_CONNECTIONS, 1)])
def test_many_connections_between_the_same_ports(flow: Callable[..., Flow], others: int, counted: int) -> None:
    """Only so many are known at once; a packet of one that was forgotten counts as a new beginning."""
    one = flow()
    first = QuicClient(ALLOWED)
    for client in (first, *(QuicClient(ALLOWED) for _ in range(others)), first):
        one.sends(*client.flight)

    assert one.counted() == {"quic-sni allow": 1 + others + counted}


@pytest.mark.parametrize(
    ("settings", "name", "refused", "logged"),
    [
        ({"action": "warn"}, BANNED, False, ["connection-warned"]),
        ({"action": "monitor"}, BANNED, False, ["would-block"]),
        ({"response": "page"}, BANNED, True, ["quic-refused"]),
        ({"response": "page", "action": "warn"}, BANNED, True, []),
        ({"inspect_stores": True}, "play.google.com", True, []),
    ],
)
def test_what_quic_can_t_be_opened_for(
    flow: Callable[..., Flow],
    records: Records,
    settings: dict[str, Any],
    name: str,
    refused: bool,
    logged: list[str],
) -> None:
    """Where TCP would be opened QUIC is refused, so that the client comes over TCP; all else is as over TCP."""
    one = flow(policy(ban(**settings))).sends(*QuicClient(name).flight)

    assert bool(one.to_client) is refused
    assert bool(one.to_server) is not refused
    assert records.actions == logged


DRAFT = b"\xc0\xff\x00\x00\x1d" + bytes(1195)
GREASE = b"\xc0\x1a\x2a\x3a\x4a" + bytes(1195)
OTHER = b"\xc0\x00\x00\x00\x07" + bytes(1195)


@pytest.mark.parametrize("banned", [True, False])
@pytest.mark.parametrize("sent", [DRAFT, GREASE, OTHER])
def test_unknown_versions(flow: Callable[..., Flow], sent: bytes, banned: bool) -> None:
    """QUIC that can't be read is refused to clients under a ban, also beside a connection that passes."""
    snapshot = policy() if banned else policy(networks=("192.0.2.0/24",))

    for before in ((), (SHORT,), tuple(QuicClient(ALLOWED).flight)):
        assert (sent in flow(snapshot).sends(*before, sent, sent).to_server) is not banned


def test_first_flight_that_makes_no_sense(flow: Callable[..., Flow], records: Records) -> None:
    """A hello that never gets whole, or can't be read, is refused under a ban and passes elsewhere."""
    first, contrary = (QuicClient(BANNED, large=True, identity=b"identity").flight[0] for _ in range(2))

    one = flow().sends(*[first] * MAX_PENDING)
    other = flow(policy(networks=("192.0.2.0/24",))).sends(*[first] * MAX_PENDING, contrary)

    assert len(one.to_client) == 1
    assert one.to_server == []
    assert other.to_server == [*[first] * MAX_PENDING, contrary]
    assert [record["tokgate"]["reason"] for record in records.all] == ["unreadable"]
    either = flow().sends(first, contrary, contrary)  # a server might read either
    assert (either.to_server, len(either.to_client)) == ([], 2)
    cut = first[:100]
    assert flow().sends(cut).to_server == []
    assert flow(policy(networks=("192.0.2.0/24",))).sends(cut).to_server == [cut]


def test_forged_packets(flow: Callable[..., Flow]) -> None:
    """A first packet that nobody can read is nobody's, and of two connections in one datagram neither."""
    one, other = (initials(QuicClient(ALLOWED).flight[0])[0].packet for _ in range(2))
    forged = one[:-1] + bytes((one[-1] ^ 1,))

    assert flow().sends(forged, one + other).to_server == []
    assert flow().sends(one).to_server == [one]
    assert flow().sends(one + forged).to_server == [one + forged], "a server skips it as well"


@pytest.mark.parametrize("banned", [True, False])
@pytest.mark.parametrize("data", [SHORT, b"\x00\x01\x00\x00", b"\x80voice"])
def test_other_protocols(flow: Callable[..., Flow], records: Records, banned: bool, data: bytes) -> None:
    """What shows no name is decided once for a flow, and refused to clients under a ban."""
    one = flow(None if banned else policy(networks=("192.0.2.0/24",))).sends(data, data)

    assert one.to_server == ([] if banned else [data, data])
    assert [record["tokgate"]["reason"] for record in records.all] == (["unreadable"] if banned else [])
    assert sum(one.counted().values()) == 1


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("on_error", ["block", "allow"])
@pytest.mark.parametrize("part", [(decide, "decide"), (admission, "_judged"), (kind, "is_ech_outer")])
def test_deciding_raises(
    flow: Callable[..., Flow], monkeypatch: pytest.MonkeyPatch, part: tuple[Any, str], on_error: str
) -> None:
    """Whatever breaks, `on_error` decides about banned names, and all others pass."""
    monkeypatch.setattr(*part, broken)
    snapshot = policy(on_error=on_error)

    one = flow(snapshot).sends(*QuicClient(BANNED).flight)
    assert bool(one.to_server) is (on_error == "allow")
    assert one.counted() == {f"quic-sni {on_error}": 1}
    assert flow(snapshot).sends(*QuicClient(ALLOWED).flight).to_server


@pytest.mark.parametrize("before", [QuicClient(ALLOWED).flight, [SHORT]], ids=["quic", "other"])
def test_one_that_begins_holds_up_nobody(flow: Callable[..., Flow], before: list[bytes]) -> None:
    """While a connection's hello is awaited, the packets of what passes already go on at once."""
    begun = QuicClient(ALLOWED, large=True).flight
    one = flow(policy(networks=("192.0.2.0/24",))).sends(*before)
    one.to_server.clear()
    one.sends(begun[0], SHORT)
    assert one.to_server == [SHORT]
    one.sends(*begun[1:])
    assert one.to_server == [SHORT, *begun]
