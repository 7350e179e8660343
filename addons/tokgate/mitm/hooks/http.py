"""The hooks of HTTP requests, plain or in opened connections, and of CONNECT, and the answers of our own."""

import time
from dataclasses import replace
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Final, assert_never

from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.net.http.http1.assemble import assemble_response
from mitmproxy.proxy.context import Context

from tokgate.block_page import render
from tokgate.block_page.continue_form import asks
from tokgate.block_page.language import choose_language
from tokgate.block_page.notice import Asking, Notice, notice_of
from tokgate.block_page.render import RenderedResponse, choose_format
from tokgate.mitm import http_request
from tokgate.mitm.client_connection import ClientConnection, Passing
from tokgate.mitm.hooks.exception_requests import TOKEN, asking_of, button_of, received
from tokgate.mitm.hooks.traffic import Hooks, Traffic, ends_in, nothing
from tokgate.mitm.http_request import BAD_REQUEST
from tokgate.mitm.layers.failures import failure
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.observation import HttpSeen, Stage
from tokgate.traffic.actions import AskCertificate, HttpAnswer, Open, Pass, Refuse
from tokgate.traffic.admission import Admission, admit
from tokgate.traffic.seen import Connect, Request

_SWITCHING: Final = 101
_WAITING: Final = "tokgate-waiting"
"""Where a flow keeps the admission of a request whose body has to be read first."""
_ASKED: Final = "tokgate-asked"
"""The same of a form that asks for an exception."""


def _kill_if_banned(traffic: Traffic, flow: HTTPFlow) -> None:
    """The page could not be made, or nothing be decided: cut off what `on_error` blocks."""
    flow.response = None
    if not traffic.is_configured:
        flow.kill()
        return
    hosts = (flow.request.data.host, flow.request.host_header or "", flow.client_conn.sni or "")
    names = [Sighting(Signal.HTTP_HOST, host) for host in hosts if host]
    if traffic.enforcer.judge_on_error(names).blocks:
        flow.kill()


