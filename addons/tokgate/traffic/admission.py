"""The one decision about traffic: from what was seen of it to what a carrier does, what the log gets, and until when.

All carriers call `admit`, for new traffic and again while it lasts. What fails in deciding is answered here, by
`on_error`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, assert_never

from dns.rcode import Rcode
from whenever import Instant

from tokgate.blocklog.records.record import Stamp
from tokgate.policy.analysis.terms import warns_with_a_page
from tokgate.policy.decide import Sighting, is_under_block
from tokgate.policy.decision import Decision, Signal, Verdict
from tokgate.policy.membership import Identity
from tokgate.policy.observation import DnsSeen, Endpoint, Observation, Passed, Stage, TlsSeen, Transport, Visibility
from tokgate.policy.services import NO_MATCH
from tokgate.policy.settings import MissingSni, Settings
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefixes import embedded_ipv4
from tokgate.traffic import dns_questions
from tokgate.traffic.actions import AskCertificate, CarrierAction, DnsAnswer, HttpAnswer, Open, Pass, Refuse
from tokgate.traffic.enforcer import Enforcer, Ruling
from tokgate.traffic.kind import Kind, in_hello, kind_of, refuse_hidden, visibility_of
from tokgate.traffic.refusal_texts import refusal as refusal_text
from tokgate.traffic.seen import (
    OF_HELLOS,
    Arrival,
    Connect,
    DnsQuestion,
    DnsResponse,
    Hello,
    HttpStart,
    OtherBytes,
    ProxyConnect,
    Request,
    Seen,
    Shown,
    SocksConnect,
    Unreadable,
)
from tokgate.traffic.warning_state import Person
from tokgate.wire.client_hello import ja4

_PASS: Final = Pass()
_TLS_PORT: Final = 443
"""Where a certificate is asked for of a destination whose port isn't known."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The verdict on traffic: the action, the ruling, and what the log gets."""

    action: CarrierAction
    ruling: Ruling
    arrival: Arrival
    seen: Seen
    stage: Stage
    shown: Shown
    """What `admit` needs to decide again about a connection that passes."""
    names: tuple[Sighting, ...]
    passed: Passed | None = None
    """Under a ban that warns with a page: why it passes without."""
    recorded: bool = True
    """False: that is left to a later stage of the same connection, or to whoever it is given to."""

    @property
    def until(self) -> Instant | None:
        """The first later instant at which it may be another; None: not while the policy stays."""
        return self.ruling.decision.next_change

    def record(self, enforcer: Enforcer, status: int | None = None) -> Stamp:
        """Count and record it, as it is carried out. The stamp is the record's, for the page.

        `status` is what a request was answered with, if it was here.
        """
        if not self.recorded:
            return Stamp("", self.ruling.at, enforcer.observer)
        asked = isinstance(self.seen, Connect | SocksConnect | ProxyConnect)  # what the tunnel carries is counted
        return enforcer.record(self.ruling, self.shown.visibility, partial(self.observe, status), allowed=not asked)

    def observe(self, status: int | None = None) -> Observation:
        """The traffic as a log record states it."""
        seen, tls, http, dns, opened = self.seen, None, None, None, False
        match seen:
            case Hello():
                alpn = tuple(name.decode("ascii", "backslashreplace") for name in seen.hello.alpn)
                tls = TlsSeen(alpn=alpn, ja4=ja4(seen.hello, "q" if seen.quic else "t"), ech=seen.hello.ech)
                opened = isinstance(self.action, Open)
            case Connect():
                http = seen.http and replace(seen.http, status=status)
            case Request():
                http, opened = replace(seen.http, status=status), seen.opened
            case DnsQuestion() | DnsResponse():
                query, refused = seen.asked.query, Rcode.NXDOMAIN.name if self.ruling.blocks else None
                dns = DnsSeen(id=query.id, type=query.type_name, response_code=refused)
            case Unreadable() | OtherBytes() | HttpStart() | ProxyConnect() | SocksConnect() | Shown():
                pass
            case _:
                assert_never(seen)
        return Observation(
            client=self.arrival.client,
            destination=self.arrival.endpoint,
            stage=self.stage,
            visibility=self.shown.visibility,
            transport=self.arrival.transport,
            names=self.names,
            tls=tls,
            http=http,
            dns=dns,
            opened=opened,
            passed=self.passed,
            connection=self.arrival.connection,
            identity=self.arrival.identity,
        )


