"""DNS questions: what is decided about them, and what an answer may hold and for how long."""

from dataclasses import replace
from typing import Final

from dns.rcode import Rcode
from whenever import Instant

from tokgate.policy.decide import Sighting, decide, is_under_block
from tokgate.policy.decision import Signal, Verdict
from tokgate.policy.services import NO_MATCH
from tokgate.policy.settings import EchKeys, EncryptedDns
from tokgate.traffic.actions import Terms
from tokgate.traffic.enforcer import Enforcer, Ruling
from tokgate.traffic.refusal_texts import explanation
from tokgate.traffic.seen import DnsArrival
from tokgate.wire.dns_message.answer import ExtendedError, capped, leads_to, offers_ech, refusal, without_ech

REMEMBERED: Final = 10
"""Seconds for which a refusal may be remembered: an override has to take effect soon."""

# RFC 8914 §4. 17, Filtered, is for what the client itself has asked to be kept from: never so here.
BLOCKED: Final = 15
"""By decision of those who run the resolver."""
CENSORED: Final = 16
"""By order of an authority."""
NOT_DECIDED: Final = Rcode.NXDOMAIN, ExtendedError(BLOCKED, "The policy of this network could not be applied")
UNANSWERED: Final = Rcode.SERVFAIL, ExtendedError(23, "The name server gave no answer")
UNREADABLE: Final = Rcode.SERVFAIL, ExtendedError(0, "The name server's answer can't be read")

_CANARY: Final = "use-application-dns.net"
"""Firefox asks for it before it turns to DNS over HTTPS by itself: https://support.mozilla.org/kb/canary-domain-use-application-dnsnet"""
_RESOLVER: Final = "resolver.arpa"
"""Under this name resolvers tell of their encrypted selves (RFC 9462)."""


def judge(enforcer: Enforcer, asked: DnsArrival) -> Ruling:
    """Decide about a question now. Never raises.

    Where a page is to be shown, the name is answered if the connection that follows passes here: it gets the page.
    """
    ruling = enforcer.judge(asked.client.ip, asked.names, asked.identity)
    decision = ruling.decision
    if asked.carried and decision.response is not None and decision.response.shows_page:
        return replace(ruling, decision=replace(decision, verdict=Verdict.ALLOW))
    return ruling


def members(asked: DnsArrival, answer: bytes) -> tuple[Sighting, ...] | None:
    """The names to which an answer leads; None: it can't be read. A zone that is transferred leads nowhere."""
    if asked.query.transfers:
        return ()
    try:
        return tuple(Sighting(Signal.DNS_NAME, name) for name in leads_to(answer))
    except ValueError:
        return None


def judge_answer(enforcer: Enforcer, asked: DnsArrival, members: tuple[Sighting, ...]) -> Ruling:
    """Decide about a question again, with the names to which its answer leads: the strictest decides. Never raises.

    One that is stricter than the question's own is refused also where a page would be shown: the connection that
    follows names what was asked for, and would not be recognised.
    """
    ruling = judge(enforcer, asked)
    match = ruling.snapshot.services.match
    members = tuple(each for each in members if match(each.value) is not NO_MATCH)  # those of no service ban nothing
    if not members:
        return ruling
    whole = enforcer.judge(asked.client.ip, (*asked.names, *members), asked.identity)
    return ruling if whole.sighting in asked.names else whole


def refuse(asked: DnsArrival, ruling: Ruling) -> bytes:
    """NXDOMAIN with the ban as the extended error. Its TTL ends with the decision, after REMEMBERED seconds at most."""
    left = _left(ruling, ruling.decision.next_change)
    ttl = REMEMBERED if left is None else min(REMEMBERED, left)
    ban = ruling.ban
    imposed = ban is not None and (ban.authority is not None or ban.basis is not None)
    error = ExtendedError(CENSORED if imposed else BLOCKED, explanation(ruling))
    return refusal(asked.query, Rcode.NXDOMAIN, ttl=ttl, error=error)


def without_answer(asked: DnsArrival, why: tuple[Rcode, ExtendedError]) -> bytes:
    """What a client is told where there is no answer to give; not to be remembered."""
    return refusal(asked.query, why[0], error=why[1])


def discouraged(enforcer: Enforcer, asked: DnsArrival) -> bytes | None:
    """An empty answer to a question by which a client finds out about encrypted DNS; None: its own is to be given.

    Only for clients under a ban that blocks, as the settings for connections without a name. A resolver that passes
    questions on never answers for the one behind it (RFC 9462 §6.1).
    """
    name = asked.query.name.lower()
    if name == _RESOLVER or name.endswith(f".{_RESOLVER}"):
        rcode, always = Rcode.NOERROR, asked.destination is None
    elif name == _CANARY:
        rcode, always = Rcode.NXDOMAIN, False
    else:
        return None
    wanted = enforcer.snapshot.settings.encrypted_dns is EncryptedDns.DISCOURAGE
    banned = wanted and under_ban(enforcer.judge(asked.client.ip, asked.names, asked.identity), asked)
    if not always and not banned:
        return None
    error = ExtendedError(BLOCKED, "This network's own resolver is to be used")
    return refusal(asked.query, rcode, ttl=REMEMBERED, error=error)


def terms(asked: DnsArrival, ruling: Ruling, members: tuple[Sighting, ...] = ()) -> Terms:
    """What an answer must keep to, as of the ruling's instant: the first change about any of its names ends it.

    A zone that is transferred is a copy for another server, signed as a whole (RFC 8945 §5.3.1): it keeps to nothing.
    May raise what deciding raises.
    """
    if asked.query.transfers:
        return Terms(None, hides_nothing=False)
    snapshot, at = ruling.snapshot, ruling.at
    each = (decide(snapshot, asked.client.ip, name.value, at, name.signal, asked.identity) for name in members)
    changes = [decision.next_change for decision in (ruling.decision, *each) if decision.next_change is not None]
    hides_nothing = snapshot.settings.dns.ech_keys is EchKeys.WITHHOLD and under_ban(ruling, asked)
    return Terms(_left(ruling, min(changes, default=None)), hides_nothing=hides_nothing)


def edited(terms: Terms, answer: bytes) -> bytes:
    """An answer within its terms. Raises ValueError if that needs it to be read, and it can't be."""
    if terms.longest is not None:
        answer = capped(answer, terms.longest)
    if terms.hides_nothing and offers_ech(answer):
        answer = without_ech(answer)
    return answer


def _left(ruling: Ruling, change: Instant | None) -> int | None:
    """Whole seconds from the ruling to a change; None: there is none to come."""
    return None if change is None else max(0, int((change - ruling.at).total("seconds")))


def under_ban(ruling: Ruling, asked: DnsArrival) -> bool:
    """Whether the client is under a ban that blocks at the ruling's instant, whatever it bans."""
    return is_under_block(ruling.snapshot, asked.client.ip, ruling.at, asked.identity)
