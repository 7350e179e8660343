"""Answers of our own to requests that don't pass: the block page, 400, and what else a hook answers with."""

from dataclasses import replace
from functools import lru_cache
from typing import Final

from mitmproxy.http import HTTPFlow, Response

from tokgate.block_page import render
from tokgate.block_page.language import choose_language
from tokgate.block_page.notice import Notice, notice_of
from tokgate.block_page.render import RenderedResponse, choose_format
from tokgate.mitm import http_request
from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.hooks.traffic import Traffic
from tokgate.mitm.layers.request_body import BAD_REQUEST
from tokgate.policy.observation import Stage
from tokgate.traffic.admission import Admission
from tokgate.traffic.enforcer import Enforcer, Ruling
from tokgate.traffic.refusal_texts import explanation

_EVENT: Final = "00000000-0000-4000-8000-746f6b676174"
"""Stands in a page that is kept for the id of a record."""


def answer(flow: HTTPFlow, connection: ClientConnection, response: Response | None) -> None:
    """Answer a request ourselves, or cut it off where its body would have to be awaited for too long."""
    request = flow.request
    if response is None:
        return
    close_after(flow, connection, response)
    if request.method != "CONNECT" and not http_request.answerable(request):
        flow.kill()
        return
    if request.method == "HEAD":
        response.raw_content = b""  # Content-Length stays what GET would have got
    if request.is_http2:  # RFC 9113 §8.2.1
        response.headers = type(response.headers)((name.lower(), value) for name, value in response.headers.fields)
    request.stream = False
    flow.response = response


def close_after(flow: HTTPFlow, connection: ClientConnection, response: Response) -> None:
    """Have a client that is to leave do so after this response; over HTTP/2 it has been told otherwise."""
    if not flow.request.is_http2 and connection.leaving:
        response.headers["Connection"] = "close"


def bad_request() -> Response:
    """The answer to what can't be passed on as it is."""
    return Response.make(BAD_REQUEST, b"", {"Cache-Control": "no-store"})


def reject(enforcer: Enforcer, flow: HTTPFlow, connection: ClientConnection, admission: Admission) -> None:
    """Answer 400 to what could be read in two ways, unless mitmproxy does; under a ban that is a refusal."""
    if admission.ruling.blocks:
        _mark(flow, admission.ruling)
        admission.record(enforcer, BAD_REQUEST)
    if flow.request.method == "PRI":  # the preface of HTTP/2 where HTTP/1 is spoken: it can't be answered
        flow.kill()
    elif flow.error is None:
        answer(flow, connection, bad_request())


def refuse(traffic: Traffic, flow: HTTPFlow, connection: ClientConnection, admission: Admission) -> None:
    """Record a blocked request and answer it with the page."""
    ruling = admission.ruling
    _mark(flow, ruling)
    contact = render.href_of(ruling.ban.contact) if ruling.ban is not None else None
    implementer = traffic.context.implementer or contact or f"dns:{traffic.context.hostname}"
    asked = ruling.sighting.value
    notice = notice_of(ruling, asked=asked, implementer=implementer, opened=connection.opened)
    stamp = admission.record(traffic.enforcer, notice.status)
    languages = flow.request.headers.get("accept-language")
    kind = flow.request.headers.get("accept", "text/plain" if admission.stage is Stage.CONNECT else None)
    page = page_of(notice, stamp.id, kind, languages)
    answer(flow, connection, Response.make(page.status, page.body, dict(page.headers)))


def page_of(notice: Notice, event: str, accept: str | None, languages: str | None) -> RenderedResponse:
    """A refusal's page with the id of its record; pages that say the same are made once."""
    page = _page(notice, choose_format(accept), choose_language(languages))
    headers = {name: value.replace(_EVENT, event) for name, value in page.headers.items()}
    return RenderedResponse(page.status, headers, page.body.replace(_EVENT.encode(), event.encode()))


@lru_cache(maxsize=256)
def _page(notice: Notice, accept: str, language: str) -> RenderedResponse:
    return render.compose(replace(notice, event=_EVENT), accept=accept, accept_language=language)


def _mark(flow: HTTPFlow, ruling: Ruling) -> None:
    """Show in mitmproxy's lists of flows which were refused, and why."""
    decision = ruling.decision
    flow.marked = ":no_entry:"
    flow.comment = f"tokgate: {decision.verdict}, {decision.reason}. {explanation(ruling)}"
