"""The review page as an ASGI application, and the server that runs it on one listening socket."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tokgate.accounts import AccountsError
from tokgate.analytics.sql import LogError
from tokgate.runtime.http_server import configured
from tokgate.webui.audit_log import NotRecorded
from tokgate.webui.auth import IPNetwork, LinkAuthenticator
from tokgate.webui.context import STATIC, Site, static
from tokgate.webui.live_view import Live
from tokgate.webui.middleware import AuthMiddleware
from tokgate.webui.sign_in import SignInViews
from tokgate.webui.views import EventPage, Pages

_TURN_SECONDS: Final = 1.0
_RENEW_SECONDS: Final = 10.0


def build(
    site: Site, *, hosts: Collection[str], clock: Callable[[], float], proxies: Sequence[IPNetwork] = ()
) -> tuple[ASGIApp, Live]:
    """The application, and its live part, to be closed first. `hosts` are served besides loopback's names.

    `proxies` are the addresses whose X-Forwarded-For is believed.
    """
    pages, event, sign_in, live = Pages(site), EventPage(site), SignInViews(site), Live(site, clock)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_read_ahead(site)), asyncio.create_task(_renew(site))]
        try:
            yield
        finally:
            live.close()
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    app = Starlette(
        routes=[
            Route("/", pages.overview),
            Route("/lines", pages.lines),
            Route("/table", pages.table),
            Route("/requests", pages.requests),
            Route("/lines.csv", pages.lines_csv),
            Route("/counts.csv", pages.counts_csv),
            Route("/event/{event:uuid}", event.show),
            Route("/event/{event:uuid}/proof.json", event.proof),
            Route("/live", live.page),
            Route("/live/stream", live.stream),
            Route("/enter", sign_in.enter),
            Route("/sign-in", sign_in.sign_in_form, methods=["GET"]),
            Route("/sign-in", sign_in.sign_in, methods=["POST"]),
            Route("/sign-out", sign_in.sign_out, methods=["POST"]),
            Route("/static/{name}", _static),
        ],
        exception_handlers={
            LogError: _explain(site, 503, "The log can't be read"),
            OSError: _explain(site, 503, "The log can't be read"),
            AccountsError: _explain(site, 503, "Nobody can sign in"),
            NotRecorded: _explain(site, 503, "Nothing is shown"),
            HTTPException: _not_found(site),
            Exception: _explain(site, 500, "An internal error; its trace is on stderr"),
        },
        lifespan=lifespan,
    )
    return AuthMiddleware(app, site.authenticator, hosts=hosts, cookie=site.cookie, proxies=proxies), live


async def _read_ahead(site: Site) -> None:
    """Read the log from the start of the server, so that the first query need not wait for all of it."""
    while True:
        try:
            state = await site.cache.catch_up(_TURN_SECONDS)
        except (OSError, LogError):  # the next request shows the error
            return
        if not state.waiting:
            return


async def _renew(site: Site) -> None:
    """A new link when the session of the last one has ended."""
    while isinstance(site.authenticator, LinkAuthenticator):
        site.authenticator.renew()
        await asyncio.sleep(_RENEW_SECONDS)


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    try:
        content = static(name)
    except KeyError:
        raise HTTPException(404) from None
    return Response(content, media_type=STATIC[name], headers={"Cache-Control": "private, max-age=31536000, immutable"})


def _explain(site: Site, status: int, title: str) -> Callable[[Request, Exception], Response]:
    def handler(request: Request, error: Exception) -> Response:
        return site.page(request, "problem.html", status, title=title, problem=str(error))

    return handler


def _not_found(site: Site) -> Callable[[Request, Exception], Response]:
    def handler(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        title = "There is no such page" if status == HTTPStatus.NOT_FOUND else f"Error {status}"
        return site.page(request, "problem.html", status, title=title, problem="Begin again at the overview.")

    return handler


CONNECTIONS: Final = 512
"""Fifty people's browsers, of which each opens up to six, and those who follow the log live."""


class _Server(uvicorn.Server):
    """Ends event streams before the shutdown, which would wait for them."""

    def __init__(self, config: uvicorn.Config, close_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._close_streams: Final = close_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._close_streams()
        await super().shutdown(sockets)


def server(
    app: ASGIApp, close_streams: Callable[[], None], certificate: Path | None = None, key: Path | None = None
) -> uvicorn.Server:
    """A server for `app`, with TLS if there is a certificate; `close_streams` is called before the shutdown."""
    return _Server(configured(app, CONNECTIONS, certificate=certificate, key=key), close_streams)


def serve(made: uvicorn.Server, listener: socket.socket) -> None:
    """Answer on the listener until SIGINT or SIGTERM, then end in order."""
    # The server raises a signal again when it has ended: as an exception it lets everything else end, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):  # the way to end it
        made.run(sockets=[listener])
