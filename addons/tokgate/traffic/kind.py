"""What all traffic of a kind has in common: when it is decided about, by which names, and how it is refused.

Traffic that hides its name, or shows one that can't be understood, is refused to clients under a ban, by settings.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple, assert_never

from tokgate.policy.decide import Sighting, decide_unreadable
from tokgate.policy.decision import Reason, Response, Signal, Verdict
from tokgate.policy.observation import Stage, Visibility
from tokgate.policy.settings import EchOuter, MissingSni
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic.actions import DnsAnswer, HttpAnswer, QuicClose, Words
from tokgate.traffic.dns_questions import NOT_DECIDED, without_answer
from tokgate.traffic.enforcer import Ruling
from tokgate.traffic.refusal_texts import explanation
from tokgate.traffic.seen import (
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
from tokgate.wire.client_hello import REFUSAL, ClientHello, is_ech_outer
from tokgate.wire.socks5 import Reply

_ADDRESS: Final = Shown(visibility=Visibility.ADDRESS)
_DECRYPTED: Final = Shown(visibility=Visibility.DECRYPTED)
_DNS: Final = Shown(visibility=Visibility.DNS)
_UNREADABLE: Final = Shown(visibility=Visibility.UNREADABLE)


class Kind(NamedTuple):
    """What is the same for all traffic of a kind: when it is decided about, by which names, and how it is refused."""

    stage: Stage
    shown: Shown
    names: tuple[Sighting, ...]
    words: Callable[[Ruling], Words]
    """The refusal in the protocol that the client speaks."""


def kind_of(arrival: Arrival, seen: Seen) -> Kind:
    match seen:
        case Hello(hello, quic):
            legible = None if hello.names_a_host or hello.is_nameless else hello.legible
            visibility = Visibility.QUIC_SNI if quic else Visibility.SNI
            shown = Shown(
                visibility=visibility, name=hello.name, legible=legible, certificate=seen.certificate, quic=quic
            )
            return Kind(Stage.QUIC if quic else Stage.TLS, shown, _shown_names(arrival, shown), in_hello(quic))
        case Unreadable(quic, http=False):
            shown = Shown(visibility=Visibility.UNREADABLE, quic=quic)
            return Kind(Stage.QUIC if quic else Stage.TLS, shown, arrival.sightings, in_hello(quic))
        case Unreadable() | OtherBytes() | HttpStart():
            stage = Stage.ADDRESS if arrival.connect is None else Stage.CONNECT
            shown = _UNREADABLE if isinstance(seen, Unreadable) else _ADDRESS
            return Kind(stage, shown, arrival.sightings, _always(None))
        case ProxyConnect(host):
            literal = () if parse_address(host) is None else (Sighting(Signal.ADDRESS, host),)
            named = (Sighting(Signal.HTTP_HOST, seen.named),) if seen.named else ()
            names = (Sighting(Signal.HTTP_HOST, host), *named, *literal, *arrival.sightings)
            return Kind(Stage.CONNECT, _ADDRESS, names, _always(HttpAnswer()))
        case Connect() | SocksConnect():
            address = () if seen.address is None else (Sighting(Signal.ADDRESS, seen.address),)
            names = (Sighting(Signal.HTTP_HOST, seen.host), *address)
            if isinstance(seen, SocksConnect):
                return Kind(Stage.CONNECT, _ADDRESS, names, _always(Reply.NOT_ALLOWED.octets))
            return Kind(Stage.CONNECT, _ADDRESS if seen.http is None else _DECRYPTED, names, _always(HttpAnswer()))
        case Request(names):
            return Kind(Stage.HTTP, _UNREADABLE if seen.ambiguous else _DECRYPTED, names, _always(HttpAnswer()))
        case DnsQuestion(asked) | DnsResponse(asked):
            members = (seen.members or ()) if isinstance(seen, DnsResponse) else ()
            names = (*asked.names, *members)
            return Kind(Stage.DNS, _DNS, names, lambda _: DnsAnswer(without_answer(asked, NOT_DECIDED)))
        case Shown():
            return Kind(Stage.LIVE, seen, _shown_names(arrival, seen), _always(None))
        case _:
            assert_never(seen)


def _shown_names(arrival: Arrival, shown: Shown) -> tuple[Sighting, ...]:
    signal = Signal.QUIC_SNI if shown.quic else Signal.SNI
    named = shown.legible or () if shown.name is None else (shown.name,)
    said = (Sighting(signal, name) for name in named)
    certificate = (Sighting(Signal.CERTIFICATE, name) for name in shown.certificate or ())
    return (*said, *certificate, *arrival.sightings)


def _always(words: Words) -> Callable[[Ruling], Words]:
    return lambda _: words


def in_hello(quic: bool) -> Callable[[Ruling], Words]:
    if quic:
        return lambda ruling: QuicClose(explanation(ruling) if ruling.blocks else "")
    return _always(REFUSAL)


def visibility_of(hello: ClientHello, *, quic: bool) -> Visibility:
    if not (hello.names_a_host or hello.oddly_names_a_host):
        return Visibility.NONE
    if is_ech_outer(hello):
        return Visibility.ECH_OUTER
    return Visibility.QUIC_SNI if quic else Visibility.SNI


def refuse_hidden(arrival: Arrival, seen: Seen, shown: Shown, ruling: Ruling) -> Ruling:
    """Refuse to clients under a ban what was not understood, or what the settings want refused for what it hides."""
    settings, reason = ruling.snapshot.settings, None
    if shown.visibility is Visibility.UNREADABLE:
        reason = Reason.UNREADABLE
    elif shown.legible is not None and shown.visibility is Visibility.NONE:
        reason = Reason.INVALID_HOST
    elif (
        isinstance(seen, Hello)
        and seen.retry_of is not None
        and seen.retry_of.lower().removesuffix(".") != (shown.name or "").lower().removesuffix(".")
    ):
        reason = Reason.NAME_CHANGED
    elif shown.visibility is Visibility.NONE:
        unproved = settings.missing_sni is MissingSni.CHECK_CERTIFICATE and not shown.certificate
        if settings.missing_sni is MissingSni.BLOCK or unproved:
            reason = Reason.MISSING_SNI
    if reason is not None:
        return _refused_if_banned(arrival, ruling, reason)
    if shown.visibility is not Visibility.ECH_OUTER or settings.ech_outer is EchOuter.ALLOW:
        return ruling
    refused = _refused_if_banned(arrival, ruling, Reason.ECH_OUTER)
    if settings.ech_outer is EchOuter.BLOCK or not refused.blocks:
        return refused
    # Under a ban: opened, so that the client tries again without ECH (RFC 9849 §6.1.6).
    decision = replace(refused.decision, verdict=Verdict.ALLOW, response=Response.INSPECT)
    return replace(ruling, decision=decision)


def _refused_if_banned(arrival: Arrival, ruling: Ruling, reason: Reason) -> Ruling:
    decision = decide_unreadable(ruling.snapshot, arrival.client.ip, ruling.at, reason, arrival.identity)
    if decision is None:
        return ruling
    return replace(ruling, decision=decision)
