"""Runs the tests of a policy through `admission`, as if their traffic came now. Nothing is sent, nothing is logged."""

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from whenever import Instant

from tokgate.blocklog.records.record import Observer, Record
from tokgate.config.format.test_model import PolicyTest, TestTransport, dns_query, sent_name
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Decision, Reason, Response, Signal, Verdict
from tokgate.policy.observation import Endpoint, HttpSeen
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.hostname import AddressLiteral, normalise
from tokgate.traffic.actions import AskCertificate, HttpAnswer, Open, Refuse
from tokgate.traffic.admission import Admission, admit
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.refusal_texts import status_of
from tokgate.traffic.seen import Arrival, Connect, DnsArrival, DnsQuestion, Hello, Request, Seen
from tokgate.wire.client_hello import PUBLIC_NAMES, ClientHello, read_message
from tokgate.wire.dns_message.query import read_query
from tokgate.wire.proxy_request import Authority, read_authority


@dataclass(frozen=True, slots=True)
class TestResult:
    """The decision, the status that the client reads, if any, and what was expected otherwise, in words."""

    __test__ = False

    test: PolicyTest
    decision: Decision
    status: int | None
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the decision is what the test expects."""
        return not self.failures


class Carrier(StrEnum):
    """The protocol in which a host is shown: a ClientHello, a plain request, CONNECT to a proxy, a DNS question."""

    TLS = "tls"
    HTTP = "http"
    CONNECT = "connect"
    DNS = "dns"


def by_carrier(snapshot: Snapshot, asked: PolicyTest) -> dict[Carrier, Decision]:
    """The decision of live traffic in each protocol that can show the test's host, or its URL; none expected.

    A malformed host is answered with 400 in HTTP and CONNECT, whoever asks.
    """
    enforcer = _enforcer(snapshot, asked.at)
    arrival = Arrival(client=Endpoint(asked.client), identity=asked.identity)
    scheme = None if asked.url is None else urlsplit(asked.url).scheme
    to, authority = _destination(asked), _authority(asked.host)
    found: dict[Carrier, Decision] = {}
    if scheme != "http":
        found[Carrier.TLS] = _answered(_admitted(enforcer, asked))
    if scheme != "https":
        request = _request(asked, asked.url, opened=False)
        found[Carrier.HTTP] = _answered(admit(enforcer, replace(arrival, destination=to), request))
    if scheme != "http":
        found[Carrier.CONNECT] = _MALFORMED
        if authority is not None:
            found[Carrier.CONNECT] = admit(enforcer, arrival, Connect(authority.host)).ruling.decision
    if to is None:
        with suppress(ValueError):  # no question can hold the name
            answer = admit(enforcer, arrival, _question(asked))
            decision = answer.ruling.decision
            refused = replace(decision, verdict=Verdict.BLOCK, response=Response.REFUSE)
            found[Carrier.DNS] = refused if isinstance(answer.action, Refuse) else decision
    return found


_MALFORMED: Final = Decision(Verdict.BLOCK, Reason.INVALID_HOST, response=Response.REFUSE)


def _answered(admission: Admission) -> Decision:
    malformed = isinstance(admission.seen, Request) and admission.seen.ambiguous and not admission.ruling.blocks
    return _MALFORMED if malformed else admission.ruling.decision


def run_tests(snapshot: Snapshot, tests: Sequence[PolicyTest]) -> tuple[TestResult, ...]:
    """Decide each test; results are in the order of the tests."""
    results = []
    for test in tests:
        admission = _admitted(_enforcer(snapshot, test.at), test)
        decision, status = admission.ruling.decision, _status(admission)
        results.append(TestResult(test, decision, status, tuple(_failures(test, decision, status))))
    return tuple(results)


def _enforcer(snapshot: Snapshot, at: Instant) -> Enforcer:
    alone = _Alone(snapshot)
    return Enforcer(alone, alone, Observer(hostname="", version=""), now=lambda: at)


def _failures(test: PolicyTest, decision: Decision, status: int | None) -> list[str]:
    got = {"ban": decision.ban, "reason": decision.reason, "response": decision.response, "status": status}
    found = [] if decision.verdict is test.expect else [f"{test.expect}, got {decision.verdict} ({decision.reason})"]
    for key, expected in test.expected.items():
        if got[key] != expected:
            found.append(f"{key} {expected}, got {got[key] or 'none'}")
    return found


def _admitted(enforcer: Enforcer, test: PolicyTest) -> Admission:
    """The last word on what a test states: of a URL on its request, if the connection is opened that far."""
    arrival = Arrival(client=Endpoint(test.client), destination=_destination(test), identity=test.identity)
    if test.transport is TestTransport.DNS:
        return admit(enforcer, arrival, _question(test))
    if test.url is not None and test.url.startswith("http:"):
        return admit(enforcer, arrival, _request(test, test.url, opened=False))
    hello = Hello(_hello(test), quic=test.transport is TestTransport.QUIC)
    admission = admit(enforcer, arrival, hello)
    if isinstance(admission.action, AskCertificate):  # which no test can show
        admission = admit(enforcer, arrival, Hello(hello.hello, certificate=()))
    if test.url is not None and isinstance(admission.action, Open):
        return admit(enforcer, arrival, _request(test, test.url, opened=True))
    return admission


def _status(admission: Admission) -> int | None:
    """The status of the page that this leads to; None where there is none."""
    ruling, action = admission.ruling, admission.action
    answered = isinstance(action, Refuse) and isinstance(action.words, HttpAnswer)
    opened = isinstance(action, Open) and ruling.decision.response is not None and ruling.decision.response.shows_page
    if not answered and not opened:
        return None
    return status_of(ruling.ban, ruling.decision.reason, warns=not ruling.blocks)


def _destination(test: PolicyTest) -> Endpoint | None:
    name = normalise(test.host)
    return Endpoint(str(name.address)) if isinstance(name, AddressLiteral) else None


def _question(test: PolicyTest) -> Seen:
    query = read_query(dns_query(test.host))
    return DnsQuestion(DnsArrival(client=Endpoint(test.client), identity=test.identity, query=query))


def _request(test: PolicyTest, url: str | None, *, opened: bool) -> Request:
    host = (url and urlsplit(url).hostname) or test.host
    names = [Sighting(Signal.HTTP_HOST, host)]
    names += [Sighting(Signal.SNI, sent_name(test.host))] if opened else []
    names += [Sighting(Signal.URL, url)] if url is not None else []
    names += [Sighting(Signal.ADDRESS, to.ip) for to in (_destination(test),) if to is not None]
    malformed = _authority(host) is None
    return Request(tuple(names), HttpSeen(method="GET"), opened=opened, ambiguous=malformed)


def _authority(host: str) -> Authority | None:
    """A host as it stands in a request."""
    name = normalise(host)
    return read_authority(f"[{name}]" if isinstance(name, AddressLiteral) and ":" in str(name) else str(name))


_BEGINNING: Final = b"\x03\x03" + bytes(33) + b"\x00\x02\x13\x01\x01\x00"
"""Of a ClientHello: TLS 1.2, no random and no session, one cipher suite, no compression."""


def _hello(test: PolicyTest) -> ClientHello:
    """A ClientHello as a client sends it (RFC 8446 §4.1.2), as far as anything is decided by it."""
    extensions = b""
    if not test.nameless and _destination(test) is None:
        name = (min(PUBLIC_NAMES) if test.ech_outer else sent_name(test.host)).encode("utf-8", "surrogatepass")
        entry = struct.pack("!BH", 0, len(name)) + name
        extensions += struct.pack("!HHH", 0, len(entry) + 2, len(entry)) + entry
    if test.ech_outer:
        extensions += struct.pack("!HH", 0xFE0D, 0)
    body = _BEGINNING + struct.pack("!H", len(extensions)) + extensions
    return read_message(b"\x01" + len(body).to_bytes(3) + body)


@dataclass(frozen=True, slots=True)
class _Alone:
    """A source of one policy, and a log that keeps nothing."""

    snapshot: Snapshot

    def put(self, record: Record) -> bool:
        return True
