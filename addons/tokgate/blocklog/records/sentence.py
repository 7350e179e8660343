"""The `message` of a traffic record: who, what, by which ban, until when, in English."""

from typing import Final

from whenever import Instant

from tokgate.blocklog.records.record import EventAction
from tokgate.policy.bans import Ban
from tokgate.policy.decision import Decision, Reason

_DID: Final = {
    EventAction.TLS_HANDSHAKE_REFUSED: "was refused {what}",
    EventAction.TLS_OPENED: "had its connection to {what} opened to show the page",
    EventAction.QUIC_REFUSED: "was refused {what} over QUIC",
    EventAction.CONNECT_REFUSED: "was refused a tunnel to {what}",
    EventAction.HTTP_REQUEST_BLOCKED: "was refused {what} over HTTP",
    EventAction.HTTP_REQUEST_WARNED: "was warned before {what}",
    EventAction.WARNING_CONTINUED: "continues to {what} past the warning",
    EventAction.DNS_QUERY_BLOCKED: "was refused the address of {what}",
    EventAction.CONNECTION_REFUSED: "was refused a connection to {what}",
    EventAction.CONNECTION_WARNED: "reached {what} with a warning",
    EventAction.CONNECTION_CUT: "was cut off from {what}",
    EventAction.WOULD_BLOCK: "reached {what} and would have been refused",
    EventAction.EXEMPTION_USED: "reached {what}",
    EventAction.PASSED_ON_ERROR: "reached {what} unjudged",
}

_WITHOUT_BAN: Final = {
    Reason.UNKNOWN_CLIENT: "the client belongs to no network of the policy",
    Reason.INVALID_CLIENT: "the client's address makes no sense",
    Reason.INVALID_HOST: "the name makes no sense",
    Reason.MISSING_SNI: "the connection names no host",
    Reason.NAME_CHANGED: "the connection named another host after its server had asked again",
    Reason.UNREADABLE: "the connection can't be read, and some server might read it",
    Reason.ECH_OUTER: "the connection shows only the public name of an ECH provider",
    Reason.INTERNAL_ERROR: "deciding failed, and the policy says what holds then",
}


def counted(number: int, noun: str) -> str:
    """`1 ban`, `2 bans`: for nouns whose plural ends in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def wall_time(at: Instant, zone: str) -> str:
    """`2023-09-10 00:00 Europe/Brussels`: local time and zone, with seconds if there are any."""
    local = at.to_tz(zone)
    clock = local.time().format_iso(unit="minute" if local.second == 0 and local.nanosecond == 0 else "second")
    return f"{local.date()} {clock} {zone}"


def term(ends: Instant | None, zone: str, *, overdue: bool) -> str:
    """Until when a ban holds, as a phrase."""
    if ends is None:
        return "until lifted"
    if overdue:
        return f"held since its end on {wall_time(ends, zone)}"
    return f"until {wall_time(ends, zone)}"


def by_whom(ban: Ban) -> str:
    """The ban's title and name, its authority and its legal basis, as a phrase."""
    said = f"{ban.title} [{ban.name}]"
    if ban.authority is not None:
        said += f", decided by {ban.authority}"
    if ban.basis is not None:
        said += f" ({ban.basis})"
    return said


def sentence(
    action: EventAction, who: str, what: str, decision: Decision, *, ban: str | None, exemption: str | None
) -> str:
    """The message of a traffic record. `ban` and `exemption` are phrases; `what` is a name or an address."""
    where = f" ({decision.network})" if decision.network is not None else ""
    did = _DID[action].replace("{what}", what)
    why = ban if ban is not None else _WITHOUT_BAN.get(decision.reason, f"reason {decision.reason}")
    if exemption is not None:
        return f"{who}{where} {did} under exemption {exemption}; otherwise refused: {why}."
    return f"{who}{where} {did}: {why}."
