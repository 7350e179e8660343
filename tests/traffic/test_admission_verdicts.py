"""The one decision, by kind of traffic: what a carrier does, what is recorded, and what later stages are left."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from labs import builders
from labs.builders import at, present, wall
from labs.hello_builder import hello_for
from labs.records import Sink, enforcer_of
from tokgate.blocklog.records.record import Observer, new_stamp
from tokgate.evasion import hello as build
from tokgate.policy.bans import Action
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Reason, Response, Signal
from tokgate.policy.membership import Identity
from tokgate.policy.networks import Network
from tokgate.policy.observation import Endpoint, HttpSeen, Passed, Stage, Transport, Visibility
from tokgate.policy.settings import EchOuter, MissingSni
from tokgate.traffic import admission as admission_module
from tokgate.traffic.actions import AskCertificate, HttpAnswer, Open, Pass, QuicClose, Refuse
from tokgate.traffic.admission import Admission, admit, refusal_octets
from tokgate.traffic.client_messages import FirstBytesReader
from tokgate.traffic.seen import (
    Arrival,
    Connect,
    Hello,
    HttpStart,
    OtherBytes,
    ProxyConnect,
    Request,
    Seen,
    Shown,
    Unreadable,
)
from tokgate.traffic.warning_state import Person, WarnedClients
from tokgate.wire.client_hello import REFUSAL, ClientHello
from tokgate.wire.hello_reader import read_client_hello
from tokgate.wire.http_detection import LinePart, UnreadLine

BANNED, ALLOWED = "www.clips.example.org", "www.example.net"
CLIENT = Endpoint("192.0.2.7", 40000)
ARRIVAL = Arrival(client=CLIENT, destination=Endpoint("198.51.100.9", 443), connection="c")
NOW = at("2023-04-01T12:00:00Z")
PAGE = builders.ban(response=Response.PAGE)
WARNING = builders.ban(response=Response.PAGE, action=Action.WARN)


def hello(*extensions: build.Extension) -> ClientHello:
    return present(read_client_hello(build.records(build.hello(*extensions))))


def named(name: str) -> ClientHello:
    return hello(build.server_name(name.encode()))


def decided(
    seen: Seen, ban: Any = PAGE, arrival: Arrival = ARRIVAL, warned: WarnedClients | None = None, **settings: Any
) -> Admission:
    """What becomes of it, for a client under the ban."""
    snapshot = builders.snapshot(ban, **settings)
    return admit(enforcer_of(snapshot, now=lambda: NOW, warned=warned), arrival, seen)


def test_a_page_is_shown_where_somebody_can() -> None:
    """Over TCP the name is opened; over QUIC, or where nobody can open it, it is refused, so that nothing passes."""
    over_tcp = decided(Hello(named(BANNED)))
    assert (over_tcp.action, over_tcp.recorded) == (Open(tls=True), True)
    over_quic = decided(Hello(named(BANNED), quic=True))
    assert isinstance(over_quic.action, Refuse)
    assert isinstance(over_quic.action.words, QuicClose)
    assert over_quic.recorded
    nobody_can = decided(Hello(named(BANNED), openable=False))
    assert isinstance(nobody_can.action, Refuse)
    assert nobody_can.recorded


def test_a_warning_is_shown_until_it_was_seen() -> None:
    """Who continues, or can't be shown the page, is let through by name, and the log says which of both it was."""
    continued = WarnedClients()
    assert decided(Hello(named(BANNED)), WARNING, warned=continued).action == Open()
    continued.continues(Person(CLIENT.ip), "ban", NOW.add(hours=1))
    passed = decided(Hello(named(BANNED)), WARNING, warned=continued)
    assert (type(passed.action), passed.passed) == (Pass, Passed.CONTINUED)
    nobody_can = decided(Hello(named(BANNED), openable=False), WARNING)
    assert (type(nobody_can.action), nobody_can.passed) == (Pass, Passed.NO_PAGE)
    both = decided(Hello(named(BANNED), openable=False), WARNING, warned=continued)
    assert both.passed is Passed.CONTINUED


