"""What all traffic of a kind has in common: when it is decided about, by which names, and how it is refused."""

from collections.abc import Callable
from typing import Final, NamedTuple, assert_never

from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Stage, Visibility
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic import dns_questions
from tokgate.traffic.actions import DnsAnswer, HttpAnswer, QuicClose, Words
from tokgate.traffic.arrival import Arrival
from tokgate.traffic.enforcer import Ruling
from tokgate.traffic.refusal_texts import explanation
from tokgate.traffic.seen import (
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
from tokgate.wire.socks5 import Reply
from tokgate.wire.tls_alert import Alert

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
                return Kind(Stage.CONNECT, _ADDRESS, names, _always(Reply.NOT_ALLOWED))
            return Kind(Stage.CONNECT, _ADDRESS if seen.http is None else _DECRYPTED, names, _always(HttpAnswer()))
        case Request(names):
            return Kind(Stage.HTTP, _UNREADABLE if seen.ambiguous else _DECRYPTED, names, _always(HttpAnswer()))
        case DnsQuestion(asked) | DnsResponse(asked):
            members = (seen.members or ()) if isinstance(seen, DnsResponse) else ()
            return Kind(
                Stage.DNS, _DNS, (*asked.names, *members), lambda _: DnsAnswer(dns_questions.refuse_on_error(asked))
            )
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
    return _always(Alert.UNRECOGNIZED_NAME)
