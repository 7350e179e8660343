"""DNS questions: what is refused and why, how long answers may be remembered, and what they may hold."""

from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from dns.rcode import Rcode
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs import builders
from labs.records import Records, enforcer_of
from tokgate.policy.bans import Action
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Response, Signal, Verdict
from tokgate.policy.membership import Identity
from tokgate.policy.networks import Network
from tokgate.policy.observation import Endpoint
from tokgate.policy.settings import DnsSettings, EchKeys, EncryptedDns, OnError, UnknownClients
from tokgate.traffic import dns_questions
from tokgate.traffic.actions import DnsAnswer, Pass, Refuse, Terms
from tokgate.traffic.admission import Admission, admit
from tokgate.traffic.enforcer import Enforcer, Ruling
from tokgate.traffic.seen import DnsArrival, DnsQuestion, DnsResponse
from tokgate.wire.dns_message.query import read_query

START = builders.at("2023-03-09T23:00:00Z")
END = builders.at("2023-09-09T22:00:00Z")
DURING = builders.at("2023-04-01T12:00:00Z")
BANNED = "www.clips.example.org"
ALLOWED = "www.example.org"


def ban(**stated: Any) -> Any:
    """A ban for half a year, on a legal basis."""
    law = {"authority": "The Council", "basis": "Circular 716", "contact": "desk@example.org"}
    return builders.ban(**({"expires": builders.wall("2023-09-10T00:00")} | law | stated))


def an_enforcer(at: Instant = DURING, records: Records | None = None, bans: Any = None, **settings: Any) -> Enforcer:
    return enforcer_of(builders.snapshot(*(bans or (ban(),)), **settings), records, now=lambda: at)


def ask(name: str | dns.name.Name = BANNED, kind: str = "A", client: str = "192.0.2.7", **rest: Any) -> DnsArrival:
    """A question of a client, with EDNS unless stated otherwise."""
    sent = dns.message.make_query(name, kind, id=7, use_edns=rest.pop("edns", 0), options=rest.pop("options", None))
    return DnsArrival(client=Endpoint(client, 40000), query=read_query(sent.to_wire()), **rest)


def put(enforcer: Enforcer, asked: DnsArrival) -> Ruling:
    """The ruling about a question, which is counted and recorded."""
    admission = admit(enforcer, asked, DnsQuestion(asked))
    admission.record(enforcer)
    return admission.ruling


def refused(enforcer: Enforcer, asked: DnsArrival) -> dns.message.Message:
    ruling = dns_questions.judge(enforcer, asked)
    assert ruling.blocks
    return dns.message.from_wire(dns_questions.refuse(asked, ruling))


def remembered(message: dns.message.Message) -> int:
    """For how many seconds a negative answer may be remembered (RFC 2308 §5)."""
    (authority,) = message.authority
    return min(int(authority.ttl), int(authority[0].minimum))


@pytest.mark.parametrize("kind", ["A", "AAAA", "HTTPS", "SVCB", "TXT", "NS", "ANY", "TYPE65280"])
def test_refusal(records: Records, kind: str) -> None:
    """Of a banned name there is nothing, whatever is asked about it, and that is recorded with its type."""
    enforcer = an_enforcer(records=records)
    asked = ask(kind=kind, destination=Endpoint("203.0.113.53", 53), connection="c1")

    got = refused(enforcer, asked)
    put(enforcer, asked)

    assert (got.rcode(), got.answer) == (dns.rcode.NXDOMAIN, [])
    (record,) = records.all
    assert record["event"]["action"] == "dns-query-blocked"
    assert record["dns"] == {
        "id": "7",
        "type": "answer",
        "response_code": "NXDOMAIN",
        "question": {"name": BANNED, "type": kind, "class": "IN", "registered_domain": "example.org"},
    }
    assert record["destination"]["ip"] == "203.0.113.53"
    assert (record["tokgate"]["signal"], record["tokgate"]["visibility"]) == ("dns-name", "dns")
    assert [(k.visibility, k.outcome, n) for k, n in enforcer.counters.decisions.items()] == [("dns", "block", 1)]


@pytest.mark.parametrize(
    ("stated", "code", "words"),
    [
        ({}, 16, "The ban [ban], decided by The Council (Circular 716); contact: desk@example.org"),
        ({"authority": None, "contact": None}, 16, "The ban [ban] (Circular 716)"),
        ({"basis": None, "contact": None}, 16, "The ban [ban], decided by The Council"),
        ({"authority": None, "basis": None, "contact": None}, 15, "The ban [ban]"),
    ],
)
def test_extended_error(stated: dict[str, Any], code: int, words: str) -> None:
    """A ban with an authority or a legal basis was imposed (16), another is the operator's own (15)."""
    got = refused(an_enforcer(bans=(ban(**stated),)), ask())

    assert got.options == (dns.edns.EDEOption(dns.edns.EDECode(code), words),)


