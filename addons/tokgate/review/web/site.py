"""What the pages share: the desk that answers, the register of looks, the policies, and how a page is made."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tokgate.review.charts import WORDS
from tokgate.review.tabular import utc
from tokgate.review.templating import environment
from tokgate.review.web.desk import Desk
from tokgate.review.web.doors import Door
from tokgate.review.web.look import FACETS, About, Look, as_typed, read
from tokgate.review.web.register import Register
from tokgate.review.web.trace import Counsel

STATIC: Final = {"review.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
"""Everything that is served from a file, by name: no path leads anywhere else."""


@dataclass(frozen=True, slots=True)
class Site:
    """`secure`: cookies only over TLS."""

    desk: Desk
    door: Door
    register: Register
    counsel: Counsel
    cookie: str
    secure: bool

    def record(self, request: Request, page: str, said: Mapping[str, str]) -> None:
        """Leave the trace of a look, before anything is shown. Raises NotRecorded."""
        self.register.record(request.state.viewer, request.state.peer, page, said)

    def still(self, request: Request) -> bool:
        """Whether whoever began to follow the log may go on."""
        return self.door.still(request.cookies.get(self.cookie))

    def page(self, request: Request, template: str, status: int = 200, **said: Any) -> Response:
        """A page for whoever is signed in."""
        viewer = getattr(request.state, "viewer", None)
        return HTMLResponse(
            _templates.get_template(template).render(
                viewer=viewer, can_sign_out=self.door.has_sessions, state=self.desk.state, version_of=version_of, **said
            ),
            status,
        )


def look_of(request: Request) -> tuple[Look, dict[str, str]]:
    """What a request looks at, and what is wrong with its query."""
    return read(request.query_params.multi_items())


@cache
def static(name: str) -> bytes:
    """A file of STATIC. Raises KeyError for any other."""
    if name not in STATIC:
        raise KeyError(name)
    return (files("tokgate.review.web") / "static" / name).read_bytes()


@cache
def version_of(name: str) -> str:
    """Differs when the file does, so that browsers may keep it."""
    return hashlib.sha256(static(name)).hexdigest()[:12]


def _moment(at: datetime | None) -> str:
    return "–" if at is None else at.strftime("%Y-%m-%d %H:%M:%S")


_templates: Final = environment("tokgate.review.web")
_templates.filters |= {
    "moment": _moment,
    "iso": lambda at: "" if at is None else utc(at),
    "typed": lambda at: "" if at is None else as_typed(at),
}
_templates.globals |= {"FACETS": FACETS, "WORDS": WORDS, "About": About}
