"""Where names lead: banned addresses behind them, and the gateway's own."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs import builders
from labs.builders import at, ban
from labs.gate_lab import policy
from labs.records import Holder, Sink, enforcer_of
from tokgate.evasion import hello as build
from tokgate.policy.bans import Action
from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Endpoint, Visibility
from tokgate.policy.settings import EgressSettings, MissingSni, PortRange, Settings
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.actions import Open, Pass, Refuse
from tokgate.traffic.admission import Admission, TargetAddresses, admit, decide_targets, is_closed, matters
from tokgate.traffic.client_messages import FirstBytesReader
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import Arrival, Hello, OtherBytes, ProxyConnect

BANNED_ADDRESS = "203.0.113.7"
OWN = {"192.0.2.254", "2001:db8::254"}
"""The gateway's addresses."""


def ways_of(client: str, *addresses: str, snapshot: Snapshot | None = None) -> TargetAddresses:
    """Where an allowed name leads a client of the banned network."""
    holder = Holder(snapshot or policy(ban(networks=("loop",))))
    enforcer = enforcer_of(holder)

    def closed(address: str) -> bool:
        return is_closed(client, Endpoint(address, 443), holder.snapshot.settings, OWN.__contains__)

    return decide_targets(enforcer, client, "www.example.net", addresses, is_closed=closed)


@pytest.mark.parametrize(
    ("client", "addresses", "opened"),
    [
        ("127.0.0.1", ("127.0.0.1", "::1"), ("127.0.0.1", "::1")),
        ("::1", ("127.0.0.1",), ("127.0.0.1",)),
        ("::ffff:127.0.0.1", ("127.0.0.1",), ("127.0.0.1",)),
        ("192.0.2.1", ("198.51.100.1", "2001:db8::1"), ("198.51.100.1", "2001:db8::1")),
        ("192.0.2.1", ("127.0.0.1", "198.51.100.1"), ("198.51.100.1",)),
        ("192.0.2.1", (), ()),
    ],
)
def test_open_ways(client: str, addresses: tuple[str, ...], opened: tuple[str, ...]) -> None:
    """Loopback is for clients on loopback; all else is open, in the order found."""
    found = ways_of(client, *addresses)
    assert (found.open, found.banned, found.closed) == (opened, (), False)
    assert found.plain is (addresses == opened)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.10", "::1", "0.0.0.0", "::"),
        *("::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254"),
        *("169.254.169.254", "fe80::1", "fe80::1%eth0"),
        *("64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "2002:7f00:1::1", "::127.0.0.1"),
    ],
)
def test_closed_ways(address: str) -> None:
    """In every spelling the gateway itself and its links are closed to clients from elsewhere, and to no others."""
    assert ways_of("192.0.2.1", address).closed
    assert ways_of("2001:db8::1", address).closed
    assert not ways_of("127.0.0.1", address).closed


@pytest.mark.parametrize("address", [*sorted(OWN), "64:ff9b::192.0.2.254"])
def test_the_gateways_own_services(address: str) -> None:
    """What listens at its other addresses is closed to other machines, but for the ports that the policy opens."""
    opened = Settings(egress=EgressSettings(own_ports=(PortRange(80, 80), PortRange(443, 444))))
    for port, passes in ((79, False), (80, True), (81, False), (443, True), (444, True), (445, False)):
        for settings in (Settings(), opened):
            closed = is_closed("192.0.2.1", Endpoint(address, port), settings, OWN.__contains__)
            assert closed is not (passes and settings is opened)
    assert not is_closed("127.0.0.1", Endpoint(address, 9300), Settings(), OWN.__contains__)
    assert not is_closed("192.0.2.1", Endpoint("192.0.2.253", 9300), Settings(), OWN.__contains__)
    assert is_closed("192.0.2.1", Endpoint("127.0.0.1", 80), opened, OWN.__contains__)
    assert is_closed("no address", Endpoint("127.0.0.1", 443), Settings(), OWN.__contains__), "it may be elsewhere"
    assert not is_closed("192.0.2.1", Endpoint("localhost.example.org", 443), Settings(), OWN.__contains__), "a name"


def test_banned_ways() -> None:
    """What is banned by its address is banned under any name, for whom it is banned."""
    found = ways_of("127.0.0.1", BANNED_ADDRESS, "198.51.100.1", "203.0.113.8")
    assert (found.open, found.banned, found.plain) == (("198.51.100.1",), (BANNED_ADDRESS, "203.0.113.8"), False)
    assert found.ruling is not None
    assert found.ruling.sighting.value == BANNED_ADDRESS
    assert ways_of("192.0.2.1", BANNED_ADDRESS).open == (BANNED_ADDRESS,)