class HttpHooks(Hooks):
    """The addon for requests and their responses."""

    name = "tokgate-http"

    @ends_in(_kill_if_banned)
    def http_connect(self, flow: HTTPFlow) -> None:
        """A client asks for a tunnel: refused here, or to be decided about again inside. A page needs the tunnel."""
        if flow.response is not None or flow.error is not None:
            return
        connection, host = self._traffic.connections.of(flow.client_conn), flow.request.data.host
        connection.spoken()
        if not http_request.can_be_dialled(host):
            answer(flow, connection, bad_request(flow, connection, "the host is no name, and no address"))
            return
        seen = Connect(host, connection.lead, http_request.http_seen(flow.request))
        admission = admit(self._traffic.enforcer, http_request.arrival(flow, connection), seen)
        match admission.action:
            case Refuse():
                answer(flow, connection, _refusal(self._traffic, flow, connection, admission))
            case Pass() | Open() | AskCertificate():
                connection.connect, connection.waiting_since = host, time.monotonic()
                if not admission.ruling.blocks:
                    connection.requests[flow.id] = Passing(admission.arrival, seen)
            case _:
                assert_never(admission.action)

    @ends_in(_kill_if_banned)
    def requestheaders(self, flow: HTTPFlow) -> None:
        """The head of a request has come: decide about every name that it shows, unless its body says what is asked."""
        if flow.response is not None or (flow.error is not None and flow.error.msg == Error.KILLED_MESSAGE):
            return
        connection, enforcer = self._traffic.connections.of(flow.client_conn), self._traffic.enforcer
        connection.spoken()
        connection.asked = True
        seen = http_request.seen(flow, connection)
        admission = admit(enforcer, http_request.arrival(flow, connection), seen)
        if seen.ambiguous and not admission.ruling.blocks and http_request.mend(flow.request):
            seen = http_request.seen(flow, connection)
            admission = admit(enforcer, http_request.arrival(flow, connection), seen)
        unsaid = admission if seen.ambiguous else http_request.unsaid(enforcer, admission)
        if unsaid is None:
            self._carry_out(flow, connection, admission)
        elif not seen.ambiguous and http_request.answerable(flow.request):
            flow.metadata[_WAITING] = admission
        else:  # ambiguous; or its body is too long, or nobody knows how long
            reject(self._traffic, flow, connection, unsaid)

    @ends_in(_kill_if_banned)
    def request(self, flow: HTTPFlow) -> None:
        """A request has come whole: of a warning's button, and where the body says what is asked for, this matters."""
        connection, enforcer = self._traffic.connections.of(flow.client_conn), self._traffic.enforcer
        if flow.response is not None or flow.error is not None:
            return
        waiting: Admission | None = flow.metadata.pop(_WAITING, None)
        asked: Admission | None = flow.metadata.pop(_ASKED, None)
        if asked is not None:
            answer(flow, connection, _answer_to_request(self._traffic, flow, connection, asked))
        elif waiting is None:
            answer(flow, connection, self._traffic.warnings.pressed(enforcer, flow, connection))
        else:
            whole = http_request.with_body(enforcer, waiting, flow.request.raw_content or b"")
            self._carry_out(flow, connection, whole)

    @ends_in(nothing)
    def unreadable_request(self, unreadable: Context) -> None:
        """The head of a request made no sense, and was answered with 400."""
        connection = self._traffic.connections.of(unreadable.client)
        connection.spoken()
        arrival = connection.arrival(unreadable.server.address)
        http = HttpSeen(method="-", scheme="https" if connection.opened else "http")
        seen = Request(arrival.sightings, http, opened=connection.opened, ambiguous=True)
        admission = admit(self._traffic.enforcer, arrival, seen)
        if admission.ruling.blocks:
            admission.record(self._traffic.enforcer, http_request.BAD_REQUEST)

    @ends_in(nothing)
    def responseheaders(self, flow: HTTPFlow) -> None:
        """An origin's answer passes as it comes: events and long polls don't wait for their end."""
        if flow.response is not None and flow.response.raw_content is None:
            flow.response.stream = True
            close_after(flow, self._traffic.connections.of(flow.client_conn), flow.response)

    @ends_in(nothing)
    def response(self, flow: HTTPFlow) -> None:
        """A request has its whole answer. What it was upgraded to goes on, and is under its names still."""
        if flow.response is None or flow.response.status_code != _SWITCHING:
            self._traffic.connections.of(flow.client_conn).requests.pop(flow.id, None)
        else:  # mitmproxy would hold each message back until it is whole
            flow.websocket = None

    @ends_in(nothing)
    def error(self, flow: HTTPFlow) -> None:
        """A request ended without an answer."""
        self._traffic.connections.of(flow.client_conn).requests.pop(flow.id, None)

    def _carry_out(self, flow: HTTPFlow, connection: ClientConnection, admission: Admission) -> None:
        """Do with a request what was decided."""
        enforcer = self._traffic.enforcer
        match admission.action:
            case Refuse(HttpAnswer(warning=True)):
                passed = self._traffic.warnings.passed(enforcer, flow, connection, admission.ruling)
                if passed is None:
                    answer(flow, connection, self._traffic.warnings.answer(enforcer, flow, connection, admission))
                else:
                    self._let_pass(flow, connection, replace(admission, action=Pass(), passed=passed))
            case Refuse() if asks(flow.request.method, flow.request.path) and http_request.answerable(flow.request):
                flow.metadata[_ASKED] = admission
            case Refuse():
                asking = asking_of(self._traffic, connection, admission.ruling)
                answer(flow, connection, _refusal(self._traffic, flow, connection, admission, asking))
            case Pass() | Open() | AskCertificate():
                self._let_pass(flow, connection, admission)
            case _:
                assert_never(admission.action)

    def _let_pass(self, flow: HTTPFlow, connection: ClientConnection, admission: Admission) -> None:
        enforcer, request = self._traffic.enforcer, flow.request
        http_request.stay_in_http1(request)
        self._traffic.egress.names[flow.client_conn] = request.pretty_host
        self._traffic.egress.address_parent(request)
        if request.raw_content is None:  # nothing is kept of what passes, so nothing has to be held back
            smuggled = partial(self._smuggled, flow, connection)
            request.stream = http_request.watched(enforcer, request.method, admission, smuggled)
        admission.record(enforcer)
        connection.requests[flow.id] = Passing(admission.arrival, admission.seen)

    def _smuggled(self, flow: HTTPFlow, connection: ClientConnection, refused: Admission) -> None:
        """A body began like a request, after the head has gone on."""
        response = _rejection(self._traffic, flow, connection, refused)
        response.headers["Connection"] = "close"
        connection.smuggled = assemble_response(response)


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
    """Close a connection that is to close after this response; over HTTP/2 GOAWAY has said it."""
    if not flow.request.is_http2 and connection.closes_next:
        response.headers["Connection"] = "close"


