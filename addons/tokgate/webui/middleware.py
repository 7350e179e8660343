"""Checks on every request: the Host header, the site that it comes from (Fetch Metadata), and its user."""

import ipaddress
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokgate.webui.auth import Authenticator, IPNetwork, client_address

OPEN: Final = ("/static/", "/sign-in", "/enter")
"""Path prefixes that need no user."""
WRITES: Final = ("/sign-in", "/sign-out")
"""The paths that accept POST."""
POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # `no-referrer` would make the sign-in form's Origin null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}
_HERE: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class AuthMiddleware:
    """Passes a request on to the pages, with `viewer` and `client` in its state, or answers it."""

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        *,
        hosts: Collection[str],
        cookie: str,
        proxies: Sequence[IPNetwork] = (),
    ) -> None:
        """`hosts` are the names, with or without a port, that are served besides loopback's.

        `proxies` are the addresses whose X-Forwarded-For is believed.
        """
        self._app: Final = app
        self._authenticator: Final = authenticator
        self._hosts: Final = _HERE | {host.lower() for host in hosts}
        self._cookie: Final = cookie
        self._proxies: Final = tuple(proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":  # no web sockets here
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = _only(headers, "host").lower()
        name, _, port = host.rpartition(":")
        # DNS rebinding: a name of somebody else that resolves to this server.
        if self._hosts.isdisjoint((host, name if port.isdigit() else host)):
            return PlainTextResponse("This page is not served under that name.\n", 421)
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "HEAD") and not (method == "POST" and path in WRITES):
            return PlainTextResponse("This page only reads.\n", 405, {"Allow": "GET, HEAD"})
        if not _from_here(headers, method, host):
            return PlainTextResponse("Another site asked for this.\n", 403)
        peer = scope["client"][0] if scope.get("client") else ""
        viewer = self._authenticator.viewer(peer, headers, HTTPConnection(scope).cookies.get(self._cookie))
        client = client_address(peer, headers.getlist("x-forwarded-for"), self._proxies)
        scope.setdefault("state", {}).update(viewer=viewer, client=client)
        if viewer is None and not path.startswith(OPEN):
            return self._closed(scope)
        return None

    def _closed(self, scope: Scope) -> Response:
        if not self._authenticator.has_sessions:
            return PlainTextResponse("The proxy in front has to say who you are.\n", 403)
        if scope["method"] == "POST":  # to go back there after signing in would be a GET
            return RedirectResponse("/sign-in", 303)
        query = scope["query_string"].decode("latin-1")
        target = quote(scope["path"], safe="/") + (f"?{query}" if query else "")
        return RedirectResponse(f"/sign-in?next={quote(target, safe='')}", 303)


def _only(headers: Headers, name: str) -> str:
    """The value of a header that occurs once, else an empty string."""
    values = headers.getlist(name)
    return values[0] if len(values) == 1 else ""


def _from_here(headers: Headers, method: str, host: str) -> bool:
    """Whether a request comes from our own pages, or from a person who followed a link or typed the address.

    https://web.dev/articles/fetch-metadata; a browser too old to say is judged by its Origin alone.
    """
    site = _only(headers, "sec-fetch-site") or "none"
    origin = _only(headers, "origin")
    if method == "POST":
        return site in ("same-origin", "none") and urlsplit(origin).netloc.lower() == host
    if origin and urlsplit(origin).netloc.lower() != host:
        return False
    followed = _only(headers, "sec-fetch-mode") == "navigate" and _only(headers, "sec-fetch-dest") == "document"
    return site in ("same-origin", "none") or followed


def is_loopback(host: str) -> bool:
    """Whether a listening address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
