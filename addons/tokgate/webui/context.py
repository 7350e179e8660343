"""What the request handlers share: the query cache, authentication, the audit log, policies, words and templates."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final, Protocol

from anyio import CapacityLimiter, to_thread
from jinja2 import pass_context
from jinja2.runtime import Context
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from whenever import Instant

from tokgate.analytics.report.report_data import BanPhases
from tokgate.analytics.report.texts import Language, catalogue_of, environment
from tokgate.analytics.sql import rfc3339
from tokgate.blocklog.read.reader import Line
from tokgate.webui.audit_log import AuditLog
from tokgate.webui.auth import Authenticator
from tokgate.webui.log_query import COLUMNS, FACETS, NOT, About, LogQuery, Problems, as_typed, read
from tokgate.webui.queries import QueryCache, wall_time


@dataclass(frozen=True, slots=True)
class Explanation:
    """The trace of a decision. `notes` name the policy used; `warnings` say why it may differ from the original one."""

    verdict: str | None = None
    said: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    steps: Sequence[Mapping[str, Any]] = ()
    """Numbered: `number`, `title`, `lines` that led to it, and `others` that were considered and do not count."""


@dataclass(frozen=True, slots=True)
class Devices:
    """What the policies know of clients: names by address, and the time zones of all networks."""

    names: Mapping[str, str] = field(default_factory=dict)
    zones: tuple[str, ...] = ()


class Explainer(Protocol):
    """Answers from the policies. Called from threads, one call at a time."""

    def explain(self, line: Line) -> Explanation:
        """Decide again what the line records, by the policy version that the line names if it is available."""

    def lanes(self, start: datetime, end: datetime, bans: frozenset[str]) -> tuple[list[BanPhases], str]:
        """The phases of bans in `[start, end)`, those of `bans` first, and a text that names their source."""

    def now(self) -> tuple[str, ...]:
        """What holds by the current policies, in sentences; none without policies."""

    def devices(self, clients: Collection[str]) -> Devices:
        """What the current policies know of these clients; nothing if there are no policies."""


STATIC: Final = {
    "review.css": "text/css",
    "chart.js": "text/javascript",
    "live.js": "text/javascript",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""All static files by name, with media types: no other file is served."""

CODES: Final[Mapping[str, Mapping[str, str]]] = {
    **catalogue_of(Language.EN).codes,
    **json.loads((files("tokgate.webui") / "locales" / "en.json").read_text("utf-8")),
}
"""The words of the log's codes, by facet."""


def word(facet: str, code: str) -> str:
    """The words for a code of a facet; the code itself where there are none."""
    return CODES.get(facet, {}).get(code, code)


@dataclass(frozen=True, slots=True)
class Site:
    """The dependencies of the request handlers. `cookie` is the session cookie's name, `secure` its attribute."""

    cache: QueryCache
    authenticator: Authenticator
    audit_log: AuditLog
    explainer: Explainer
    cookie: str
    secure: bool
    _in_turn: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))

    async def ask_policies[*S, A](self, question: Callable[[*S], A], *said: *S) -> A:
        """The answer of a method of `explainer`, one call at a time."""
        return await to_thread.run_sync(question, *said, limiter=self._in_turn)

    def record(self, request: Request, page: str, said: Mapping[str, str]) -> None:
        """Record a request in the audit log, before the page is made. Raises NotRecorded."""
        self.audit_log.record(request.state.viewer, request.state.client, page, said)

    def still(self, request: Request) -> bool:
        """Whether a stream of live lines may continue."""
        peer, token = request.client.host if request.client else "", request.cookies.get(self.cookie)
        return self.authenticator.viewer(peer, request.headers, token, awake=False) is not None

    def page(self, request: Request, template: str, status: int = 200, **said: Any) -> Response:
        """Render a template of `templates/` as a response for the signed-in user."""
        viewer = getattr(request.state, "viewer", None)
        return HTMLResponse(
            _templates.get_template(template).render(
                viewer=viewer,
                can_sign_out=self.authenticator.has_sessions,
                state=self.cache.state,
                version_of=version_of,
                typed=request.query_params,
                **said,
            ),
            status,
        )


def query_of(request: Request) -> tuple[LogQuery, Problems]:
    """What a request's query asks for, and what is wrong, by parameter."""
    return read(request.query_params.multi_items(), Instant.now())


@cache
def static(name: str) -> bytes:
    """A file of STATIC. Raises KeyError for any other."""
    if name not in STATIC:
        raise KeyError(name)
    return (files("tokgate.webui") / "static" / name).read_bytes()


@cache
def version_of(name: str) -> str:
    """A digest of a static file, for its URL: browsers may cache the file without limit."""
    return hashlib.sha256(static(name)).hexdigest()[:12]


@pass_context
def _moment(context: Context, at: datetime | None) -> str:
    """An instant as DuckDB returns it, in the zone of the page."""
    if at is None:
        return "–"
    query = context.get("query")
    local = at if query is None else wall_time(Instant(at.replace(tzinfo=UTC)), query.view.zone)
    return local.strftime("%Y-%m-%d %H:%M:%S")


_templates: Final = environment("tokgate.webui")
_templates.filters |= {
    "moment": _moment,
    "iso": rfc3339,
    "typed": lambda at, zone: "" if at is None else as_typed(at, zone),
    "word": lambda code, facet: word(facet, code),
}
_templates.globals |= {
    "FACETS": FACETS, "WORDS": CODES["verdict"], "About": About, "COLUMNS": COLUMNS, "NOT": NOT,
}  # fmt: skip