def bad_request(flow: HTTPFlow, connection: ClientConnection, problem: str | None) -> Response:
    """The answer to what can't be passed on as it is, and why."""
    return failure("client", BAD_REQUEST, problem or "a body begins like a request", connection.id, flow.request)


def reject(traffic: Traffic, flow: HTTPFlow, connection: ClientConnection, admission: Admission) -> None:
    """Answer 400 to what could be read in two ways, unless mitmproxy does; for clients under a ban that is recorded."""
    if admission.ruling.blocks:
        response = _rejection(traffic, flow, connection, admission)
    else:
        response = bad_request(flow, connection, http_request.ambiguity(flow.request))
    if flow.request.method == "PRI":  # the preface of HTTP/2 where HTTP/1 is spoken: it can't be answered
        flow.kill()
    elif flow.error is None:
        answer(flow, connection, response)


def _rejection(traffic: Traffic, flow: HTTPFlow, connection: ClientConnection, admission: Admission) -> Response:
    """Record what could be read in two ways. A page says why, but not under a ban: 451 would be for another reading."""
    if admission.ruling.decision.is_unreadable:
        return _refusal(traffic, flow, connection, admission)
    admission.record(traffic.enforcer, BAD_REQUEST)
    return bad_request(flow, connection, http_request.ambiguity(flow.request))


def _answer_to_request(
    traffic: Traffic, flow: HTTPFlow, connection: ClientConnection, admission: Admission
) -> Response:
    """The page of the refusal, with the request for an exception that is kept now, or why none is."""
    ruling, headers = admission.ruling, flow.request.headers
    asking = asking_of(traffic, connection, ruling)
    found = received(traffic, flow, connection, ruling, asking)
    if found is None or isinstance(found, str):
        return _refusal(traffic, flow, connection, admission, asking and replace(asking, problem=found))
    asking = asking_of(traffic, connection, ruling)
    notice = notice_of(ruling, implementer=f"dns:{traffic.context.hostname}", opened=connection.opened)
    notice = replace(notice, event=found["refusal"], asking=asking)
    page = render.compose(notice, accept=headers.get("accept"), accept_language=headers.get("accept-language"))
    return Response.make(HTTPStatus.ACCEPTED, page.body, dict(page.headers))


def _refusal(
    traffic: Traffic, flow: HTTPFlow, connection: ClientConnection, admission: Admission, asking: Asking | None = None
) -> Response:
    """Record a blocked request; the page that answers it, with the form to ask for an exception."""
    ruling = admission.ruling
    contact = render.href_of(ruling.ban.contact) if ruling.ban is not None else None
    implementer = contact or f"dns:{traffic.context.hostname}"
    notice = replace(notice_of(ruling, implementer=implementer, opened=connection.opened), asking=asking)
    stamp = admission.record(traffic.enforcer, notice.status)
    languages = flow.request.headers.get("accept-language")
    kind = flow.request.headers.get("accept", "text/plain" if admission.stage is Stage.CONNECT else None)
    page = _page(notice, choose_format(kind), choose_language(languages, notice.language))
    headers = {name: value.replace(_EVENT, stamp.id) for name, value in page.headers.items()}
    body = page.body.replace(_EVENT.encode(), stamp.id.encode())
    if asking is not None:
        button = button_of(flow, connection, ruling, stamp.id)
        body = body.replace(TOKEN.encode(), button.token(traffic.enforcer.warned.token_key, ruling.at).encode())
    return Response.make(page.status, body, headers)


@lru_cache(maxsize=256)
def _page(notice: Notice, accept: str, language: str) -> RenderedResponse:
    """Pages that say the same are made once."""
    return render.compose(replace(notice, event=_EVENT), accept=accept, accept_language=language)
