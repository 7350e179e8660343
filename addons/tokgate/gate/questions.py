"""DNS questions: what is decided about them, and what an answer may hold and for how long."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from tokgate.blocklog.observation import DnsSeen, Endpoint, Observation, Passed, Stage, Transport, Visibility
from tokgate.gate.enforcer import Enforcer, Ruling
from tokgate.gate.explanation import explanation
from tokgate.gate.nameless import refusal as refusal_under_ban
from tokgate.policy.bans import EchOuter, EncryptedDns
from tokgate.policy.continuing import warns_with_a_page
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Reason, Response, Signal, Verdict
from tokgate.policy.identity import Identity
from tokgate.wire import dns_message
from tokgate.wire.dns_message import ExtendedError, Query, Rcode

REMEMBERED: Final = 10
"""Seconds for which a refusal may be remembered: an override has to take effect soon."""

# RFC 8914 §4.16 and §4.17. 17, Filtered, is for what the client itself has asked to be kept from: never so here.
BLOCKED: Final = 15
"""By decision of those who run the resolver."""
CENSORED: Final = 16
"""By an authority that told them to."""

_CANARY: Final = "use-application-dns.net"
"""Firefox asks for it before it turns to DNS over HTTPS by itself: https://support.mozilla.org/kb/canary-domain-use-application-dnsnet"""
_RESOLVER: Final = "resolver.arpa"
"""Under this name resolvers tell of their encrypted selves (RFC 9462)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, who asked it, and how it came."""

    client: Endpoint
    query: Query
    transport: Transport = Transport.UDP
    resolver: Endpoint | None = None
    """Whom the client asked; None if it was us."""
    connection: str | None = None
    identity: Identity | None = None
    """Who the client is besides its address."""
    carried: bool = False
    """What the client connects to then passes here, too."""

    @property
    def names(self) -> tuple[Sighting, ...]:
        """The name; and what follows octets that no pattern can match: the owner of that answers for all of it."""
        sighting = Sighting(Signal.DNS_NAME, self.query.name)
        return (sighting, Sighting(Signal.DNS_NAME, self.query.below)) if self.query.below else (sighting,)


@dataclass(frozen=True, slots=True)
class Terms:
    """What an answer must keep to: `longest` in seconds, None without limit."""

    longest: int | None
    hides_nothing: bool
    """No ECH keys: the policy wants to see names, and the client is under a ban."""


def judge(enforcer: Enforcer, asked: Asked) -> Ruling:
    """Decide about a question now. Never raises.

    Where a page is to be shown, the name is answered if the connection that follows passes here: it gets the page.
    """
    ruling = enforcer.judge(asked.client.ip, asked.names, asked.identity)
    decision = ruling.decision
    if asked.carried and decision.response is Response.PAGE:
        passing = replace(decision, verdict=Verdict.ALLOW)
        return replace(ruling, judgement=replace(ruling.judgement, decision=passing))
    return ruling


def enter(enforcer: Enforcer, asked: Asked, ruling: Ruling) -> None:
    """Count a question and write its record, if it is worth one."""
    enforcer.enter(ruling, Visibility.DNS, partial(_observe, asked, ruling))


def refuse(asked: Asked, ruling: Ruling) -> bytes:
    """There is no such name, on whose authority, and not for longer than the decision holds."""
    left = _left(ruling)
    ttl = REMEMBERED if left is None else min(REMEMBERED, left)
    return dns_message.refusal(asked.query, Rcode.NXDOMAIN, ttl=ttl, error=_explained(ruling))


def discouraged(enforcer: Enforcer, asked: Asked) -> Rcode | None:
    """What a client gets that asks whether to use encrypted DNS instead: the code of an empty answer; None: an answer.

    Such a setting serves the bans, as do those for connections without a name: others are left in peace. A resolver
    that passes questions on never answers for the one behind it (RFC 9462 §6.1).
    """
    name = asked.query.name.lower()
    if name == _RESOLVER or name.endswith(f".{_RESOLVER}"):
        rcode = Rcode.NOERROR
        if asked.resolver is None:
            return rcode
    elif name == _CANARY:
        rcode = Rcode.NXDOMAIN
    else:
        return None
    wanted = enforcer.snapshot.settings.encrypted_dns is EncryptedDns.DISCOURAGE
    return rcode if wanted and _under_ban(enforcer.judge(asked.client.ip, asked.names, asked.identity), asked) else None


def terms(asked: Asked, ruling: Ruling) -> Terms:
    """What the answer to a question must keep to, as of the ruling's instant. May raise what deciding raises."""
    seen = ruling.snapshot.settings.ech_outer is not EchOuter.ALLOW and _under_ban(ruling, asked)
    return Terms(_left(ruling), hides_nothing=seen)


def _left(ruling: Ruling) -> int | None:
    """Whole seconds for which the decision is sure to hold."""
    change = ruling.decision.next_change
    return None if change is None else max(0, int((change - ruling.at).total("seconds")))


def _under_ban(ruling: Ruling, asked: Asked) -> bool:
    refused = refusal_under_ban(ruling.snapshot, asked.client.ip, ruling.at, Reason.ECH_OUTER, asked.identity)
    return refused is not None


def _explained(ruling: Ruling) -> ExtendedError:
    ban = ruling.snapshot.bans.get(ruling.decision.ban or "")
    imposed = ban is not None and (ban.authority is not None or ban.basis is not None)
    return ExtendedError(CENSORED if imposed else BLOCKED, explanation(ruling))


def _observe(asked: Asked, ruling: Ruling) -> Observation:
    query = asked.query
    return Observation(
        client=asked.client,
        destination=asked.resolver,
        stage=Stage.DNS,
        visibility=Visibility.DNS,
        transport=asked.transport,
        names=asked.names,
        dns=DnsSeen(id=query.id, type=query.type_name, response_code=Rcode.NXDOMAIN.name if ruling.blocks else None),
        passed=Passed.NO_PAGE if warns_with_a_page(ruling.decision) else None,
        connection=asked.connection,
        identity=asked.identity,
    )
