"""Views for signing in and out: the one-time link, the sign-in form, the end of a session."""

from functools import partial
from typing import Final
from urllib.parse import parse_qs

from anyio import Lock, sleep, to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from tokgate.webui.auth import SLOW_SECONDS, LinkAuthenticator, PasswordAuthenticator, site_of
from tokgate.webui.context import Site

UNKNOWN: Final = "(unknown)"
_MAX_FORM: Final = 8192
_TOO_MANY: Final = "Too many wrong passwords for this name from your address: try again in a few seconds."


class SignInViews:
    """Request handlers for signing in and out of a site."""

    def __init__(self, site: Site) -> None:
        """Passwords are compared one at a time: a client that sends many waits for each."""
        self._site: Final = site
        self._one: Final = Lock()
        self._waiting: Final[set[tuple[str, str]]] = set()

    async def enter(self, request: Request) -> Response:
        """`GET /enter?token=…`, the link that `tokgate review` prints.

        The response is a page, not a redirect: the request that follows it is then of the same site, so that a
        `SameSite=Strict` cookie is sent with it.
        """
        authenticator = self._site.authenticator
        if request.method != "GET":  # a HEAD request, with which links are checked, would use it up
            return PlainTextResponse("The link is opened by GET.\n", 405, {"Allow": "GET"})
        if "sec-purpose" in request.headers:  # a prefetch would, too
            return PlainTextResponse("Not ahead of time.\n", 503)
        token = None
        if isinstance(authenticator, LinkAuthenticator):
            token = authenticator.open(request.query_params.get("token", ""))
            self._site.audit_log.signed_in(authenticator.user, request.state.client, right=token is not None)
        if token is None:
            return self._sign_in_page(request, "/", 403, "This link was used already, or is not one of ours.")
        response = self._site.page(request, "entered.html")
        self._give(response, token)
        return response

    async def sign_in_form(self, request: Request) -> Response:
        """`GET /sign-in`: where requests without a session are redirected."""
        return self._sign_in_page(request, request.query_params.get("next", "/"))

    async def sign_in(self, request: Request) -> Response:
        """`POST /sign-in` with the form's `user`, `password` and `next`."""
        authenticator = self._site.authenticator
        form = await _form(request)
        if not isinstance(authenticator, PasswordAuthenticator) or form is None:
            return PlainTextResponse("There is nothing to sign in to with that.\n", 400)
        target, client, user = form.get("next", "/"), request.state.client, form.get("user", "")
        check = partial(authenticator.sign_in, client, user, form.get("password", ""))
        async with self._one:  # asked here, so that guesses sent at once don't all come before the first has failed
            is_slowed = authenticator.is_slowed(client, user)
            token = None if is_slowed else await to_thread.run_sync(check)
        if is_slowed:
            if (key := (site_of(client), user)) in self._waiting:
                return self._sign_in_page(request, target, 429, _TOO_MANY)
            self._waiting.add(key)
            try:
                await sleep(SLOW_SECONDS)
                async with self._one:
                    token = await to_thread.run_sync(check)
            finally:
                self._waiting.discard(key)
        # A name that nobody has may be a password in the wrong field.
        self._site.audit_log.signed_in(user if authenticator.knows(user) else UNKNOWN, client, right=token is not None)
        if token is None:
            return self._sign_in_page(request, target, 403, "The name or the password is wrong.")
        response = RedirectResponse(own_path(target), 303)
        self._give(response, token)
        return response

    async def sign_out(self, request: Request) -> Response:
        """`POST /sign-out`: end the session, delete the cookie."""
        if (token := request.cookies.get(self._site.cookie)) is not None:
            self._site.authenticator.leave(token)
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(self._site.cookie, path="/", secure=self._site.secure, httponly=True, samesite="strict")
        return response

    def _sign_in_page(self, request: Request, target: str, status: int = 200, problem: str = "") -> Response:
        passwords = isinstance(self._site.authenticator, PasswordAuthenticator)
        return self._site.page(
            request, "sign_in.html", status, target=own_path(target), problem=problem, passwords=passwords
        )

    def _give(self, response: Response, token: str) -> None:
        response.set_cookie(
            self._site.cookie, token, path="/", secure=self._site.secure, httponly=True, samesite="strict"
        )


def own_path(target: str) -> str:
    """`target` if it is a path of this site, else `/`: a link must not redirect to another site."""
    fine = target.startswith("/") and not target.startswith("//") and "\\" not in target and target.isprintable()
    return target if fine else "/"


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
        fields = parse_qs(body.decode("ascii"), max_num_fields=8)
    except ValueError:
        return None
    return {key: values[0] for key, values in fields.items()}
