"""The first decision about a connection, on what its first bytes, its destination and its CONNECT request show."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from tokgate.blocklog.observation import Endpoint, Observation, Passed, Stage, TlsSeen, Transport, Visibility
from tokgate.gate.enforcer import Enforcer, Ruling
from tokgate.gate.nameless import refusal
from tokgate.gate.warned import Person
from tokgate.policy.bans import EchOuter, MissingSni
from tokgate.policy.continuing import warns_with_a_page
from tokgate.policy.decide import Judgement, Sighting
from tokgate.policy.decision import Decision, Reason, Response, Signal, Verdict
from tokgate.policy.identity import Identity
from tokgate.policy.names import parse_address
from tokgate.wire.client_hello import ClientHello
from tokgate.wire.ech import is_ech_outer
from tokgate.wire.ja4 import ja4


class Passage(StrEnum):
    """What the carrier does with the connection."""

    PASS = "pass"
    """Carry its bytes unchanged and unread; only now connect to the destination."""
    REFUSE = "refuse"
    """Say no, in the connection's own protocol, and never contact the destination."""
    OPEN = "open"
    """Terminate TLS for this one name, to answer with a page or to read URLs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A connection as it arrives: who, and where to as far as is known before its first byte."""

    client: Endpoint
    destination: Endpoint | None = None
    """Host and port: an address for redirected connections, a name or an address literal in a CONNECT tunnel."""
    connect: str | None = None
    """The host that was asked for with CONNECT, as it was sent."""
    connection: str | None = None
    identity: Identity | None = None
    """Who the client is besides its address, as far as the policy has use for it."""

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """What is seen before any byte of the connection's own."""
        host = self.destination.ip if self.destination is not None else None
        address = (Sighting(Signal.ADDRESS, host),) if host and parse_address(host) is not None else ()
        return (Sighting(Signal.HTTP_HOST, self.connect), *address) if self.connect else address

    @property
    def names_its_host(self) -> bool:
        """Whether CONNECT named the destination, so that a ClientHello without a name hides nothing."""
        return self.connect is not None and parse_address(self.connect) is None

    @property
    def endpoint(self) -> Endpoint | None:
        """The destination as the log wants it: an address, or nothing."""
        if self.destination is None or parse_address(self.destination.ip) is None:
            return None
        return self.destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a connection's first bytes showed of where it goes: enough to decide about it again while it lasts."""

    visibility: Visibility
    name: str | None = None
    certificate: tuple[str, ...] = ()
    """The names on the destination's certificate, where it was asked for that."""
    unreadable: bool = False
    """It began like TLS and then made no sense."""
    quic: bool = False
    """It came in datagrams."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What to do with a connection and on which ruling; `stage` is the log's word."""

    passage: Passage
    ruling: Ruling
    stage: Stage
    shown: Shown
    names: tuple[Sighting, ...]
    passed: Passed | None = None
    """Under a ban that warns with a page: why it passes without."""

    @property
    def unopened(self) -> "Admission":
        """The same where nobody can open anything: what is only warned of passes, all else is refused."""
        if warns_with_a_page(self.ruling.decision):
            return replace(self, passage=Passage.PASS, passed=Passed.NO_PAGE)
        return replace(self, passage=Passage.REFUSE)

    @property
    def visibility(self) -> Visibility:
        """What could be seen of the connection, in the log's word."""
        return self.shown.visibility


def needs_certificate(enforcer: Enforcer, arrival: Arrival, hello: ClientHello) -> bool:
    """Whether to ask the destination for its certificate first, because nothing else says who it is."""
    if hello.name is not None or arrival.names_its_host or arrival.destination is None:
        return False
    return enforcer.snapshot.settings.missing_sni is MissingSni.CHECK_CERTIFICATE


def admit_tls(
    enforcer: Enforcer, arrival: Arrival, hello: ClientHello, certificate_names: tuple[str, ...] = ()
) -> Admission:
    """Decide at a ClientHello."""
    shown = Shown(visibility=_visibility(hello), name=hello.name, certificate=certificate_names)
    return _warned(enforcer, arrival, hello, _admit_tls(enforcer, arrival, shown))