def admit(enforcer: Enforcer, arrival: Arrival, seen: Seen) -> Admission:
    """Decide about what was seen, now. Never raises; nothing is counted or recorded before `Admission.record`."""
    try:
        return _admit(enforcer, arrival, seen)
    except Exception as error:
        in_datagrams = "datagrams" if arrival.transport is Transport.UDP else "guard"
        enforcer.failed("dns" if isinstance(seen, DnsQuestion | DnsResponse) else in_datagrams, error)
        kind = kind_of(arrival, seen)
        return _carried_out(arrival, seen, kind, enforcer.judge_on_error(kind.names))


def refusal_octets(refused: Admission, stamp: Stamp) -> bytes:
    """The octets that end a TCP connection whose first bytes were refused."""
    if isinstance(refused.seen, ProxyConnect):
        return refusal_text(refused.ruling, refused.seen.host, stamp)
    words = refused.action.words if isinstance(refused.action, Refuse) else None
    return words if isinstance(words, bytes) else b""


def _admit(enforcer: Enforcer, arrival: Arrival, seen: Seen) -> Admission:
    match seen:
        case Hello():
            return _at_hello(enforcer, arrival, seen)
        case Unreadable() | OtherBytes():
            return _at_other_bytes(enforcer, arrival, seen)
        case Shown() | SocksConnect():
            return _judged(enforcer, arrival, seen)
        case ProxyConnect():
            admission = _judged(enforcer, arrival, seen)
            return replace(admission, action=_watched(enforcer, arrival)) if admission.action == _PASS else admission
        case HttpStart():
            return _at_http_start(enforcer, arrival, seen)
        case Connect():
            return _at_connect(_judged(enforcer, arrival, seen), seen)
        case Request():
            admission = _judged(enforcer, arrival, seen)
            warns = _warns(admission) and not seen.ambiguous  # what is ambiguous passes nobody
            return replace(admission, action=Refuse(HttpAnswer(warning=True))) if warns else admission
        case DnsQuestion():
            admission = _in_dns(arrival, seen, dns_questions.judge(enforcer, seen.asked))
            empty = None if admission.ruling.blocks else dns_questions.discouraged(enforcer, seen.asked)
            return admission if empty is None else replace(admission, action=Refuse(DnsAnswer(empty)))
        case DnsResponse():
            return _at_answer(enforcer, arrival, seen)
        case _:
            assert_never(seen)


def _at_other_bytes(enforcer: Enforcer, arrival: Arrival, seen: Unreadable | OtherBytes) -> Admission:
    """At bytes that are neither a ClientHello nor a request, at the next piece of such bytes, or at a client's end."""
    admission = _judged(enforcer, arrival, seen)
    if isinstance(seen, OtherBytes) and (seen == OtherBytes(more=True) or admission.action == _PASS):
        watched = _PASS if seen.line is None else _watched(enforcer, arrival)
        admission = replace(admission, action=watched, recorded=not seen.more)
    return replace(admission, passed=Passed.NO_PAGE) if _warns(admission) else admission


def _at_http_start(enforcer: Enforcer, arrival: Arrival, seen: HttpStart) -> Admission:
    """At plain HTTP: its requests are decided about one by one, or pass unread, of a client in no network with a ban.

    Then it is judged by its address alone. Parent proxies want plain requests, and some of them no tunnels to port 80.
    """
    admission, snapshot = _judged(enforcer, arrival, seen), enforcer.snapshot
    has_ban = snapshot.has_ban(snapshot.membership(arrival.client.ip, arrival.identity))
    if seen.passable and not (has_ban or admission.ruling.blocks or snapshot.upstream):
        return admission
    return replace(admission, action=Open(tls=False) if seen.openable else Refuse(None), recorded=False)