@pytest.mark.parametrize(
    ("seen", "arrival", "asks"),
    [
        (Hello(hello()), ARRIVAL, True),
        (Hello(hello()), replace(ARRIVAL, connect=ALLOWED), True),
        (Hello(hello()), replace(ARRIVAL, destination=Endpoint("198.51.100.9")), True),
        (Hello(hello()), replace(ARRIVAL, destination=None), False),
        (Hello(hello(), quic=True), ARRIVAL, False),
        (Hello(hello(), openable=False), ARRIVAL, False),
        (Hello(hello(), certificate=()), ARRIVAL, False),
        (Hello(named(ALLOWED)), ARRIVAL, False),
    ],
    ids=["nameless", "connect", "no_port", "no_destination", "quic", "nobody_can_ask", "was_asked", "named"],
)
def test_who_is_asked_for_a_certificate(seen: Hello, arrival: Arrival, asks: bool) -> None:
    """Only what doesn't say where it goes, also in a tunnel, and once: each costs a handshake with the destination."""
    admission = decided(seen, arrival=arrival, missing_sni=MissingSni.CHECK_CERTIFICATE)
    assert isinstance(admission.action, AskCertificate) is asks
    if asks:
        assert (admission.action, admission.recorded) == (AskCertificate("198.51.100.9", 443), False)


@pytest.mark.parametrize(
    ("names", "reason"),
    [((ALLOWED, BANNED), Reason.BAN_BLOCK), ((ALLOWED,), Reason.NO_SERVICE), ((), Reason.MISSING_SNI)],
    ids=["banned", "allowed", "none"],
)
def test_the_names_on_a_certificate(names: tuple[str, ...], reason: Reason) -> None:
    """A connection that names nobody is decided by whom the destination says it is, new and while it lasts."""
    admission = decided(Hello(hello(), certificate=names), missing_sni=MissingSni.CHECK_CERTIFICATE)
    again = decided(admission.shown, missing_sni=MissingSni.CHECK_CERTIFICATE)
    for each in (admission, again):
        assert each.ruling.decision.reason is reason


@pytest.mark.parametrize(
    ("setting", "client", "kind"),
    [
        (EchOuter.ALLOW, CLIENT, Pass),
        (EchOuter.BLOCK, CLIENT, Refuse),
        (EchOuter.INSPECT, CLIENT, Open),
        (EchOuter.BLOCK, Endpoint("198.51.100.7", 40000), Pass),
        (EchOuter.INSPECT, Endpoint("198.51.100.7", 40000), Pass),
    ],
    ids=["allow", "block", "inspect", "block_no_ban", "inspect_no_ban"],
)
def test_encrypted_client_hello(setting: EchOuter, client: Endpoint, kind: type) -> None:
    """A provider's public name hides the one that is asked for: what it means is the policy's to say; it is logged."""
    outer = hello(build.server_name(b"cloudflare-ech.com"), build.ech())
    admission = decided(Hello(outer), arrival=replace(ARRIVAL, client=client), ech_outer=setting)
    assert (type(admission.action), admission.shown.visibility) == (kind, Visibility.ECH_OUTER)
    plain = decided(Hello(named(ALLOWED)), ech_outer=setting)
    assert (type(plain.action), plain.shown.visibility) == (Pass, Visibility.SNI), "nothing is hidden there"


@pytest.mark.parametrize(
    ("host", "ban", "openable", "kind", "recorded"),
    [
        (ALLOWED, PAGE, True, Pass, False),
        (ALLOWED, PAGE, False, Pass, True),
        (BANNED, PAGE, True, Open, False),
        (BANNED, PAGE, False, Refuse, True),
        (BANNED, builders.ban(), True, Refuse, True),
        (BANNED, builders.ban(action=Action.MONITOR), True, Open, False),
        (BANNED, builders.ban(action=Action.MONITOR), False, Pass, True),
    ],
)
def test_connect(host: str, ban: Any, openable: bool, kind: type, recorded: bool) -> None:
    """What a tunnel carries is recorded by whoever sees that: it stands in the log once, and not twice or never."""
    admission = decided(Connect(host, openable=openable), ban, Arrival(client=CLIENT))
    assert (type(admission.action), admission.recorded) == (kind, recorded)
    assert admission.action != Open(tls=True), "a CONNECT is answered in the clear"


