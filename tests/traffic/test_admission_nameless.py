"""Connections without a name, and by which of their signals they are decided."""

import pytest

from labs import builders
from labs import hello_builder as build
from labs.builders import at
from labs.gate_lab import Sink
from labs.records import Holder
from tokgate.blocklog.records.record import Observer
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Endpoint
from tokgate.policy.settings import MissingSni
from tokgate.traffic.actions import AskCertificate, CarrierAction, Pass, Refuse
from tokgate.traffic.admission import Admission, admit
from tokgate.traffic.client_messages import FirstBytesReader
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import Arrival
from tokgate.wire.tls_alert import Alert

NAMELESS = build.records(build.hello())
NAMED = build.hello_for("www.example.net")
BANNED_ADDRESS, OTHER_ADDRESS = "203.0.113.7", "198.51.100.7"


def decided(data: bytes, destination: str | Endpoint | None, missing: MissingSni) -> Admission:
    """What becomes of a connection of a client under a ban, to port 443 of a destination that states no other."""
    snapshot = builders.snapshot(builders.ban(), missing_sni=missing)
    observer = Observer(hostname="gate.example.org", version="test")
    enforcer = Enforcer(Holder(snapshot), Sink(), observer, now=lambda: at("2023-04-01T12:00:00Z"))
    end = Endpoint(destination, 443) if isinstance(destination, str) else destination
    reader = FirstBytesReader()
    arrival = Arrival(client=Endpoint("192.0.2.7", 40000), destination=end, connection="c")
    return admit(enforcer, arrival, reader.feed(data) or reader.ended())


@pytest.mark.parametrize(
    ("data", "destination", "missing", "passes"),
    [
        (NAMELESS, BANNED_ADDRESS, MissingSni.ALLOW, True),
        (NAMELESS, BANNED_ADDRESS, MissingSni.CHECK_ADDRESS, False),
        (NAMELESS, OTHER_ADDRESS, MissingSni.CHECK_ADDRESS, True),
        (NAMELESS, OTHER_ADDRESS, MissingSni.BLOCK, False),
        (NAMED, BANNED_ADDRESS, MissingSni.ALLOW, False),
        (NAMED, BANNED_ADDRESS, MissingSni.CHECK_ADDRESS, False),
        (NAMED, OTHER_ADDRESS, MissingSni.ALLOW, True),
        (b"SSH-2.0-client\r\n", BANNED_ADDRESS, MissingSni.ALLOW, False),
    ],
    ids=[
        *("nameless-allow", "nameless-check-address", "nameless-other-address", "nameless-block"),
        *("named-allow", "named-check-address", "named-other-address", "other-protocol"),
    ],
)
def test_when_the_address_decides(data: bytes, destination: str, missing: MissingSni, passes: bool) -> None:
    """`missing_sni: allow` lets TLS without a name pass, and nothing else that goes to a banned address."""
    action = decided(data, destination, missing).action
    assert isinstance(action, Pass if passes else Refuse)


@pytest.mark.parametrize(
    ("data", "destination", "signals"),
    [
        (NAMELESS, BANNED_ADDRESS, []),
        (NAMED, BANNED_ADDRESS, [Signal.SNI, Signal.ADDRESS]),
        (b"SSH-2.0-client\r\n", BANNED_ADDRESS, [Signal.ADDRESS]),
    ],
    ids=["nameless", "named", "other-protocol"],
)
def test_the_log_names_what_was_judged(data: bytes, destination: str, signals: list[Signal]) -> None:
    """An address that had no say isn't told as a name of the connection: whoever reads the log would look for it."""
    admission = decided(data, destination, MissingSni.ALLOW)
    assert [sighting.signal for sighting in admission.names] == signals


@pytest.mark.parametrize(
    ("destination", "action"),
    [
        (Endpoint(OTHER_ADDRESS, 8443), AskCertificate(OTHER_ADDRESS, 8443)),
        (Endpoint(OTHER_ADDRESS), AskCertificate(OTHER_ADDRESS, 443)),
        (None, Refuse(Alert.UNRECOGNIZED_NAME)),
    ],
    ids=["port", "no-port", "nowhere"],
)
def test_whom_the_certificate_is_asked_of(destination: Endpoint | None, action: CarrierAction) -> None:
    """Where nobody can be asked, `missing_sni: check-certificate` lets nothing pass."""
    assert decided(NAMELESS, destination, MissingSni.CHECK_CERTIFICATE).action == action


@pytest.mark.parametrize(
    ("data", "signal"), [(NAMELESS, Signal.SNI), (b"SSH-2.0-client\r\n", Signal.ADDRESS)], ids=["tls", "other-protocol"]
)
def test_nothing_at_all_is_seen(data: bytes, signal: Signal) -> None:
    """Where neither a name nor an address is known, the record says which signal was missing."""
    sighting = decided(data, None, MissingSni.ALLOW).ruling.sighting
    assert (sighting.signal, sighting.value) == (signal, "")
