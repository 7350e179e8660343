"""Requests under a ban that warns with a page: which get the page, which pass, and what the page's button does."""

from dataclasses import replace
from typing import Final

from mitmproxy.http import HTTPFlow, Request, Response

from tokgate.block_page import render
from tokgate.block_page.continue_form import Button, presses_button, read_form, target_of
from tokgate.block_page.notice import notice_of, track_of, warned_of
from tokgate.mitm import http_request
from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.http_request import from_a_browser, is_navigation, is_own_form
from tokgate.policy.analysis.terms import continued_until
from tokgate.policy.observation import Passed
from tokgate.policy.snapshot import Track
from tokgate.traffic.admission import Admission
from tokgate.traffic.enforcer import Enforcer, Ruling
from tokgate.traffic.warning_state import Person

_PRESSED: Final = "tokgate.pressed"
"""Under this key of a flow's metadata waits what was decided, until the form has come."""


STRIKES: Final = 3
"""Connections in a row that end without a request, after which it is no accident."""
MAX_KNOWN: Final = 4096
_INTERRUPTED: Final = ("The client disconnected", "connection closed early")
"""How mitmproxy begins its words for a handshake that ended without a reason given."""


class Warnings:
    """One proxy's part in warnings. What is to be known elsewhere is in the enforcer's `warned`."""

    def __init__(self) -> None:
        self._strikes: Final[dict[tuple[str, bytes], int]] = {}
        """Connections in a row, of clients and their software, that were opened and ended without a request.

        Some clients reject a certificate with an alert, others (apps that know which one to expect) by closing.
        """

    def passed(self, enforcer: Enforcer, flow: HTTPFlow, connection: ClientConnection, ruling: Ruling) -> Passed | None:
        """Why a request passes; None if it is to be answered here: with the page, or because the button was pressed."""
        request = flow.request
        if connection.software is not None:
            self._strikes.pop((connection.client.ip, connection.software), None)
        if presses_button(request.method, request.path):
            return None
        if _has_continued(enforcer, connection, ruling):
            connection.closes_next = connection.opened and from_a_browser(request)
            return None if _may_come_again(connection, request) else Passed.CONTINUED
        if is_navigation(request):
            return None
        if connection.software is not None and not from_a_browser(request):
            connection.closes_next = (
                not request.is_http2
            )  # some programs take GOAWAY for the end of all they have begun
            self._give_up(enforcer, connection)
            return Passed.NO_PAGE
        return Passed.NO_NAVIGATION

    def answer(
        self, enforcer: Enforcer, flow: HTTPFlow, connection: ClientConnection, admission: Admission
    ) -> Response | None:
        """The page; None where the form of the button has to be awaited, for `pressed`."""
        request = flow.request
        if presses_button(request.method, request.path) and http_request.answerable(request):
            flow.metadata[_PRESSED] = admission
            return None
        if _has_continued(enforcer, connection, admission.ruling) and _may_come_again(connection, request):
            return _redirection(307, flow, request.path)
        return self._page(enforcer, flow, connection, admission, target_of(request.path))

    def pressed(self, enforcer: Enforcer, flow: HTTPFlow, connection: ClientConnection) -> Response | None:
        """The answer to a button whose form has come whole; None to everything else."""
        admission: Admission | None = flow.metadata.pop(_PRESSED, None)
        if admission is None:
            return None
        request, ruling = flow.request, admission.ruling
        (token, target), authority = read_form(request.raw_content), authority_of(flow)
        button = Button(person_at(connection), _ban(ruling), authority, target)
        genuine = button.made(token, enforcer.warned.token_key, ruling.at)
        if not genuine or not is_own_form(request, authority):
            return self._page(enforcer, flow, connection, admission, target)
        if not _has_continued(enforcer, connection, ruling):
            self._continue(enforcer, connection, admission)
        connection.closes_next = True
        return _redirection(303, flow, target)

    def rejected(self, enforcer: Enforcer, connection: ClientConnection, error: str | None) -> None:
        """The handshake of a connection that was opened failed."""
        if error is not None and not error.startswith(_INTERRUPTED):
            self._give_up(enforcer, connection)
        else:
            self.left(enforcer, connection)
        connection.software = None  # its end has been counted

    def left(self, enforcer: Enforcer, connection: ClientConnection) -> None:
        """A client went. Without a request, and too often so, it does not accept the certificate."""
        if connection.asked or connection.software is None:
            return
        who = (connection.client.ip, connection.software)
        count = self._strikes.pop(who, 0) + 1
        if count >= STRIKES:
            self._give_up(enforcer, connection)
            return
        if len(self._strikes) >= MAX_KNOWN:
            del self._strikes[next(iter(self._strikes))]
        self._strikes[who] = count

    def _give_up(self, enforcer: Enforcer, connection: ClientConnection) -> None:
        """Show this software of this client no page for a while: what it connects to passes unopened."""
        if connection.software is None:
            return
        try:
            enforcer.warned.has_no_page(connection.client.ip, connection.software, enforcer.now())
        except OSError as error:
            enforcer.failed("warned", error)

    def _continue(self, enforcer: Enforcer, connection: ClientConnection, admission: Admission) -> None:
        ruling = admission.ruling
        until = continued_until(_track(ruling), ruling.at)
        try:
            enforcer.warned.continues(person_at(connection), _ban(ruling), until)
        except OSError as error:  # it holds in this process; the others will show the page again
            enforcer.failed("warned", error)
        enforcer.tell(ruling, replace(admission.observe(303), continued_until=until))

    def _page(
        self, enforcer: Enforcer, flow: HTTPFlow, connection: ClientConnection, admission: Admission, target: str
    ) -> Response:
        request, ruling = flow.request, admission.ruling
        button = Button(person_at(connection), _ban(ruling), authority_of(flow), target)
        token = button.token(enforcer.warned.token_key, ruling.at)
        notice = replace(
            notice_of(ruling, implementer="", opened=connection.opened),
            warning=warned_of(_track(ruling), ruling.at, button, token),
        )
        stamp = admission.record(enforcer, notice.status)
        accept, languages = request.headers.get("accept"), request.headers.get("accept-language")
        answer = render.compose(replace(notice, event=stamp.id), accept=accept, accept_language=languages)
        return Response.make(answer.status, answer.body, dict(answer.headers))