@pytest.mark.parametrize(("openable", "kind", "recorded"), [(True, Open, False), (False, Pass, True)])
def test_the_connect_of_an_exempt_client(openable: bool, kind: type, recorded: bool) -> None:
    """It is in the log, with what it asks for in the tunnel: whoever sees that records it."""
    exempt = builders.exemption(clients=(ip_network(f"{CLIENT.ip}/32"),), until=wall("2023-05-01T00:00"))
    admission = decided(Connect(BANNED, openable=openable), PAGE, Arrival(client=CLIENT), exemptions=(exempt,))
    assert (type(admission.action), admission.recorded) == (kind, recorded)


def test_the_answer_to_a_connect_is_in_the_log() -> None:
    """Whoever reads the log sees the status that the client got, where a CONNECT was answered here."""
    seen = Connect(BANNED, http=HttpSeen(method="CONNECT"))
    read, unread = decided(seen), decided(Connect(BANNED))
    assert (read.observe(451).http, read.shown.visibility) == (
        HttpSeen(method="CONNECT", status=451),
        Visibility.DECRYPTED,
    )
    assert (unread.observe(451).http, unread.shown.visibility) == (None, Visibility.ADDRESS)
    assert read.action == unread.action == Open(tls=False)


@pytest.mark.parametrize(
    ("host", "named", "refused"),
    [
        *((ALLOWED, "", False), (ALLOWED, BANNED, True), (BANNED, ALLOWED, True)),
        *(("198.51.100.80", "", False), ("203.0.113.7", "", True)),
    ],
)
def test_a_connect_to_another_proxy(host: str, named: str, refused: bool) -> None:
    """It is no way round a ban, whichever of the two hosts in it that proxy goes by."""
    admission = decided(ProxyConnect(host, named=named))
    assert admission.action == (Refuse(HttpAnswer()) if refused else Pass(watch=True))
    literals = [host] if host[0].isdigit() else []
    shown = {signal: [s.value for s in admission.names if s.signal is signal] for signal in Signal}
    assert shown[Signal.HTTP_HOST] == [host, named] if named else [host]
    assert shown[Signal.ADDRESS] == [*literals, "198.51.100.9"]


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (ALLOWED, named(f"{ALLOWED.upper()}."), None),
        (f"{ALLOWED}.", named(ALLOWED), None),
        (ALLOWED, named("www.example.com"), Reason.NAME_CHANGED),
        (ALLOWED, hello(), Reason.NAME_CHANGED),
        ("", named(ALLOWED), Reason.NAME_CHANGED),
        ("", hello(), None),
    ],
)
def test_the_name_in_a_second_hello(first: str, second: ClientHello, reason: Reason | None) -> None:
    """A name that the first hello kept back or told otherwise is what a client under a ban may want to hide."""
    admission = decided(Hello(second, retry_of=first))
    assert isinstance(admission.action, Refuse) if reason else admission.action == Pass(), "no third one is awaited"
    assert admission.ruling.decision.reason is (reason or Reason.NO_SERVICE)


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ((ALLOWED, BANNED), Reason.BAN_BLOCK),
        ((f"{BANNED}\0x",), Reason.BAN_BLOCK),
        ((ALLOWED, ALLOWED), Reason.INVALID_HOST),
    ],
)
def test_a_name_that_is_none(shown: tuple[str, ...], reason: Reason) -> None:
    """A server may read a banned name out of it: then that ban stands in the log, and not a malformed name."""
    admission = decided(Hello(hello(build.server_name(*(name.encode() for name in shown)))))
    assert isinstance(admission.action, Refuse | Open)
    assert admission.ruling.decision.reason is reason