def _warned(enforcer: Enforcer, arrival: Arrival, hello: ClientHello, admission: Admission) -> Admission:
    """The same, but that who has continued past a warning, or can't be shown it, passes."""
    decision = admission.ruling.decision
    if decision.ban is None or not warns_with_a_page(decision):
        return admission
    who = Person.at(arrival.client.ip, arrival.identity)
    passed = enforcer.warned.passed(who, decision.ban, admission.ruling.at, hello)
    return admission if passed is None else replace(admission, passage=Passage.PASS, passed=passed)


def _admit_tls(enforcer: Enforcer, arrival: Arrival, shown: Shown) -> Admission:
    names = (*_hello_sightings(enforcer, arrival, shown),)
    ruling = enforcer.judge(arrival.client.ip, names or (Sighting(Signal.SNI, ""),), arrival.identity)
    if not ruling.blocks:
        ruling = _hidden(enforcer, arrival, shown.visibility, ruling)
    stage = Stage.QUIC if shown.quic else Stage.TLS
    return Admission(passage_of(ruling.decision), ruling, stage, shown, names)


def admit_quic(enforcer: Enforcer, arrival: Arrival, hello: ClientHello | None) -> Admission:
    """Decide at a ClientHello in QUIC; None: none can be read.

    QUIC is never opened. What would have to be is refused, so that the client comes over TCP and is opened there.
    """
    if hello is None:
        admission = admit_unreadable(enforcer, arrival)
        return replace(admission, stage=Stage.QUIC, shown=replace(admission.shown, quic=True))
    seen = _visibility(hello)
    visibility = Visibility.QUIC_SNI if seen is Visibility.SNI else seen
    admission = _admit_tls(enforcer, arrival, Shown(visibility=visibility, name=hello.name, quic=True))
    admission = _warned(enforcer, arrival, hello, admission)
    return replace(admission, passage=Passage.REFUSE) if admission.passage is Passage.OPEN else admission


def admit_unreadable(enforcer: Enforcer, arrival: Arrival) -> Admission:
    """Decide about a connection that begins like TLS and then makes no sense: a server might read it all the same."""
    admission = admit_bytes(enforcer, arrival)
    if not admission.ruling.blocks:
        ruling = _refused_if_banned(enforcer, arrival, admission.ruling, Reason.INVALID_HOST)
        passage = Passage.REFUSE if ruling.blocks else Passage.PASS  # no page: nothing can be opened here
        admission = replace(admission, ruling=ruling, passage=passage)
    return replace(admission, stage=Stage.TLS, shown=Shown(visibility=Visibility.NONE, unreadable=True))


def admit_bytes(enforcer: Enforcer, arrival: Arrival) -> Admission:
    """Decide about a connection whose bytes say nothing: neither TLS nor HTTP."""
    names = arrival.sightings
    ruling = enforcer.judge(arrival.client.ip, names or (Sighting(Signal.ADDRESS, ""),), arrival.identity)
    passage = Passage.REFUSE if ruling.blocks else Passage.PASS
    stage = Stage.ADDRESS if arrival.connect is None else Stage.CONNECT
    passed = Passed.NO_PAGE if warns_with_a_page(ruling.decision) else None
    return Admission(passage, ruling, stage, Shown(visibility=Visibility.ADDRESS), names, passed)


def admit_again(enforcer: Enforcer, arrival: Arrival, shown: Shown) -> Admission:
    """Decide, now, about a connection that showed this when it began: what a new one like it would be told."""
    if shown.unreadable:
        return admit_quic(enforcer, arrival, None) if shown.quic else admit_unreadable(enforcer, arrival)
    if shown.visibility is Visibility.ADDRESS:
        return admit_bytes(enforcer, arrival)
    return _admit_tls(enforcer, arrival, shown)


