"""Coming in and going out: the one-time link, the sign-in form, signing out."""

from typing import Final
from urllib.parse import parse_qs

from anyio import Lock, to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from tokgate.review.web.doors import LinkDoor, PasswordDoor
from tokgate.review.web.site import Site

UNKNOWN: Final = "(unknown)"
_MAX_FORM: Final = 8192


class Entrance:
    """The handlers of a site's doors."""

    def __init__(self, site: Site) -> None:
        """One password is compared at a time: whoever tries many waits for each."""
        self._site: Final = site
        self._one: Final = Lock()

    async def enter(self, request: Request) -> Response:
        """The link that `tokgate review` prints. A page, not a redirect, so that the next request is our own site's."""
        door = self._site.door
        if request.method != "GET":  # a HEAD, with which links are probed, would use it up
            return PlainTextResponse("The link is opened by GET.\n", 405, {"Allow": "GET"})
        if "sec-purpose" in request.headers:  # as would a browser that looks ahead
            return PlainTextResponse("Not ahead of time.\n", 503)
        token = door.open(request.query_params.get("token", "")) if isinstance(door, LinkDoor) else None
        if isinstance(door, LinkDoor):
            self._site.register.signed_in(door.user, request.state.peer, right=token is not None)
        if token is None:
            return self._sign_in_page(request, "/", 403, "This link was used already, or is not one of ours.")
        response = self._site.page(request, "entered.html")
        self._give(response, token)
        return response

    async def sign_in_form(self, request: Request) -> Response:
        """Where people without a session come to."""
        return self._sign_in_page(request, request.query_params.get("next", "/"))

    async def sign_in(self, request: Request) -> Response:
        """The form with a name and a password."""
        door = self._site.door
        form = await _form(request)
        if not isinstance(door, PasswordDoor) or form is None:
            return PlainTextResponse("There is nothing to sign in to with that.\n", 400)
        target, peer, user = form.get("next", "/"), request.state.peer, form.get("user", "")
        async with self._one:  # asked here, so that guesses sent at once don't all come before the first has failed
            if door.must_wait(peer, user):
                return self._sign_in_page(request, target, 429, "Too many wrong passwords: wait a few minutes.")
            token = await to_thread.run_sync(door.sign_in, peer, user, form.get("password", ""))
        # A name that nobody has may be a password in the wrong field.
        self._site.register.signed_in(user if door.knows(user) else UNKNOWN, peer, right=token is not None)
        if token is None:
            return self._sign_in_page(request, target, 403, "The name or the password is wrong.")
        response = RedirectResponse(own_path(target), 303)
        self._give(response, token)
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        door = self._site.door
        token = request.cookies.get(self._site.cookie)
        if token is not None and isinstance(door, LinkDoor | PasswordDoor):
            door.leave(token)
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(self._site.cookie, path="/", secure=self._site.secure, httponly=True, samesite="strict")
        return response

    def _sign_in_page(self, request: Request, target: str, status: int = 200, problem: str = "") -> Response:
        passwords = isinstance(self._site.door, PasswordDoor)
        return self._site.page(
            request, "sign_in.html", status, target=own_path(target), problem=problem, passwords=passwords
        )

    def _give(self, response: Response, token: str) -> None:
        response.set_cookie(
            self._site.cookie, token, path="/", secure=self._site.secure, httponly=True, samesite="strict"
        )


def own_path(target: str) -> str:
    """A path of this site, whatever somebody wrote into a link."""
    fine = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if fine and "\\" not in target else "/"


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a small form; None for anything else."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        return None
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            return None
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        return None
    return {key: values[0] for key, values in fields.items()}