def test_extended_error_without_a_ban() -> None:
    """A client that is in no network is told so much."""
    got = refused(an_enforcer(unknown_clients=UnknownClients.BLOCK), ask(ALLOWED, client="198.51.100.1"))

    assert got.options == (dns.edns.EDEOption(dns.edns.EDECode.BLOCKED, "Refused by the policy of this network"),)
    assert remembered(got) == 10, "no end is known"


@pytest.mark.parametrize(("before_end", "seconds"), [(86400, 10), (10.5, 10), (10, 10), (9.999, 9), (1, 1), (0.999, 0)])
def test_refusal_ends_with_the_ban(before_end: float, seconds: int) -> None:
    """A refusal is remembered for ten seconds at most, and never beyond the ban's end."""
    at = END.subtract(milliseconds=int(before_end * 1000))

    assert remembered(refused(an_enforcer(at), ask())) == seconds


@given(st.integers(0, 200 * 86400_000))
def test_nothing_outlives_a_change(milliseconds: int) -> None:
    """At any instant around a ban, what is said then is true for as long as it may be remembered."""
    at = START.add(milliseconds=milliseconds - 86400_000)
    asked = ask()
    ruling = dns_questions.judge(an_enforcer(at), asked)

    if ruling.blocks:
        seconds: int | None = remembered(dns.message.from_wire(dns_questions.refuse(asked, ruling)))
    else:
        seconds = dns_questions.terms(asked, ruling).longest

    if seconds is None:
        assert at >= END
    else:
        last = at.add(seconds=seconds).subtract(nanoseconds=1)
        later = dns_questions.judge(an_enforcer(max(at, last)), asked)
        assert later.decision.verdict == ruling.decision.verdict


@pytest.mark.parametrize("name", [BANNED, "cloaked.example.com"], ids=["itself", "alias"])
@pytest.mark.parametrize(("action", "logged"), [("warn", "connection-warned"), ("monitor", "would-block")])
def test_milder_bans(records: Records, action: str, logged: str, name: str) -> None:
    """Under a ban that warns or monitors a question is answered, and recorded once, by whichever shows the name."""
    enforcer, asked = an_enforcer(records=records, bans=(ban(action=Action(action)),)), ask(name)

    assert not put(enforcer, asked).blocks
    assert len(records.all) == (name == BANNED)
    assert isinstance(answered(enforcer, asked, BANNED).action, Pass)

    (record,) = records.all
    assert (record["event"]["action"], record["tokgate"]["reason"]) == (logged, f"ban-{action}")
    assert record["dns"]["type"] == "query"
    assert "response_code" not in record["dns"]


def test_exemption(records: Records) -> None:
    """An exempt client is answered until its exemption ends, and that is recorded."""
    at = builders.at("2023-03-31T15:59:30Z")
    enforcer, asked = an_enforcer(at, records, exemptions=(builders.exemption(),)), ask(client="192.0.2.9")

    ruling = put(enforcer, asked)

    assert dns_questions.terms(asked, ruling) == Terms(30, hides_nothing=False)
    assert records.actions == ["exemption-used"]


def test_allowed_names_are_counted(records: Records) -> None:
    """What belongs to no service is counted, never recorded, and may be remembered for as long as its owner says."""
    enforcer, asked = an_enforcer(records=records), ask(ALLOWED)

    ruling = put(enforcer, asked)

    assert dns_questions.terms(asked, ruling) == Terms(None, hides_nothing=True)
    assert isinstance(answered(enforcer, asked, "cdn.example.net").action, Pass), "an ordinary alias"
    assert [(k.visibility, k.outcome, n) for k, n in enforcer.counters.decisions.items()] == [("dns", "allow", 1)]
    assert records.all == []


@pytest.mark.parametrize("labels", [r"\000", r"a\.b", r"\195\169", r"sp\032ace", r"a\\", "_8443._https.WWW"])
def test_labels_of_no_host(labels: str) -> None:
    """Octets that no pattern can match don't hide the name below which they stand: its owner would answer for them.

    Nor do labels that say for which port a name is asked (RFC 9460 §2.3), and case makes no difference.
    """
    assert dns_questions.judge(an_enforcer(), ask(f"{labels}.Clips.example.org")).blocks
    assert not dns_questions.judge(an_enforcer(), ask(f"{labels}.example.org")).blocks