def person_at(connection: ClientConnection) -> Person:
    """Who is refused or warned."""
    return Person.at(connection.client.ip, connection.identity)


def _ban(ruling: Ruling) -> str:
    return ruling.decision.ban or ""


def _has_continued(enforcer: Enforcer, connection: ClientConnection, ruling: Ruling) -> bool:
    longest = _track(ruling).ban.continue_for
    return enforcer.warned.passed(person_at(connection), _ban(ruling), ruling.at, longest=longest) is not None


def _may_come_again(connection: ClientConnection, request: Request) -> bool:
    """Whether a page is asked for on a connection that was opened before its client continued, and kept in reserve.

    Browsers keep some. Sent to the same address again, they come by a new connection, which is not opened.
    """
    return connection.opened and is_navigation(request) and target_of(request.path) == request.path


def _redirection(status: int, flow: HTTPFlow, target: str) -> Response:
    location = f"{flow.request.scheme}://{authority_of(flow)}{target}"
    return Response.make(status, b"", {"Location": location, "Cache-Control": "no-store"})


def authority_of(flow: HTTPFlow) -> str:
    """The host and port that the browser shows."""
    return next(iter(http_request.authorities(flow.request)), flow.request.data.host)


def _track(ruling: Ruling) -> Track:
    track = track_of(ruling)
    if track is None:
        raise ValueError(f"{ruling.decision.ban} does not concern {ruling.decision.network}")
    return track
