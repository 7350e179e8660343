"""The form of a refusal's page to ask for an exception: who gets it, and what becomes of a request."""

from typing import Final

from mitmproxy.http import HTTPFlow
from whenever import Instant, TimeDelta

from tokgate.block_page.continue_form import Button, read_request
from tokgate.block_page.notice import Asking, Request
from tokgate.blocklog.records.record import instant_in, new_stamp, timestamp
from tokgate.blocklog.records.requests import ExceptionRequest, RequestState, exception_requested
from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.hooks.traffic import Traffic
from tokgate.mitm.hooks.warnings import authority_of, person_at
from tokgate.mitm.http_request import is_own_form
from tokgate.policy.analysis.terms import outlasts
from tokgate.policy.bans import Overrides
from tokgate.policy.schedule import Duration, add_duration
from tokgate.policy.settings import ClientsShown
from tokgate.traffic.enforcer import Ruling
from tokgate.traffic.exception_requests import NotTaken

TOKEN: Final = "0-746f6b67617465"  # noqa: S105  (nobody's)
"""Stands in a page that is kept for the form's token."""
_OFFERED: Final = tuple(Duration(hours=hours) for hours in (1, 4, 8, 24))
_TOLD_FOR: Final = TimeDelta(hours=24)
"""How long the page tells of a request that was declined."""


def asking_of(traffic: Traffic, connection: ClientConnection, ruling: Ruling) -> Asking | None:
    """The form for a person who is refused; None where the policy has none, or no ban refuses."""
    limits, ban = ruling.snapshot.settings.overrides, ruling.ban
    if traffic.requests is None or not limits.requests or ban is None or ban.overrides is Overrides.FORBIDDEN:
        return None
    at = ruling.at
    offered = (each for each in _OFFERED if not outlasts(at, add_duration(at, each, "UTC"), limits.longest, "UTC"))
    who = person_at(connection)
    try:
        known = traffic.requests.latest(who.client, who.user, ban.name)
    except OSError as error:
        traffic.failed("requests", error)
        known = None
    last = None if known is None else _told(known, at)
    return Asking(token=TOKEN, offered=tuple(offered) or (limits.longest,), last=last)


def received(
    traffic: Traffic, flow: HTTPFlow, connection: ClientConnection, ruling: Ruling, asking: Asking | None
) -> ExceptionRequest | str | None:
    """The request that a form made, or the one that was pending; else why it was not taken, a key of the texts.

    None if the form is not the page's own, and nothing was asked.
    """
    token, event, why, lasting = read_request(flow.request.raw_content)
    button = button_of(flow, connection, ruling, event)
    genuine = button.made(token, traffic.enforcer.warned.token_key, ruling.at)
    if traffic.requests is None or asking is None or not genuine or not is_own_form(flow.request, authority_of(flow)):
        return None
    if not why or lasting not in [each.format_iso() for each in asking.offered]:
        return "incomplete"
    who, enforcer, decision = person_at(connection), traffic.enforcer, ruling.decision
    stamp, policy = new_stamp(ruling.at, enforcer.observer), ruling.snapshot
    request: ExceptionRequest = {
        "id": stamp.id,
        "at": timestamp(ruling.at),
        "state": RequestState.PENDING,
        "ban": decision.ban or "",
        "network": decision.network,
        "client": who.client,
        "user": who.user,
        "host": ruling.sighting.host or "",
        "refusal": event,
        "why": why,
        "lasting": lasting,
        **dict.fromkeys(("answered", "by", "reason", "ticket", "override", "until")),  # type: ignore[typeddict-item]
    }
    try:
        kept = traffic.requests.add(request)
    except OSError as error:
        traffic.failed("requests", error)
        return "not-kept"
    if isinstance(kept, NotTaken):
        return kept.value
    if kept is request:
        disguised = policy.settings.log.clients is not ClientsShown.PLAIN
        enforcer.write(lambda _: exception_requested(stamp, request, policy.version, disguised=disguised))
    return kept


def button_of(flow: HTTPFlow, connection: ClientConnection, ruling: Ruling, event: str) -> Button:
    """The button of the form on the page of a refusal, `event`."""
    return Button(person_at(connection), ruling.decision.ban or "", authority_of(flow), event)


def _told(request: ExceptionRequest, now: Instant) -> Request | None:
    """What the page tells of a request; None of what is over."""
    at, until, answered = (instant_in(request[key]) for key in ("at", "until", "answered"))
    over = until if request["state"] == RequestState.APPROVED else answered and answered + _TOLD_FOR
    if at is None or (over is not None and over <= now):
        return None
    return Request(request["id"], request["state"], at, until, request["reason"])