def _at_hello(enforcer: Enforcer, arrival: Arrival, seen: Hello) -> Admission:
    """At a ClientHello. QUIC is never opened: the client comes over TCP instead, and that is then recorded."""
    admission = _judged(enforcer, arrival, seen)
    if seen.retry_of is not None:  # what passes was counted by the first hello
        admission = replace(admission, recorded=admission.ruling.blocks)
    elif isinstance(admission.action, Pass):
        admission = replace(admission, action=_watched(enforcer, arrival))
    to = arrival.destination
    if _needs_certificate(enforcer, seen) and to is not None:
        return replace(admission, action=AskCertificate(to.ip, to.port or _TLS_PORT), recorded=False)
    decision = admission.ruling.decision
    if _warns(admission) and decision.ban is not None:
        who = Person.at(arrival.client.ip, arrival.identity)
        ruling, warned = admission.ruling, enforcer.warned
        longest = ruling.snapshot.bans[decision.ban].continue_for
        passed = warned.passed(who, decision.ban, ruling.at, seen.hello, longest=longest)
        if passed is None and not seen.openable:
            passed = Passed.NO_PAGE
        if passed is not None:
            return replace(admission, action=_watched(enforcer, arrival), passed=passed)
    if not _opens(decision):
        return admission
    if seen.openable and not seen.quic:
        return replace(admission, action=Open())
    refusal = Refuse(in_hello(seen.quic)(admission.ruling))
    return replace(admission, action=refusal, recorded=admission.ruling.blocks or not seen.quic)


def _watched(enforcer: Enforcer, arrival: Arrival) -> Pass:
    """A pass. A client under a ban that blocks is watched for a later message that names another destination."""
    return Pass(watch=is_under_block(enforcer.snapshot, arrival.client.ip, enforcer.now(), arrival.identity))


def _at_connect(admission: Admission, seen: Connect) -> Admission:
    """At a CONNECT request. What the tunnel carries is decided about again, and counted and recorded then."""
    decision = admission.ruling.decision
    told = decision.verdict is Verdict.MONITOR or decision.exemption is not None
    if seen.openable and (_opens(decision) if admission.ruling.blocks else told):
        admission = replace(admission, action=Open(tls=False))
    return replace(admission, recorded=isinstance(admission.action, Refuse) or not seen.openable)


def _at_answer(enforcer: Enforcer, arrival: Arrival, seen: DnsResponse) -> Admission:
    """At the answer to a question: time has gone by, a ban may have begun, and other names may have come."""
    asked, members = seen.asked, seen.members or ()
    ruling = dns_questions.judge_answer(enforcer, asked, members)
    admission = _in_dns(arrival, seen, ruling)
    if ruling.blocks:
        return admission
    recorded = ruling.sighting not in asked.names  # else it was at the question
    if seen.members is None and dns_questions.under_ban(ruling, asked):
        unreadable = DnsAnswer(dns_questions.without_answer(asked, dns_questions.UNREADABLE))
        return replace(admission, action=Refuse(unreadable), recorded=recorded)
    terms = dns_questions.terms(asked, ruling, members)
    return replace(admission, action=Pass(terms), recorded=recorded)


def _in_dns(arrival: Arrival, seen: DnsQuestion | DnsResponse, ruling: Ruling) -> Admission:
    kind = kind_of(arrival, seen)._replace(words=lambda ruling: DnsAnswer(dns_questions.refuse(seen.asked, ruling)))
    admission = _carried_out(arrival, seen, kind, ruling)
    return replace(admission, passed=Passed.NO_PAGE) if _warns(admission) else admission


def _carried_out(arrival: Arrival, seen: Seen, kind: Kind, ruling: Ruling) -> Admission:
    action = Refuse(kind.words(ruling)) if ruling.blocks else _PASS
    return Admission(action, ruling, arrival, seen, kind.stage, kind.shown, kind.names)


def _judged(enforcer: Enforcer, arrival: Arrival, seen: Seen) -> Admission:
    """Refused if the policy blocks it, by the names that it shows or for what it hides; else passing."""
    kind, settings = kind_of(arrival, seen), enforcer.snapshot.settings
    shown, names = kind.shown, kind.names
    if isinstance(seen, Hello):
        shown = replace(shown, visibility=visibility_of(seen.hello, quic=seen.quic))
    if shown.visibility is Visibility.NONE and settings.missing_sni is MissingSni.ALLOW:
        names = tuple(sighting for sighting in names if sighting.signal is not Signal.ADDRESS)
    nothing = Sighting(Signal.SNI if shown.visibility in OF_HELLOS else Signal.ADDRESS, "")
    ruling = enforcer.judge(arrival.client.ip, names or (nothing,), arrival.identity)
    if not ruling.blocks:
        ruling = refuse_hidden(arrival, seen, shown, ruling)
    return _carried_out(arrival, seen, kind._replace(shown=shown, names=names), ruling)


