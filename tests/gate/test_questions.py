"""DNS questions: what is refused and why, how long answers may be remembered, and what they may hold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dns.edns
import dns.message
import dns.name
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

import builders
from tokgate.blocklog.observation import Endpoint
from tokgate.blocklog.stamp import Observer
from tokgate.gate import questions
from tokgate.gate.enforcer import Enforcer
from tokgate.gate.questions import Asked, Terms
from tokgate.policy.bans import Action, EchOuter, EncryptedDns, UnknownClients
from tokgate.policy.decision import Response, Verdict
from tokgate.policy.identity import Identity
from tokgate.policy.networks import Network
from tokgate.policy.snapshot import Snapshot
from tokgate.wire.dns_message import Rcode, read_query

START = builders.at("2023-03-09T23:00:00Z")
END = builders.at("2023-09-09T22:00:00Z")
DURING = builders.at("2023-04-01T12:00:00Z")
BANNED = "www.clips.example.org"
ALLOWED = "www.example.org"


@dataclass
class Holder:
    """Holds a snapshot."""

    snapshot: Snapshot


class Sink(list[dict[str, Any]]):
    """Keeps records that are on schema."""

    def __init__(self, check: Callable[[Any], Any] = lambda record: record) -> None:
        super().__init__()
        self.check = check

    def put(self, record: dict[str, Any]) -> bool:
        self.append(self.check(record))
        return True


def ban(**stated: Any) -> Any:
    """A ban for half a year, on a legal basis."""
    law = {"authority": "The Council", "basis": "Circular 716", "contact": "desk@example.org"}
    return builders.ban(**({"expires": builders.wall("2023-09-10T00:00")} | law | stated))


def an_enforcer(at: Instant = DURING, sink: Sink | None = None, bans: Any = None, **settings: Any) -> Enforcer:
    """An enforcer at an instant."""
    holder = Holder(builders.snapshot(*(bans or (ban(),)), **settings))
    observer = Observer(hostname="gateway.example.org", version="0")
    return Enforcer(holder, sink if sink is not None else Sink(), observer, now=lambda: at)


def ask(name: str | dns.name.Name = BANNED, kind: str = "A", client: str = "192.0.2.7", **rest: Any) -> Asked:
    """A question of a client, with EDNS unless stated otherwise."""
    sent = dns.message.make_query(name, kind, id=7, use_edns=rest.pop("edns", 0))
    return Asked(client=Endpoint(client, 40000), query=read_query(sent.to_wire()), **rest)


def refused(enforcer: Enforcer, asked: Asked) -> dns.message.Message:
    """The refusal of a question."""
    ruling = questions.judge(enforcer, asked)
    assert ruling.blocks
    return dns.message.from_wire(questions.refuse(asked, ruling))


def remembered(message: dns.message.Message) -> int:
    """For how many seconds a negative answer may be remembered (RFC 2308 §5)."""
    (authority,) = message.authority
    return min(authority.ttl, authority[0].minimum)


@pytest.mark.parametrize("kind", ["A", "AAAA", "HTTPS", "SVCB", "TXT", "NS", "ANY", "TYPE65280"])
def test_refusal(valid_record: Callable[[Any], Any], kind: str) -> None:
    """Of a banned name there is nothing, whatever is asked about it, and that is recorded with its type."""
    sink = Sink(valid_record)
    enforcer, asked = an_enforcer(sink=sink), ask(kind=kind, resolver=Endpoint("203.0.113.53", 53), connection="c1")

    got = refused(enforcer, asked)
    questions.enter(enforcer, asked, questions.judge(enforcer, asked))

    assert (got.rcode(), got.answer) == (dns.rcode.NXDOMAIN, [])
    (record,) = sink
    assert record["event"]["action"] == "dns-query-blocked"
    assert record["dns"] == {
        "id": "7",
        "type": "answer",
        "response_code": "NXDOMAIN",
        "question": {"name": BANNED, "type": kind, "class": "IN", "registered_domain": "example.org"},
    }
    assert record["destination"]["ip"] == "203.0.113.53"
    assert (record["tokgate"]["signal"], record["tokgate"]["visibility"]) == ("dns-name", "dns")
    assert [(k.visibility, k.verdict, n) for k, n in enforcer.counters.decisions.items()] == [("dns", "block", 1)]


@pytest.mark.parametrize(
    ("stated", "code", "words"),
    [
        ({}, 16, "The ban [ban], decided by The Council (Circular 716); contact: desk@example.org"),
        ({"authority": None, "contact": None}, 16, "The ban [ban] (Circular 716)"),
        ({"authority": None, "basis": None, "contact": None}, 15, "The ban [ban]"),
    ],
)
def test_extended_error(stated: dict[str, Any], code: int, words: str) -> None:
    """A ban with an authority or a legal basis was imposed (16), another is the operator's own (15)."""
    got = refused(an_enforcer(bans=(ban(**stated),)), ask())

    assert got.options == (dns.edns.EDEOption(code, words),)


