"""The review page as an ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tokgate.review.sources import LogError
from tokgate.review.web.doors import LinkDoor
from tokgate.review.web.entrance import Entrance
from tokgate.review.web.guard import Guard
from tokgate.review.web.live import Live
from tokgate.review.web.pages import Pages
from tokgate.review.web.register import NotRecorded
from tokgate.review.web.site import STATIC, Site, static

_TURN_SECONDS: Final = 1.0
_RENEW_SECONDS: Final = 10.0


def build(site: Site, *, hosts: Collection[str], clock: Callable[[], float]) -> tuple[ASGIApp, Live]:
    """The application for these hosts besides loopback's names; and its live part, to be closed before it."""
    pages, entrance, live = Pages(site), Entrance(site), Live(site, clock)

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
            Route("/lines.csv", pages.lines_csv),
            Route("/counts.csv", pages.counts_csv),
            Route("/event/{event:uuid}", pages.event),
            Route("/live", live.page),
            Route("/live/stream", live.stream),
            Route("/enter", entrance.enter),
            Route("/sign-in", entrance.sign_in_form, methods=["GET"]),
            Route("/sign-in", entrance.sign_in, methods=["POST"]),
            Route("/sign-out", entrance.sign_out, methods=["POST"]),
            Route("/static/{name}", _static),
        ],
        exception_handlers={
            LogError: _explain(site, 503, "The log can't be read"),
            OSError: _explain(site, 503, "The log can't be read"),
            NotRecorded: _explain(site, 503, "Nothing is shown"),
            HTTPException: _not_found(site),
            Exception: _explain(site, 500, "An internal error; its trace is on stderr"),
        },
        lifespan=lifespan,
    )
    return Guard(app, site.door, hosts=hosts, cookie=site.cookie), live


async def _read_ahead(site: Site) -> None:
    """Read the log from the start of the server, so that the first look need not wait for all of it."""
    while True:
        try:
            state = await site.desk.catch_up(_TURN_SECONDS)
        except (OSError, LogError):  # whoever looks is told
            return
        if not state.waiting:
            return


async def _renew(site: Site) -> None:
    """A new link when the session of the last one has ended."""
    while isinstance(site.door, LinkDoor):
        site.door.renew()
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
        title = "There is no such page" if status == 404 else f"Error {status}"
        return site.page(request, "problem.html", status, title=title, problem="Begin again at the overview.")

    return handler