@pytest.mark.parametrize("action", ["block", "warn"])
@pytest.mark.parametrize("carried", [True, False])
def test_page(records: Records, carried: bool, action: str) -> None:
    """Where the connection that follows passes here it can be shown the page, so the name has to be answered."""
    enforcer = an_enforcer(records=records, bans=(ban(response=Response.PAGE, action=Action(action)),))
    asked = ask(carried=carried)

    ruling = put(enforcer, asked)

    assert ruling.decision.verdict is (Verdict.ALLOW if carried else Verdict(action))
    assert not dns_questions.judge(enforcer, ask(ALLOWED, carried=carried)).blocks
    logged = {"block": "dns-query-blocked", "warn": "connection-warned"}[action]
    assert records.actions == ([] if carried else [logged])
    passed = {"block": None, "warn": "no-page"}[action]
    assert [record["tokgate"].get("passed") for record in records.all] == ([] if carried else [passed])


def test_who_asks() -> None:
    """Who the client is besides its address counts, for what is refused and for what answers may hold."""
    guests = Network("guests", (), "UTC", interfaces=("guest0",))
    held = builders.snapshot(ban(networks=("guests",)), networks=(builders.OFFICE, guests))
    enforcer = enforcer_of(held, now=lambda: DURING)

    for interface, banned in (("guest0", True), ("office0", False)):
        asked = ask(client="198.51.100.1", identity=Identity(interface=interface))
        ruling = dns_questions.judge(enforcer, asked)
        assert ruling.blocks is banned
        assert dns_questions.terms(asked, ruling).hides_nothing is banned
        canary = ask(CANARY, client="198.51.100.1", identity=Identity(interface=interface))
        assert (dns_questions.discouraged(enforcer, canary) is not None) is banned


def led_to(*names: str) -> tuple[Sighting, ...]:
    return tuple(Sighting(Signal.DNS_NAME, name) for name in names)


def answered(enforcer: Enforcer, asked: DnsArrival, *names: str) -> Admission:
    """What becomes of an answer that leads to these names; it is counted and recorded."""
    admission = admit(enforcer, asked, DnsResponse(asked, led_to(*names)))
    admission.record(enforcer)
    return admission


def test_an_alias_is_refused_as_its_target(records: Records) -> None:
    """A name that leads to a banned one does not exist either, and the record says which name it led to."""
    enforcer, asked = an_enforcer(records=records), ask("cloaked.example.com")

    action = answered(enforcer, asked, "x.example.net", BANNED).action

    assert isinstance(action, Refuse)
    assert isinstance(action.words, DnsAnswer)
    got = dns.message.from_wire(action.words.message)
    assert (got.rcode(), remembered(got)) == (dns.rcode.NXDOMAIN, 10)
    assert [option.code for option in got.options if isinstance(option, dns.edns.EDEOption)] == [16]
    (record,) = records.all
    assert record["event"]["action"] == "dns-query-blocked"
    assert record["dns"]["question"]["name"] == "cloaked.example.com"
    assert record["destination"]["domain"] == BANNED
    assert record["tokgate"]["names"] == {"dns-name": ["cloaked.example.com", "x.example.net", BANNED]}
    assert record["tokgate"]["mismatch"]
    assert f"was refused the address of cloaked.example.com, which leads to {BANNED}: " in record["message"]


def test_aliases_are_told_apart(records: Records) -> None:
    """Each name that leads to a banned one has a record, and its repeats name it as well."""
    enforcer = an_enforcer(records=records)

    for name in ("a.example.com", "b.example.com", "B.example.com"):
        answered(enforcer, ask(name), BANNED)
    enforcer.close()

    names = [record["dns"]["question"]["name"] for record in records.all]
    assert names == ["a.example.com", "b.example.com", "b.example.com"]
    assert all(record["destination"]["domain"] == BANNED for record in records.all)


def test_answers_end_when_an_alias_is_banned() -> None:
    """Half a minute before the ban of the name to which it leads, an answer is one for half a minute."""
    action = answered(an_enforcer(START.subtract(seconds=30)), ask("cloaked.example.com"), BANNED).action

    assert isinstance(action, Pass)
    assert action.terms == Terms(30, hides_nothing=False)
    services = builders.service("clips", "suffix:clips.example.org"), builders.service("news", "suffix:example.net")
    later = ban(name="later", services=("news",), starts=builders.wall("2023-03-10T01:00"))
    two = an_enforcer(START.subtract(seconds=30), bans=(ban(), later), services=services)
    for asked, alias in (("www.example.net", BANNED), (BANNED, "www.example.net")):
        action = answered(two, ask(asked), alias).action
        assert isinstance(action, Pass)
        assert action.terms == Terms(30, hides_nothing=False)