@pytest.mark.parametrize(
    ("ban", "ambiguous", "action"),
    [
        (WARNING, False, Refuse(HttpAnswer(warning=True))),
        (WARNING, True, Pass()),
        (PAGE, False, Refuse(HttpAnswer(warning=False))),
        (PAGE, True, Refuse(HttpAnswer())),
    ],
    ids=["warned", "warned_ambiguous", "refused", "refused_ambiguous"],
)
def test_requests(ban: Any, ambiguous: bool, action: Any) -> None:
    """Whoever sends what can be read in two ways gets no button that would lead on to it."""
    names = (Sighting(Signal.HTTP_HOST, BANNED),)
    admission = decided(Request(names, HttpSeen(method="GET"), opened=False, ambiguous=ambiguous), ban)
    assert admission.action == action


def test_a_ban_changes_while_a_page_is_open() -> None:
    """An admission holds until the policy's next change, at which carriers ask again."""
    ends = builders.ban(expires=wall("2023-09-10T00:00"))
    assert decided(Hello(named(BANNED)), ends).until == at("2023-09-09T22:00:00Z")
    assert decided(Hello(named(BANNED)), builders.ban()).until is None


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Hello(named(BANNED), openable=False), REFUSAL),
        (Unreadable(), REFUSAL),
        (ProxyConnect(BANNED), b"HTTP/1.1 403 Forbidden\r\n"),
        (HttpStart(openable=False), b""),
        (Hello(named(ALLOWED)), b""),
    ],
    ids=["hello", "unreadable", "proxy", "nothing_to_say", "nothing_refused"],
)
def test_how_a_refused_connection_ends(seen: Seen, words: bytes) -> None:
    """The client reads in its own protocol that it was refused, as far as that has words for it."""
    said = refusal_octets(decided(seen), new_stamp(NOW, Observer(hostname="gate.example.org", version="test")))
    assert said.startswith(words)
    assert bool(said) is bool(words)


@pytest.mark.parametrize(
    ("seen", "watch", "recorded", "refused"),
    [
        (OtherBytes(), False, True, True),
        (OtherBytes(UnreadLine(LinePart.OTHER, b"")), True, True, True),
        (OtherBytes(UnreadLine(LinePart.OTHER, b""), more=True), True, False, True),
        (OtherBytes(more=True), False, False, False),  # all that it said was decided about
    ],
)
def test_other_protocols(seen: OtherBytes, watch: bool, recorded: bool, refused: bool) -> None:
    """A line that may yet become a request is read on, and counted with its beginning alone."""
    admission = decided(seen)
    assert (admission.action, admission.recorded, admission.passed) == (Pass(watch=watch), recorded, None)
    to_banned = replace(ARRIVAL, destination=Endpoint("203.0.113.7", 22))
    banned, warned = decided(seen, arrival=to_banned), decided(seen, WARNING, to_banned)
    assert (banned.action, banned.recorded) == ((Refuse(None), True) if refused else (Pass(), False))
    assert (warned.action, warned.passed) == (Pass(), Passed.NO_PAGE)


def test_plain_http_is_read_request_by_request() -> None:
    """Nothing of it is recorded before its requests are; where nobody can read them it doesn't pass."""
    first = decided(HttpStart())
    assert (first.action, first.recorded) == (Open(tls=False), False)
    assert first.record(enforcer_of(builders.snapshot(PAGE))).id == "", "no record can be asked about"
    nobody_can = decided(HttpStart(openable=False))
    assert (nobody_can.action, nobody_can.recorded) == (Refuse(None), False)


@pytest.mark.parametrize(("user", "action"), [("alice", Refuse), ("bob", Pass)])
def test_a_nameless_hello_of_a_person(user: str, action: type) -> None:
    """Hiding a name is no way past a ban of one person, and nobody else at that address pays for it."""
    stated: Any = {"networks": (Network("people", (), users=("alice",)),), "missing_sni": MissingSni.BLOCK}
    arrival = replace(ARRIVAL, identity=Identity(user))
    assert isinstance(decided(Hello(hello()), builders.ban(networks=("people",)), arrival, **stated).action, action)