def test_extended_error_without_a_ban() -> None:
    """A client that is in no network is told so much."""
    got = refused(an_enforcer(unknown_clients=UnknownClients.BLOCK), ask(ALLOWED, client="198.51.100.1"))

    assert got.options == (dns.edns.EDEOption(15, "Refused by the policy of this network"),)


def test_extended_error_needs_edns() -> None:
    """Without an OPT record in the query there is none in the answer."""
    assert refused(an_enforcer(), ask(edns=-1)).edns == -1


@pytest.mark.parametrize(
    ("before_end", "seconds"),
    [(86400, 10), (10.5, 10), (10, 10), (9.999, 9), (1, 1), (0.999, 0)],
)
def test_refusal_ends_with_the_ban(before_end: float, seconds: int) -> None:
    """A refusal is remembered for ten seconds at most, and never beyond the ban's end."""
    at = END.subtract(milliseconds=int(before_end * 1000))

    assert remembered(refused(an_enforcer(at), ask())) == seconds


def test_refusal_without_an_end() -> None:
    """A ban until lifted may be lifted any moment."""
    assert remembered(refused(an_enforcer(bans=(ban(expires=None),)), ask())) == questions.REMEMBERED


@given(st.integers(0, 200 * 86400_000))
def test_nothing_outlives_a_change(milliseconds: int) -> None:
    """At any instant around a ban, what is said then is true for as long as it may be remembered."""
    at = START.add(milliseconds=milliseconds - 86400_000)
    asked = ask()
    ruling = questions.judge(an_enforcer(at), asked)

    if ruling.blocks:
        seconds: int | None = remembered(dns.message.from_wire(questions.refuse(asked, ruling)))
    else:
        seconds = questions.terms(asked, ruling).longest

    if seconds is None:
        assert at >= END
    else:
        last = at.add(seconds=seconds).subtract(nanoseconds=1)
        later = questions.judge(an_enforcer(max(at, last)), asked)
        assert later.decision.verdict == ruling.decision.verdict


@pytest.mark.parametrize(("action", "logged"), [("warn", "connection-warned"), ("monitor", "would-block")])
def test_milder_bans(valid_record: Callable[[Any], Any], action: str, logged: str) -> None:
    """Under a ban that warns or monitors a question is answered, and recorded as a query."""
    sink = Sink(valid_record)
    enforcer, asked = an_enforcer(sink=sink, bans=(ban(action=Action(action)),)), ask()

    ruling = questions.judge(enforcer, asked)
    questions.enter(enforcer, asked, ruling)

    assert not ruling.blocks
    (record,) = sink
    assert (record["event"]["action"], record["dns"]["type"]) == (logged, "query")
    assert "response_code" not in record["dns"]


def test_exemption(valid_record: Callable[[Any], Any]) -> None:
    """An exempt client is answered until its exemption ends, and that is recorded."""
    sink = Sink(valid_record)
    at = builders.at("2023-03-31T15:59:30Z")
    enforcer, asked = an_enforcer(at, sink, exemptions=(builders.exemption(),)), ask(client="192.0.2.9")

    ruling = questions.judge(enforcer, asked)
    questions.enter(enforcer, asked, ruling)

    assert questions.terms(asked, ruling) == Terms(30, hides_nothing=False)
    assert [record["event"]["action"] for record in sink] == ["exemption-used"]


def test_allowed_names_are_counted() -> None:
    """What belongs to no service is counted, never recorded, and may be remembered for as long as its owner says."""
    sink = Sink()
    enforcer, asked = an_enforcer(sink=sink), ask(ALLOWED)

    ruling = questions.judge(enforcer, asked)
    questions.enter(enforcer, asked, ruling)

    assert questions.terms(asked, ruling) == Terms(None, hides_nothing=False)
    assert [(k.visibility, k.verdict, n) for k, n in enforcer.counters.decisions.items()] == [("dns", "allow", 1)]
    assert sink == []


@pytest.mark.parametrize("label", [b"\x00", b"a.b", b"\xc3\xa9", b"sp ace", b"a\\"])
def test_labels_of_no_host(label: bytes) -> None:
    """Octets that no pattern can match don't hide the name below which they stand: its owner would answer for them."""
    name = dns.name.Name((label, b"clips", b"example", b"org", b""))

    assert questions.judge(an_enforcer(), ask(name)).blocks
    assert not questions.judge(an_enforcer(), ask(dns.name.Name((label, b"example", b"org", b"")))).blocks


@pytest.mark.parametrize("name", ["WWW.Clips.Example.ORG", "_8443._https.www.clips.example.org"])
def test_spellings(name: str) -> None:
    """Case makes no difference, nor do labels that say for which port a name is asked (RFC 9460 §2.3)."""
    assert questions.judge(an_enforcer(), ask(name, "HTTPS")).blocks


