"""The gate's shortcut comes to what the long way comes to: were it otherwise, who is quick would get past a ban."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from whenever import Instant

from labs.builders import at, ban, exemption, network, present, service, snapshot, wall
from labs.gate_lab import Adopter
from labs.hello_builder import hello_for
from labs.records import Sink, enforcer_of
from tokgate.evasion.hello import ech
from tokgate.gate.connection import Connection, State, Tunnel
from tokgate.gate.first_message import FirstExchange, FirstMessage
from tokgate.gate.gate import Gate
from tokgate.gate.identification import Identification
from tokgate.gate.sockets import Address, Entry, Listener
from tokgate.gateway.canary.definition import ALLOWED, BANNED, canary_policy, client_link, server_link
from tokgate.policy.bans import Action
from tokgate.policy.decision import Response
from tokgate.policy.membership import Identity
from tokgate.policy.networks import Network
from tokgate.policy.observation import Visibility
from tokgate.policy.settings import CanarySettings, EchOuter, MissingSni, UnknownClients
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.limits import client_key
from tokgate.traffic.seen import Shown
from tokgate.wire.client_hello import ClientHello
from tokgate.wire.hello_reader import read_client_hello

CLIPS = service("clips", "suffix:clips.example.org", "suffix:cloudflare-ech.com", addresses=("203.0.113.0/28",))
CHAT = service("chat", "suffix:chat.example.net", addresses=("203.0.113.16/28",), stores=("apple/835599320",))
NAMES = (
    "www.example.com",
    "www.clips.example.org",
    "WWW.Clips.example.org.",
    "notclips.example.org",
    "c1ips.example.org",
    "chat.example.net",
    "apps.apple.com",
    "cloudflare-ech.com",
    "203.0.113.1",
    "a..b",
    BANNED,
    ALLOWED,
)
CANARY = CanarySettings()
OWN_CLIENT, OWN_SERVER = (str(link(CANARY, 4).far) for link in (client_link, server_link))
ADDRESSES = ("198.51.100.1", "203.0.113.1", "203.0.113.17", "2001:db8::1", OWN_SERVER)
CLIENTS = ("192.0.2.7", "192.0.2.9", "2001:db8:1::7", "198.51.100.7", OWN_CLIENT)
IDENTITIES = (None, Identity(user="ada"), Identity(interface="lan0"), Identity(user="bob", interface="lan0"))
NOW = at("2023-06-01T12:00:00Z")


def bans(name: str) -> st.SearchStrategy[Any]:
    """A ban that may have begun, may have ended, and answers in any way."""
    stated = st.fixed_dictionaries(
        {
            "services": st.sampled_from([("clips",), ("chat",), ("clips", "chat")]),
            "networks": st.sampled_from([("office",), ("lan",), ("office", "lan")]),
            "starts": st.sampled_from([wall("2023-03-10T00:00"), wall("2023-06-01T14:01")]),
            "expires": st.sampled_from([None, wall("2023-06-01T14:02")]),
            "action": st.sampled_from(Action),
            "response": st.sampled_from([Response.REFUSE, Response.REFUSE, Response.PAGE]),
            "inspect_stores": st.booleans(),
        }
    )
    return stated.map(lambda chosen: ban(name, **chosen))


@st.composite
def policies(draw: Callable[..., Any]) -> Snapshot:
    """A policy of a few bans in two networks, with whatever settings bear on TLS."""
    exempt = draw(st.booleans())
    holes = (exemption(clients=(ip_network("192.0.2.9/32"),), until=at("2999-01-01T00:00Z")),) if exempt else ()
    return snapshot(
        ban() if draw(st.booleans()) else draw(bans("ban")),
        draw(bans("other")),
        services=(CLIPS, CHAT),
        networks=(
            network("office", "192.0.2.0/24", "2001:db8:1::/48"),
            Network("lan", (), "Europe/Brussels", interfaces=("lan0",), users=("ada",)),
        ),
        exemptions=holes,
        own=canary_policy(CANARY, {"office": ("192.0.2.254",)}),
        missing_sni=draw(st.sampled_from(MissingSni)),
        ech_outer=draw(st.sampled_from(EchOuter)),
        unknown_clients=draw(st.sampled_from(UnknownClients)),
    )


@dataclass(frozen=True)
class Visit:
    """One connection, and when it comes: seconds after the one before."""

    client: str
    name: str
    address: str
    identity: Identity | None
    ech: bool
    connect: str | None
    later: int


def visits(**stated: Any) -> st.SearchStrategy[Visit]:
    """Connections of which all varies that is not stated."""
    drawn = {
        "client": st.sampled_from(CLIENTS),
        "name": st.sampled_from(NAMES),
        "address": st.sampled_from(ADDRESSES),
        "identity": st.sampled_from(IDENTITIES),
        "ech": st.booleans(),
        "connect": st.sampled_from([None, None, *NAMES]),
        "later": st.sampled_from([0, 0, 1, 70]),
    }
    return st.builds(Visit, **(drawn | stated))


@st.composite
def rows(draw: Callable[..., Any]) -> list[Visit]:
    """Connections of one client for one name mostly, so that refusals repeat while all else varies."""
    client, name = draw(st.sampled_from(CLIENTS[:2])), draw(st.sampled_from(NAMES[1:3] + NAMES[-3:-2]))
    same = visits(client=st.just(client), name=st.just(name), identity=st.none(), later=st.sampled_from([0, 1]))
    drawn: list[Visit] = draw(st.lists(same | visits(), min_size=1, max_size=8))
    return drawn


class Identified(Identification):
    """Says who a client is as a test does."""

    who: Identity | None = None

    def of(self, connection: Connection) -> Identity | None:
        return self.who


class Opener(Adopter):
    """An opener that is not always there, and notes what it is asked."""

    def __init__(self, done: list[object]) -> None:
        self.done = done

    def adopt(self, client: Any, arrival: Any, received: bytes, *, tls: bool, explicit: bool) -> bool:
        self.done.append(("open", tls))
        return len(self.done) % 2 == 0


class Message(FirstMessage):
    """A first message that tells what would be done, without sockets."""

    def __init__(self, gate: Gate, *, short: bool) -> None:
        self.identified = Identified(gate.enforcer)
        self.done: list[object] = []
        super().__init__(replace(gate.context, identification=self.identified, opener=Opener(self.done)))
        self.short = short
        self.taken = 0

    def _takes_shortcut(self, connection: Connection, name: str, destination: Address, hello: ClientHello) -> bool:
        taken = self.short and super()._takes_shortcut(connection, name, destination, hello)
        self.taken += taken
        return taken

    def connect(self, connection: Connection, destination: Address, then: State) -> None:
        shown = connection.shown
        watched = then.watched if isinstance(then, FirstExchange) else None
        plain = Shown(visibility=Visibility.SNI, name=shown) if isinstance(shown, str) else shown
        self.done.append(("pass", plain, watched))

    def refuse_hello(self, connection: Connection, hello: ClientHello) -> None:
        self.done.append("refuse")


@dataclass
class Run:
    """A gate with a clock and a log of its own."""

    policy: Snapshot
    short: bool
    sink: Sink = field(default_factory=Sink)
    at: Instant = NOW

    @contextmanager
    def message(self) -> Iterator[Message]:
        """The gate; at the end all repeats are told."""
        clocks: Any = {"now": lambda: self.at, "monotonic": lambda: float(self.at.timestamp())}
        enforcer = enforcer_of(self.policy, self.sink, **clocks)
        gate = Gate(enforcer, Adopter())
        gate.acceptor.clients.update(dict.fromkeys(map(client_key, CLIENTS), 1 << 20))
        try:
            yield Message(gate, short=self.short)
            enforcer.close()
        finally:
            gate.close()


def said(record: Mapping[str, Any]) -> Any:
    """A record without the ids that are made anew each time."""
    kept = {key: said(value) if isinstance(value, dict) else value for key, value in record.items()}
    for made_anew in ("id", "connection", "of"):
        kept.pop(made_anew, None)
    return kept


def outcome(policy: Snapshot, visits: list[Visit], *, short: bool) -> tuple[object, int]:
    """All that a row of connections leads to, and how many took the shortcut."""
    run = Run(policy, short)
    with run.message() as message:
        enforcer = message.context.enforcer
        for visit in visits:
            run.at = run.at.add(seconds=visit.later)
            enforcer.settle()  # as every gate does each second
            message.identified.who = visit.identity
            listener = Listener(None, Entry.REDIRECT, 443, 2)
            client = SimpleNamespace(close=lambda: None)
            connection = Connection(client, -1, visit.client, 40000, listener, 0.0, message)
            connection.destination = (visit.address, 443)
            if visit.connect is not None:
                connection.tunnel = Tunnel(visit.connect, 443, socks=False)
            connection.received = hello_for(visit.name, *([ech()] if visit.ech else []))
            hello = present(read_client_hello(connection.received))
            message._decide(connection, hello)
        counted = enforcer.counters.decisions
        assert not enforcer.counters.errors
    return (message.done, counted, [said(record) for record in run.sink.records]), message.taken


PASSED, REFUSED = (
    Visit("192.0.2.7", name, "198.51.100.1", None, ech=False, connect=None, later=0)
    for name in ("www.example.com", "www.clips.example.org")
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policy=policies(), visits=rows())
@example(policy=snapshot(ban(response=Response.PAGE)), visits=[REFUSED, REFUSED])
@example(
    policy=snapshot(ban(), ech_outer=EchOuter.BLOCK), visits=[replace(PASSED, name="cloudflare-ech.com", ech=True)]
)
def test_the_shortcut_comes_to_the_same(policy: Snapshot, visits: list[Visit]) -> None:
    """What is done, counted and recorded is the same for any policy, names, addresses, instants and identities."""
    short, _ = outcome(policy, visits, short=True)
    long, _ = outcome(policy, visits, short=False)

    assert short == long


def test_the_shortcut_is_taken() -> None:
    """By what passes plainly and by what is refused again; the test above would say nothing otherwise."""
    policy = snapshot(ban(), services=(CLIPS, CHAT))

    (done, *_), taken = outcome(policy, [PASSED, REFUSED, REFUSED], short=True)  # type: ignore[misc]

    assert taken == 2
    assert [step if isinstance(step, str) else step[0] for step in done] == ["pass", "refuse", "refuse"]  # type: ignore[has-type]


@pytest.mark.parametrize("short", [True, False])
def test_the_canary_is_nobodys_traffic(short: bool) -> None:
    """One name of the gateway's own is refused each time and one passes; neither is counted or recorded."""
    policy = snapshot(ban(), own=canary_policy(CANARY, {}))
    refused, passed = (
        Visit(OWN_CLIENT, name, OWN_SERVER, None, ech=False, connect=None, later=0) for name in (BANNED, ALLOWED)
    )
    (done, counted, records), _ = outcome(policy, [refused, refused, passed], short=short)  # type: ignore[misc]
    steps = [step if isinstance(step, str) else step[0] for step in done]  # type: ignore[has-type]
    assert steps == ["refuse", "refuse", "pass"]
    assert (sum(counted.values()), records) == (0, [])  # type: ignore[has-type]