def admit_by_fallback(
    enforcer: Enforcer, arrival: Arrival, hello: ClientHello | None, stage: Stage = Stage.TLS
) -> Admission:
    """What `on_error` makes of a connection about which deciding failed."""
    names, quic = arrival.sightings, stage is Stage.QUIC
    if hello is not None and hello.name is not None:
        names = (Sighting(Signal.QUIC_SNI if quic else Signal.SNI, hello.name), *names)
    ruling = enforcer.judge_by_fallback(names)
    passage = Passage.REFUSE if ruling.blocks else Passage.PASS
    if hello is None:
        shown = Shown(visibility=Visibility.NONE, unreadable=True, quic=quic)
    else:
        shown = Shown(visibility=Visibility.QUIC_SNI if quic else Visibility.SNI, name=hello.name, quic=quic)
    return Admission(passage, ruling, stage, shown, names)


def passage_of(decision: Decision) -> Passage:
    """How a decision about a TLS connection is carried out, as far as the decision alone says it."""
    if decision.response is Response.PAGE or decision.response is Response.INSPECT:
        return Passage.OPEN
    return Passage.REFUSE if decision.verdict is Verdict.BLOCK else Passage.PASS


def observe(
    arrival: Arrival, admission: Admission, hello: ClientHello | None, transport: Transport = Transport.TCP
) -> Observation:
    """The connection as the log sees it."""
    tls = None
    if hello is not None:
        alpn = tuple(name.decode("ascii", "backslashreplace") for name in hello.alpn)
        tls = TlsSeen(alpn=alpn, ja4=ja4(hello, "q" if admission.shown.quic else "t"), ech=hello.ech)
    return Observation(
        client=arrival.client,
        destination=arrival.endpoint,
        stage=admission.stage,
        visibility=admission.visibility,
        transport=transport,
        names=admission.names,
        tls=tls,
        opened=admission.passage is Passage.OPEN,
        passed=admission.passed,
        connection=arrival.connection,
        identity=arrival.identity,
    )


def _hello_sightings(enforcer: Enforcer, arrival: Arrival, shown: Shown) -> Iterator[Sighting]:
    if shown.name is not None:
        yield Sighting(Signal.QUIC_SNI if shown.quic else Signal.SNI, shown.name)
    for name in shown.certificate:
        yield Sighting(Signal.CERTIFICATE, name)
    unchecked = shown.name is None and enforcer.snapshot.settings.missing_sni is MissingSni.ALLOW
    for sighting in arrival.sightings:
        if not (unchecked and sighting.signal is Signal.ADDRESS):
            yield sighting


def _visibility(hello: ClientHello) -> Visibility:
    if hello.name is None:
        return Visibility.NONE
    return Visibility.ECH_OUTER if is_ech_outer(hello) else Visibility.SNI


def _hidden(enforcer: Enforcer, arrival: Arrival, visibility: Visibility, ruling: Ruling) -> Ruling:
    """Apply the settings for connections that do not show where they go."""
    settings = ruling.snapshot.settings
    if visibility is Visibility.NONE and settings.missing_sni is MissingSni.BLOCK and not arrival.names_its_host:
        return _refused_if_banned(enforcer, arrival, ruling, Reason.MISSING_SNI)
    if visibility is Visibility.ECH_OUTER:
        if settings.ech_outer is EchOuter.BLOCK:
            return _refused_if_banned(enforcer, arrival, ruling, Reason.ECH_OUTER)
        if settings.ech_outer is EchOuter.INSPECT:
            refused = _refused_if_banned(enforcer, arrival, ruling, Reason.ECH_OUTER)
            if refused.blocks:  # under a ban: opened, so that the client tries again without ECH (RFC 9849 §6.1.6)
                decision = replace(refused.decision, verdict=Verdict.ALLOW, ban=None, response=Response.INSPECT)
                return replace(ruling, judgement=replace(ruling.judgement, decision=decision))
    return ruling


def _refused_if_banned(enforcer: Enforcer, arrival: Arrival, ruling: Ruling, reason: Reason) -> Ruling:
    try:
        decision = refusal(ruling.snapshot, arrival.client.ip, ruling.at, reason, arrival.identity)
    except Exception as error:
        enforcer.failed("decide", error)
        return enforcer.judge_by_fallback(arrival.sightings)
    if decision is None:
        return ruling
    judgement = Judgement(decision, ruling.judgement.sighting, ruling.judgement.mismatch)
    return replace(ruling, judgement=judgement)
