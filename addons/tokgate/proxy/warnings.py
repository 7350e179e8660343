"""Requests under a ban that warns with a page: which get the page, which pass, and what the page's button does."""

from dataclasses import replace
from functools import partial
from typing import Final

from mitmproxy.http import HTTPFlow, Request, Response

from tokgate.blocklog.observation import Passed, Stage, Visibility
from tokgate.gate.enforcer import Enforcer, Ruling
from tokgate.gate.warned import Person
from tokgate.policy.continuing import continued_until
from tokgate.policy.decide import Sighting
from tokgate.policy.snapshot import Track
from tokgate.proxy import page, requests
from tokgate.proxy.continuing import Button, presses_button, read_form, target_of
from tokgate.proxy.navigation import from_a_browser, is_navigation, is_own_form
from tokgate.proxy.notice import notice_of, track_of, warned_of
from tokgate.proxy.reluctance import Reluctance
from tokgate.proxy.visit import Visit

_PRESSED: Final = "tokgate.pressed"
"""Under this key of a flow's metadata waits what was decided, until the form has come."""

type Names = tuple[Sighting, ...]


class Warnings:
    """One proxy's part in warnings. What is to be known elsewhere is in the enforcer's `warned`."""

    def __init__(self) -> None:
        self._reluctance: Final = Reluctance()

    def passed(self, enforcer: Enforcer, flow: HTTPFlow, visit: Visit, ruling: Ruling) -> Passed | None:
        """Why a request passes; None if it is to be answered here: with the page, or because the button was pressed."""
        self._reluctance.spoke(visit)
        request = flow.request
        if presses_button(request):
            return None
        if _has_continued(enforcer, visit, ruling):
            visit.leaving = visit.opened and from_a_browser(request)
            return None if _may_come_again(visit, request) else Passed.CONTINUED
        if is_navigation(request):
            return None
        if visit.software is not None and not from_a_browser(request):
            visit.leaving = not request.is_http2  # some programs take GOAWAY for the end of all they have begun
            self._give_up(enforcer, visit)
            return Passed.NO_PAGE
        return Passed.NO_NAVIGATION

    def answer(self, enforcer: Enforcer, flow: HTTPFlow, visit: Visit, names: Names, ruling: Ruling) -> Response | None:
        """The page; None where the form of the button has to be awaited, for `pressed`."""
        request = flow.request
        if presses_button(request) and requests.answerable(request):
            flow.metadata[_PRESSED] = (names, ruling)
            return None
        if _has_continued(enforcer, visit, ruling) and _may_come_again(visit, request):
            return _redirection(307, flow, request.path)
        return self._page(enforcer, flow, visit, names, ruling, target_of(request))

    def pressed(self, enforcer: Enforcer, flow: HTTPFlow, visit: Visit) -> Response | None:
        """The answer to a button whose form has come whole; None to everything else."""
        names, ruling = flow.metadata.pop(_PRESSED, (None, None))
        if ruling is None:
            return None
        request = flow.request
        form, authority = read_form(request.raw_content), _authority(flow)
        button = Button(_who(visit), _ban(ruling), authority, form.target)
        genuine = button.made(form.token, enforcer.warned.token_key, ruling.at)
        if not genuine or not is_own_form(request, authority):
            return self._page(enforcer, flow, visit, names, ruling, form.target)
        if not _has_continued(enforcer, visit, ruling):
            self._continue(enforcer, flow, visit, names, ruling)
        visit.leaving = True
        return _redirection(303, flow, form.target)

    def rejected(self, enforcer: Enforcer, visit: Visit, error: str | None) -> None:
        """The handshake of a connection that was opened failed."""
        if self._reluctance.rejected(visit, error):
            self._give_up(enforcer, visit)
        visit.software = None  # its end has been counted

    def left(self, enforcer: Enforcer, visit: Visit) -> None:
        """A client has gone."""
        if not visit.asked and self._reluctance.left(visit):
            self._give_up(enforcer, visit)

    def _give_up(self, enforcer: Enforcer, visit: Visit) -> None:
        """Show this software of this client no page for a while: what it connects to passes unopened."""
        if visit.software is None:
            return
        try:
            enforcer.warned.has_no_page(visit.client.ip, visit.software, enforcer.now())
        except OSError as error:
            enforcer.failed("warned", error)

    def _continue(self, enforcer: Enforcer, flow: HTTPFlow, visit: Visit, names: Names, ruling: Ruling) -> None:
        until = continued_until(_track(ruling), ruling.at)
        try:
            enforcer.warned.continues(_who(visit), _ban(ruling), until)
        except OSError as error:  # it holds in this process; the others will show the page again
            enforcer.failed("warned", error)
        seen = requests.observe(flow, visit, names, Stage.HTTP, 303)
        enforcer.tell(ruling, replace(seen, continued_until=until))

    def _page(
        self, enforcer: Enforcer, flow: HTTPFlow, visit: Visit, names: Names, ruling: Ruling, target: str
    ) -> Response:
        request = flow.request
        button = Button(_who(visit), _ban(ruling), _authority(flow), target)
        token = button.token(enforcer.warned.token_key, ruling.at)
        notice = replace(
            notice_of(ruling, asked=ruling.judgement.sighting.value, event="", implementer="", opened=visit.opened),
            warning=warned_of(_track(ruling), ruling.at, button, token),
        )
        seen = partial(requests.observe, flow, visit, names, Stage.HTTP, notice.status)
        stamp = enforcer.enter(ruling, Visibility.DECRYPTED, seen)
        accept, tongues = request.headers.get("accept"), request.headers.get("accept-language")
        answer = page.compose(replace(notice, event=stamp.id), accept=accept, accept_language=tongues)
        return Response.make(answer.status, answer.body, dict(answer.headers))


def _who(visit: Visit) -> Person:
    return Person.at(visit.client.ip, visit.identity)


def _ban(ruling: Ruling) -> str:
    return ruling.decision.ban or ""


def _has_continued(enforcer: Enforcer, visit: Visit, ruling: Ruling) -> bool:
    return enforcer.warned.passed(_who(visit), _ban(ruling), ruling.at) is not None


def _may_come_again(visit: Visit, request: Request) -> bool:
    """Whether a page is asked for on a connection that was opened before its client continued, and kept in reserve.

    Browsers keep some. Sent to the same address again, they come by a new connection, which is not opened.
    """
    return visit.opened and is_navigation(request) and target_of(request) == request.path


def _redirection(status: int, flow: HTTPFlow, target: str) -> Response:
    location = f"{flow.request.scheme}://{_authority(flow)}{target}"
    return Response.make(status, b"", {"Location": location, "Cache-Control": "no-store"})


def _authority(flow: HTTPFlow) -> str:
    """The host and port that the browser shows."""
    return next(iter(requests.authorities(flow.request)), flow.request.data.host)


def _track(ruling: Ruling) -> Track:
    track = track_of(ruling)
    if track is None:
        raise ValueError(f"{ruling.decision.ban} does not concern {ruling.decision.network}")
    return track