def test_page_of_an_alias() -> None:
    """None can be shown for it, as the connection that follows names the alias; for the banned name itself it can."""
    enforcer = an_enforcer(bans=(ban(response=Response.PAGE),))

    assert isinstance(answered(enforcer, ask("cloaked.example.com", carried=True), BANNED).action, Refuse)
    assert isinstance(answered(enforcer, ask(BANNED, carried=True), f"x.{BANNED}").action, Pass)


@pytest.mark.parametrize(
    ("at", "client", "passes"),
    [
        (DURING, "192.0.2.7", False),
        (START.subtract(seconds=1), "192.0.2.7", True),
        (DURING, "198.51.100.1", True),
    ],
)
def test_answers_that_can_t_be_read(at: Instant, client: str, passes: bool) -> None:
    """Under a ban nothing passes that can't be read; for others nothing changes."""
    enforcer, asked = an_enforcer(at), ask(ALLOWED, client=client)

    action = admit(enforcer, asked, DnsResponse(asked, dns_questions.members(asked, b"no answer"))).action

    assert isinstance(action, Pass) is passes
    assert enforcer.counters.errors == {}
    if isinstance(action, Refuse) and isinstance(action.words, DnsAnswer):
        assert dns.message.from_wire(action.words.message).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize(("on_error", "passes"), [("block", False), ("allow", True)])
def test_deciding_about_an_answer_fails(monkeypatch: pytest.MonkeyPatch, on_error: str, passes: bool) -> None:
    """`on_error` decides about all names to which an answer leads."""

    def broken(*_: object) -> Any:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(dns_questions, "judge_answer", broken)
    enforcer = an_enforcer(on_error=OnError(on_error))

    action = answered(enforcer, ask("cloaked.example.com"), BANNED).action
    assert isinstance(action, Pass) is passes
    if isinstance(action, Refuse) and isinstance(action.words, DnsAnswer):
        assert dns.message.from_wire(action.words.message).rcode() == dns.rcode.NXDOMAIN
    assert isinstance(answered(enforcer, ask("cloaked.example.com"), ALLOWED).action, Pass)


def test_odd_names_lead_nowhere(records: Records) -> None:
    """What follows octets that no host name has is a part of the name that was asked for, and no other name."""
    enforcer, asked = an_enforcer(records=records), ask(dns.name.Name((b"a.b", b"clips", b"example", b"org", b"")))

    put(enforcer, asked)

    assert "was refused the address of clips.example.org: " in records.all[0]["message"]


def test_where_answers_lead() -> None:
    """To the names of aliases; a zone that is transferred is no chain: it holds the names of many."""
    made = dns.message.make_response(dns.message.make_query(ALLOWED, "A"))
    made.answer = [dns.rrset.from_text(f"{ALLOWED}.", 300, "IN", "CNAME", f"{BANNED}.")]
    assert dns_questions.members(ask(ALLOWED), made.to_wire()) == (Sighting(Signal.DNS_NAME, BANNED),)
    assert dns_questions.members(ask("example.org", "AXFR"), b"no answer") == ()


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
def test_zones_pass_as_they_are(kind: str) -> None:
    """A copy of a zone keeps its TTLs and ECH keys: with another octet its signature is wrong."""
    asked = ask("example.org", kind)
    assert dns_questions.terms(asked, dns_questions.judge(an_enforcer(DURING), asked)) == Terms(
        None, hides_nothing=False
    )


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

    empty = dns_questions.discouraged(enforcer, ask(name, destination=resolver))

    assert (None if empty is None else dns.message.from_wire(empty).rcode()) == rcode


@pytest.mark.parametrize(
    ("setting", "at", "client", "hides_nothing"),
    [
        ("withhold", DURING, "192.0.2.7", True),
        ("allow", DURING, "192.0.2.7", False),
        ("withhold", START.subtract(seconds=1), "192.0.2.7", False),
        ("withhold", DURING, "198.51.100.1", False),
    ],
)
def test_ech(setting: str, at: Instant, client: str, hides_nothing: bool) -> None:
    """ECH keys are kept from clients under a ban, unless the policy lets them pass."""
    settings = DnsSettings(ech_keys=EchKeys(setting))
    enforcer, asked = an_enforcer(at, dns=settings), ask(ALLOWED, "HTTPS", client=client)

    assert dns_questions.terms(asked, dns_questions.judge(enforcer, asked)).hides_nothing is hides_nothing