def _opens(decision: Decision) -> bool:
    return decision.response is not None and decision.response.opens


def _warns(admission: Admission) -> bool:
    return warns_with_a_page(admission.ruling.decision)


def _needs_certificate(enforcer: Enforcer, seen: Hello) -> bool:
    """Whether nothing else says who the destination is, and it can be asked."""
    if not seen.hello.is_nameless or seen.quic or seen.certificate is not None or not seen.openable:
        return False
    return enforcer.snapshot.settings.missing_sni is MissingSni.CHECK_CERTIFICATE


@dataclass(frozen=True, slots=True)
class TargetAddresses:
    """The result of deciding about the addresses of a name."""

    open: tuple[str, ...]
    """Those that the client may be connected to, in the order in which they were found."""
    plain: bool
    """All are open, and none belongs to a service: it makes no difference which is taken."""
    banned: tuple[str, ...] = ()
    ruling: Ruling | None = None
    """The ruling about the first of the banned ones."""

    @property
    def closed(self) -> bool:
        """Whether there are addresses, and all of them are closed: this machine alone may reach them."""
        return not (self.plain or self.open or self.banned)


def decide_targets(
    enforcer: Enforcer,
    client: str,
    host: str,
    addresses: Sequence[str],
    identity: Identity | None = None,
    *,
    is_closed: Callable[[str], bool],
) -> TargetAddresses:
    """Decide about the addresses to which the name in an explicit client's request resolves. Nothing is counted.

    An address counts as the destination of a redirected connection does: one that is banned is banned under any name.
    `is_closed`: which addresses this client may not reach at all (`is_closed`, as the carrier asks it).
    """
    outer = tuple(address for address in addresses if not is_closed(address))
    match = enforcer.snapshot.services.match
    known = {address for address in outer if match(address) is not NO_MATCH}
    if not known:
        return TargetAddresses(outer, plain=len(outer) == len(addresses))
    found, banned, first = [], [], None
    for address in outer:
        names = (Sighting(Signal.HTTP_HOST, host), Sighting(Signal.ADDRESS, address))
        ruling = enforcer.judge(client, names, identity) if address in known else None
        if ruling is None or not ruling.blocks:
            found.append(address)
        else:
            banned.append(address)
            first = first or ruling
    return TargetAddresses(tuple(found), plain=False, banned=tuple(banned), ruling=first)


def matters(enforcer: Enforcer, client: str) -> bool:
    """Whether an address to which this client's names resolve may be banned or closed."""
    return enforcer.snapshot.services.knows_addresses or _is_elsewhere(client)


def is_closed(client: str, destination: Endpoint, settings: Settings, is_own: Callable[[str], bool]) -> bool:
    """Whether a destination is closed to a client on another machine, by its address or the IPv4 address in it.

    What only this machine can reach always is, on its loopback (RFC 1122 §3.2.1.3, RFC 4291 §2.5) or its links: no
    router passes link-local destinations on (RFC 3927 §7, RFC 4291 §2.5.6), and metadata services of clouds rely on
    that. So is what listens at its other addresses (`is_own`), but for `egress.own_ports`: a firewall in front of it
    would see this machine, and not the client.
    """
    address = parse_address(destination.ip)
    if address is None or not _is_elsewhere(client):
        return False
    meant = (address, *embedded_ipv4(address, settings.nat64_prefixes))
    if any(each.is_loopback or each.is_unspecified or each.is_link_local for each in meant):
        return True
    is_open = any(ports.first <= (destination.port or 0) <= ports.last for ports in settings.egress.own_ports)
    return not is_open and any(is_own(str(each)) for each in meant)


def _is_elsewhere(client: str) -> bool:
    """Whether a client is another machine, as far as its address tells: this one's programs come from loopback."""
    address = parse_address(client)
    return address is None or not address.is_loopback
