"""Traffic that hides its name, or shows one that can't be understood: refused to clients under a ban, by settings."""

from dataclasses import replace

from tokgate.policy.decide import decide_unreadable
from tokgate.policy.decision import Reason, Response, Verdict
from tokgate.policy.observation import Visibility
from tokgate.policy.settings import EchOuter, MissingSni
from tokgate.traffic.arrival import Arrival
from tokgate.traffic.enforcer import Ruling
from tokgate.traffic.seen import Hello, Seen, Shown
from tokgate.wire.client_hello import ClientHello, is_ech_outer


def visibility(hello: ClientHello, *, quic: bool) -> Visibility:
    if not hello.names_a_host:
        return Visibility.NONE
    if is_ech_outer(hello):
        return Visibility.ECH_OUTER
    return Visibility.QUIC_SNI if quic else Visibility.SNI


def refuse_hidden(arrival: Arrival, seen: Seen, shown: Shown, ruling: Ruling) -> Ruling:
    """Refuse to clients under a ban what was not understood, or what the settings want refused for what it hides."""
    settings, reason = ruling.snapshot.settings, None
    if shown.visibility is Visibility.UNREADABLE:
        reason = Reason.UNREADABLE
    elif shown.legible is not None:
        reason = Reason.INVALID_HOST
    elif isinstance(seen, Hello) and seen.retry_of is not None and not _same_name(seen.retry_of, shown.name):
        reason = Reason.NAME_CHANGED
    elif shown.visibility is Visibility.NONE and not arrival.names_its_host:
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
    decision = replace(refused.decision, verdict=Verdict.ALLOW, ban=None, response=Response.INSPECT)
    return replace(ruling, judgement=replace(ruling.judgement, decision=decision))


def _same_name(first: str, second: str | None) -> bool:
    return first.lower().removesuffix(".") == (second or "").lower().removesuffix(".")


def _refused_if_banned(arrival: Arrival, ruling: Ruling, reason: Reason) -> Ruling:
    decision = decide_unreadable(ruling.snapshot, arrival.client.ip, ruling.at, reason, arrival.identity)
    if decision is None:
        return ruling
    return replace(ruling, judgement=replace(ruling.judgement, decision=decision))
