"""Observations, judgements and stamps as the wire and the policy would give them."""

from typing import Any, cast

from labs.builders import at, ban, exemption, snapshot, wall
from tokgate.blocklog.records.record import Observer, Stamp
from tokgate.blocklog.records.requests import ExceptionRequest, RequestState
from tokgate.policy.decide import Judgement, Sighting, decide, decide_signals
from tokgate.policy.decision import Signal
from tokgate.policy.observation import DnsSeen, Endpoint, HttpSeen, Observation, Stage, TlsSeen, Transport, Visibility
from tokgate.policy.snapshot import Snapshot

OBSERVER = Observer(hostname="gw1.example.org", version="0.1.0", name="gate-0")
NOON = at("2023-03-10T11:00:00.123456Z")
NAME = "www.clips.example.org"
SNAPSHOT = snapshot(
    ban(
        expires=wall("2023-09-10T00:00"),
        authority="Example Council",
        basis="Circular 7",
        reference="https://example.org/circular-7",
        contact="desk@example.org",
    ),
    exemptions=(exemption(),),
)


def stamp(moment: str = "2023-03-10T11:00:00.123456Z", number: int = 1) -> Stamp:
    """A stamp with a fixed id."""
    return Stamp(f"01862000-0000-7000-8000-{number:012x}", at(moment), OBSERVER)


def seen(stage: Stage = Stage.TLS, *names: tuple[Signal, str], **observed: Any) -> Observation:
    """What is seen of `www.clips.example.org` at a stage, unless stated otherwise."""
    signal, extra = _AT_STAGE[stage]
    defaults: dict[str, Any] = {
        "client": Endpoint("192.0.2.7", 51234),
        "destination": Endpoint("203.0.113.5", 443),
        "visibility": Visibility.SNI,
        "names": tuple(Sighting(*name) for name in names or ((signal, NAME),)),
    }
    return Observation(stage=stage, **(defaults | extra | observed))


_HELLO = TlsSeen(alpn=("h2", "http/1.1"), ja4="t13d1516h2_8daaf6152771_02713d6af862", ech=True)
_GET = HttpSeen(method="GET", path="/watch?v=private#top", scheme="https", version="2", status=451, user_agent="curl/8")
_AT_STAGE: dict[Stage, tuple[Signal, dict[str, Any]]] = {
    Stage.TLS: (Signal.SNI, {"tls": _HELLO}),
    Stage.QUIC: (Signal.QUIC_SNI, {"tls": _HELLO, "transport": Transport.UDP, "visibility": Visibility.QUIC_SNI}),
    Stage.CONNECT: (Signal.HTTP_HOST, {"http": HttpSeen(method="CONNECT", status=403, version="1.1")}),
    Stage.HTTP: (Signal.HTTP_HOST, {"http": _GET, "visibility": Visibility.DECRYPTED}),
    Stage.DNS: (
        Signal.DNS_NAME,
        {
            "dns": DnsSeen(id=7, type="HTTPS", response_code="NXDOMAIN"),
            "transport": Transport.UDP,
            "visibility": Visibility.DNS,
        },
    ),
    Stage.ADDRESS: (Signal.ADDRESS, {"names": (), "visibility": Visibility.ADDRESS}),
    Stage.LIVE: (Signal.SNI, {}),
}


def judged(
    observation: Observation, moment: str = "2023-03-10T11:00:00.123456Z", policy: Snapshot = SNAPSHOT
) -> Judgement:
    """The policy's judgement of an observation."""
    if observation.names:
        return decide_signals(policy, observation.client.ip, observation.names, at(moment))
    assert observation.destination is not None
    sighting = Sighting(Signal.ADDRESS, observation.destination.ip)
    return Judgement(
        decide(policy, observation.client.ip, sighting.value, at(moment), sighting.signal), sighting, mismatch=False
    )


def exception_request(**stated: Any) -> ExceptionRequest:
    """A request for an exception from `ban` that waits for an answer, unless stated otherwise."""
    said: dict[str, Any] = {
        **dict.fromkeys(("user", "answered", "by", "reason", "ticket", "override", "until")),
        "id": stamp(number=1).id,
        "refusal": stamp(number=2).id,
        "at": "2023-03-10T11:00:00.000000Z",
        "state": RequestState.PENDING,
        "ban": "ban",
        "network": "office",
        "client": "192.0.2.7",
        "host": NAME,
        "why": "Press",
        "lasting": "PT1H",
    }
    return cast("ExceptionRequest", said | stated)
