"""Where names lead: banned addresses behind them, and the gateway's own."""

from collections.abc import Callable

import pytest

from labs import builders
from labs.builders import ban
from labs.gate_lab import RunningGate, connect_request, dial, policy, until
from labs.hello_builder import hello_for
from labs.records import Holder, enforcer_of
from tokgate.policy.bans import Action
from tokgate.policy.observation import Endpoint
from tokgate.policy.settings import EgressSettings, PortRange, Settings
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.admission import TargetAddresses, decide_targets, is_closed, matters

StartGate = Callable[..., RunningGate]

ALLOWED = hello_for("www.example.net")
BANNED_ADDRESS = "203.0.113.7"
OWN = {"192.0.2.254", "2001:db8::254"}
"""The gateway's addresses."""


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what every name resolves to."""

    def to(*addresses: str) -> None:
        monkeypatch.setattr("tokgate.gate.background.addresses_of", lambda host: addresses)

    return to


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


@pytest.mark.parametrize(
    ("client", "destination", "closed"),
    [("192.0.2.1", "localhost.example.org", False), ("no address", "127.0.0.1", True), ("127.0.0.1", "::1", False)],
)
def test_what_is_no_address(client: str, destination: str, closed: bool) -> None:
    """A name is closed by its addresses alone; and whoever can't be told to be this machine's own is none of it."""
    assert is_closed(client, Endpoint(destination, 443), Settings(), OWN.__contains__) is closed


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


def test_a_name_for_a_banned_address(start_gate: StartGate, resolves: Callable[..., None]) -> None:
    """An opener gets the CONNECT as it came, to answer it as one for a banned name."""
    resolves(BANNED_ADDRESS)
    gate = start_gate()
    with dial(gate.explicit, connect_request("own.example.net") + ALLOWED):
        ((_, arrival, received, tls, explicit),) = until(lambda: gate.opener.adopted)
    assert (received, tls, explicit) == (connect_request("own.example.net") + ALLOWED, False, True)
    assert (arrival.destination, arrival.connect) == (None, None)
    assert gate.sink.records == []