@pytest.mark.parametrize(
    ("transport", "where"), [(Transport.TCP, "guard"), (Transport.UDP, "datagrams")], ids=["tcp", "udp"]
)
def test_where_deciding_failed(monkeypatch: pytest.MonkeyPatch, transport: Transport, where: str) -> None:
    """`tokgate status` and the metrics tell which part of tokgate fails."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(admission_module, "visibility_of", broken)
    enforcer = enforcer_of(builders.snapshot(PAGE), now=lambda: NOW)
    admission = admit(enforcer, replace(ARRIVAL, transport=transport), Hello(named(BANNED), quic=True))
    assert isinstance(admission.action, Refuse)
    assert enforcer.counters.errors == {where: 1}


def test_what_lasts_over_tcp_is_judged_by_its_sni() -> None:
    """The record of a connection that is cut says by which signal, as that of its beginning would."""
    sighting = decided(Shown(visibility=Visibility.SNI, name=BANNED)).ruling.sighting
    assert sighting == Sighting(Signal.SNI, BANNED)


def test_a_cut_connection_is_counted_once() -> None:
    """The number of cut connections in the metrics is that of their records."""
    enforcer = enforcer_of(builders.snapshot(builders.ban()), sink := Sink(), now=lambda: NOW)
    admission = admit(enforcer, ARRIVAL, Hello(named(BANNED)))
    enforcer.cut(admission.ruling, replace(admission.observe(), stage=Stage.LIVE))
    assert (enforcer.counters.cuts, len(sink.records)) == (1, 1)


# -- connections without a name, and by which of their signals they are decided

NAMELESS, NAMED = build.records(build.hello()), hello_for(ALLOWED)
BANNED_ADDRESS, OTHER_ADDRESS = "203.0.113.7", "198.51.100.7"
SAME_ADDRESSES = (BANNED_ADDRESS, "64:ff9b::203.0.113.7", "2002:cb00:7107::1")
"""The banned one, and IPv6 addresses that stand for it."""


def first_bytes(data: bytes, destination: str | None, missing: MissingSni) -> Admission:
    """What becomes of first bytes that end there."""
    end, reader = None if destination is None else Endpoint(destination, 443), FirstBytesReader()
    seen = reader.feed(data) or reader.ended()
    return decided(seen, builders.ban(), replace(ARRIVAL, destination=end), missing_sni=missing)


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
        *((b"SSH-2.0-client\r\n", address, MissingSni.ALLOW, False) for address in SAME_ADDRESSES),
    ],
    ids=[
        *("nameless-allow", "nameless-check-address", "nameless-other-address", "nameless-block"),
        *("named-allow", "named-check-address", "named-other-address"),
        *(f"other-protocol-to-{address}" for address in SAME_ADDRESSES),
    ],
)
def test_when_the_address_decides(data: bytes, destination: str, missing: MissingSni, passes: bool) -> None:
    """`missing_sni: allow` lets TLS without a name pass, and nothing else that goes to a banned address.

    An address that had no say isn't told as a name of the connection: whoever reads the log would look for it.
    """
    admission = first_bytes(data, destination, missing)
    assert isinstance(admission.action, Pass if passes else Refuse)
    has_say = (data, missing) != (NAMELESS, MissingSni.ALLOW)
    signals = [Signal.SNI] * (data == NAMED) + [Signal.ADDRESS] * has_say
    assert [sighting.signal for sighting in admission.names] == signals


@pytest.mark.parametrize(
    ("data", "signal"), [(NAMELESS, Signal.SNI), (b"SSH-2.0-client\r\n", Signal.ADDRESS)], ids=["tls", "other-protocol"]
)
def test_nothing_at_all_is_seen(data: bytes, signal: Signal) -> None:
    """Where neither a name nor an address is known, the record says which signal was missing."""
    sighting = first_bytes(data, None, MissingSni.ALLOW).ruling.sighting
    assert (sighting.signal, sighting.value) == (signal, "")