@pytest.mark.parametrize("action", [Action.MONITOR, Action.WARN])
def test_what_is_not_refused_stays_open(action: Action) -> None:
    """Bans that only watch or warn have their say once the tunnel shows what it carries."""
    found = ways_of("127.0.0.1", BANNED_ADDRESS, snapshot=policy(ban(networks=("loop",), action=action)))
    assert (found.open, found.plain, found.closed) == ((BANNED_ADDRESS,), False, False)


@pytest.mark.parametrize(
    ("client", "addresses", "difference"),
    [("192.0.2.1", (), True), ("127.0.0.1", (), False), ("127.0.0.1", ("203.0.113.0/24",), True)],
    ids=["elsewhere", "this_machine", "addresses_in_the_policy"],
)
def test_whose_names_are_looked_up(client: str, addresses: tuple[str, ...], difference: bool) -> None:
    """Other machines never reach the gateway's own services by a name; its own programs wait for no lookup in vain."""
    services = (builders.service("clips", "suffix:clips.example.org", addresses=addresses),)
    assert matters(enforcer_of(builders.snapshot(ban(), services=services)), client) is difference


# The law of first bytes: for a client under a ban they pass because they were understood, or they are counted.

BANNED = "www.clips.example.org"


def decided(data: bytes, client: str, **settings: Any) -> tuple[Admission, Enforcer, Sink]:
    """What becomes of first bytes that end there, carried out."""
    snapshot = builders.snapshot(builders.ban(), **settings)
    sink = Sink()
    enforcer = enforcer_of(snapshot, sink, now=lambda: at("2023-04-01T12:00:00Z"))
    arrival = Arrival(client=Endpoint(client, 40000), destination=Endpoint("198.51.100.9", 443), connection="c")
    reader = FirstBytesReader()
    admission = admit(enforcer, arrival, reader.feed(data) or reader.ended())
    admission.record(enforcer)
    return admission, enforcer, sink


names = st.lists(
    st.sampled_from([b"www", b"clips", b"example", b"org", b".", b"!", b"*", b"\0", b":443", b"8.8.8.8", b"\xff"]),
    max_size=6,
).map(b"".join)
hellos = st.builds(
    lambda listed, before, size, version: before + build.records(build.hello(*listed), size, version=version),
    st.lists(st.lists(names, min_size=1, max_size=2).map(lambda many: build.server_name(*many)), max_size=2),
    st.sampled_from([b"", b"\x15\3\1\0\2\1\x70", b"\x14\3\3\0\1\1", b"\x16\3\1\0\0"]),
    st.integers(1, 400),
    st.sampled_from([0x0301, 0x0200, 0x0001, 0x1603]),
)
lines = st.lists(
    st.sampled_from([b"GET", b" ", b"\t", b"\r", b"\n", b"/", b"HTTP/1.1", b"HTTP/1.10", b"CONNECT", b"a:443", b"SSH"])
).map(b"".join)
first_bytes = st.one_of(hellos, lines, st.binary(max_size=60), st.binary(max_size=20).map(lambda b: b"\x16\3\1" + b))


@given(data=first_bytes, missing=st.sampled_from(MissingSni))
def test_nothing_passes_unread(data: bytes, missing: MissingSni) -> None:
    """A pass is a name that is one and allowed, no name where the settings allow it, or another protocol, counted."""
    admission, enforcer, sink = decided(data, "192.0.2.7", missing_sni=missing)
    seen, action = admission.seen, admission.action
    if isinstance(action, Refuse):
        assert len(sink.records) == 1 or not admission.recorded
    elif isinstance(action, Pass):
        assert isinstance(seen, Hello | OtherBytes | ProxyConnect)
        if isinstance(seen, Hello):
            assert seen.hello.names_a_host or (seen.hello.is_nameless and missing is not MissingSni.BLOCK)
            assert "clips.example.org" not in (seen.hello.name or "").lower()
            assert action.watch
        if not isinstance(seen, ProxyConnect):
            (kind,) = enforcer.counters.decisions
            assert kind.outcome == Verdict.ALLOW
            assert isinstance(seen, Hello) or kind.visibility is Visibility.ADDRESS


@given(data=first_bytes)
def test_nothing_is_refused_to_others(data: bytes) -> None:
    """Clients under no ban pass as they came, or are read request by request, and leave no record."""
    admission, _, sink = decided(data, "198.51.100.7")
    assert isinstance(admission.action, Pass | Open)
    assert admission.action != Pass(watch=True)
    assert sink.records == []
