"""Requests for exceptions from a ban, and the records of what was asked and answered. No clock, no I/O."""

import re
from enum import StrEnum
from typing import Final, TypedDict

from tokgate.blocklog.records.ecs_fields import MAX_USER
from tokgate.blocklog.records.record import EventAction, Record, Stamp, clean, frame, pruned


class RequestState(StrEnum):
    """The states of a request."""

    PENDING = "pending"
    APPROVED = "approved"
    DECLINED = "declined"


class ExceptionRequest(TypedDict):
    """A request as it is kept and printed. Times are RFC 3339 in UTC; what is not known or not yet so is null."""

    id: str
    """The id of its record in the log."""
    at: str
    state: RequestState
    ban: str
    network: str | None
    client: str
    user: str | None
    host: str
    refusal: str
    """The id of the record of what was refused."""
    why: str
    lasting: str
    """For how long, in ISO 8601."""
    answered: str | None
    by: str | None
    reason: str | None
    ticket: str | None
    override: str | None
    until: str | None


_ANSWERS: Final = {
    RequestState.APPROVED: EventAction.EXCEPTION_APPROVED,
    RequestState.DECLINED: EventAction.EXCEPTION_DECLINED,
}


def exception_requested(stamp: Stamp, request: ExceptionRequest, policy_version: str, *, disguised: bool) -> Record:
    """Somebody asked for an exception. Where clients are `disguised`, without why: that may name them."""
    who = clean(request["client"])
    user = request["user"] and clean(request["user"], MAX_USER)
    named = who if user is None else f"{user} at {who}"
    message = f"{named} asks for an exception from ban {request['ban']} for {request['lasting']}"
    why = None if disguised else clean(request["why"])
    message += "." if why is None else f": {why}"
    record = frame(stamp, EventAction.EXCEPTION_REQUESTED, message, category=("web",), kinds=("info",))
    asked = {"id": stamp.id, "refusal": request["refusal"], "lasting": request["lasting"], "why": why}
    policy = {"version": policy_version}
    own = {"request": asked, "ban": request["ban"], "network": request["network"], "policy": policy}
    related = {"ip": [who], "user": [user] if user else None}
    source = {"address": who, "ip": who}
    return record | pruned({"source": source, "user": {"name": user}, "related": related, "tokgate": own})


ANSWERED: Final = re.compile(r"^The request ([0-9a-f-]{36}) for an exception ")
"""The request in the message of its answer."""


def exception_answered(stamp: Stamp, request: ExceptionRequest, policy_version: str) -> Record:
    """A request was approved or declined, and by whom. Whose it was is in the record of the request."""
    said = {key: value and clean(value) for key in ("by", "reason", "ticket") if (value := request[key]) is not None}
    message = f"The request {request['id']} for an exception from ban {request['ban']} was {request['state']}"
    message += f" by {said['by']}" if "by" in said else ""
    if request["override"] is not None:
        message += f" until {request['until']}: override {request['override']}"
    message += f": {said['reason']}" if "reason" in said else "."
    record = frame(stamp, _ANSWERS[request["state"]], message, reason=said.get("reason"))
    own = {
        "request": {"id": request["id"], "refusal": request["refusal"]},
        "ban": request["ban"],
        "exemption": request["override"],
        "exemption_until": request["until"],
        "by": said.get("by"),
        "ticket": said.get("ticket"),
        "policy": {"version": policy_version},
    }
    return record | pruned({"user": {"name": said.get("by")}, "tokgate": own})