def test_the_root() -> None:
    """The root is nobody's service."""
    assert not questions.judge(an_enforcer(), ask(dns.name.root, "NS")).blocks


@pytest.mark.parametrize("action", ["block", "warn"])
@pytest.mark.parametrize("carried", [True, False])
def test_page(valid_record: Callable[[Any], Any], carried: bool, action: str) -> None:
    """Where the connection that follows passes here it can be shown the page, so the name has to be answered."""
    sink = Sink(valid_record)
    enforcer = an_enforcer(sink=sink, bans=(ban(response=Response.PAGE, action=Action(action)),))
    asked = ask(carried=carried)

    ruling = questions.judge(enforcer, asked)
    questions.enter(enforcer, asked, ruling)

    assert ruling.decision.verdict is (Verdict.ALLOW if carried else Verdict(action))
    logged = {"block": "dns-query-blocked", "warn": "connection-warned"}[action]
    assert [record["event"]["action"] for record in sink] == ([] if carried else [logged])


def test_who_asks() -> None:
    """Who the client is besides its address counts, for what is refused and for what answers may hold."""
    guests = Network("guests", (), "UTC", interfaces=("guest0",))
    holder = Holder(
        builders.snapshot(ban(networks=("guests",)), networks=(builders.OFFICE, guests), ech_outer=EchOuter.BLOCK)
    )
    enforcer = Enforcer(holder, Sink(), Observer(hostname="gateway.example.org", version="0"), now=lambda: DURING)

    for interface, banned in (("guest0", True), ("office0", False)):
        asked = ask(client="198.51.100.1", identity=Identity(interface=interface))
        ruling = questions.judge(enforcer, asked)
        assert ruling.blocks is banned
        assert questions.terms(asked, ruling).hides_nothing is banned
        canary = ask(CANARY, client="198.51.100.1", identity=Identity(interface=interface))
        assert questions.discouraged(enforcer, canary) is (Rcode.NXDOMAIN if banned else None)


def test_refusals_don_t_wait_for_a_connection() -> None:
    """Without a page there is nothing to be shown later."""
    assert questions.judge(an_enforcer(), ask(carried=True)).blocks


CANARY = "use-application-dns.net"
RESOLVER = Endpoint("203.0.113.53", 53)


@pytest.mark.parametrize(
    ("name", "resolver", "at", "setting", "rcode"),
    [
        (CANARY, None, DURING, "discourage", Rcode.NXDOMAIN),
        (CANARY.upper(), None, DURING, "discourage", Rcode.NXDOMAIN),
        (CANARY, None, DURING, "allow", None),
        (CANARY, None, START.subtract(seconds=1), "discourage", None),
        (f"not{CANARY}", None, DURING, "discourage", None),
        ("_dns.resolver.arpa", None, DURING, "allow", Rcode.NOERROR),
        ("_dns.resolver.arpa", None, START.subtract(seconds=1), "discourage", Rcode.NOERROR),
        ("_dns.resolver.arpa", RESOLVER, DURING, "discourage", Rcode.NOERROR),
        ("resolver.arpa", RESOLVER, DURING, "discourage", Rcode.NOERROR),
        ("_dns.resolver.arpa", RESOLVER, DURING, "allow", None),
        ("_dns.resolver.arpa", RESOLVER, START.subtract(seconds=1), "discourage", None),
        ("notresolver.arpa", None, DURING, "discourage", None),
        (ALLOWED, None, DURING, "discourage", None),
    ],
)
def test_encrypted_dns(name: str, resolver: Endpoint | None, at: Instant, setting: str, rcode: Rcode | None) -> None:
    """Clients under a ban are told that there is no other resolver, unless the policy says otherwise."""
    enforcer = an_enforcer(at, encrypted_dns=EncryptedDns(setting))

    assert questions.discouraged(enforcer, ask(name, resolver=resolver)) is rcode


@pytest.mark.parametrize(
    ("setting", "at", "client", "hides_nothing"),
    [
        ("inspect", DURING, "192.0.2.7", True),
        ("block", DURING, "192.0.2.7", True),
        ("allow", DURING, "192.0.2.7", False),
        ("block", START.subtract(seconds=1), "192.0.2.7", False),
        ("block", DURING, "198.51.100.1", False),
    ],
)
def test_ech(setting: str, at: Instant, client: str, hides_nothing: bool) -> None:
    """ECH keys are kept from clients under a ban, where the policy does not let ECH pass."""
    enforcer, asked = an_enforcer(at, ech_outer=EchOuter(setting)), ask(ALLOWED, "HTTPS", client=client)

    assert questions.terms(asked, questions.judge(enforcer, asked)).hides_nothing is hides_nothing
