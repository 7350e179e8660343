"""Renders refusals and warnings: HTML for browsers, problem details (RFC 9457) for programs, text for terminals."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header
from whenever import Instant

from tokgate.block_page.continue_form import PATH, REQUEST_PATH
from tokgate.block_page.language import MAX_HEADER, TEXTS, Texts, choose_language
from tokgate.block_page.notice import Asking, Notice, Warned
from tokgate.blocklog.records.record import clean
from tokgate.blocklog.records.requests import RequestState
from tokgate.policy.values.text import readable, readable_lines
from tokgate.traffic.exception_requests import MAX_WHY

TYPE: Final = "https://www.rfc-editor.org/rfc/rfc7725"
MAX_ASKED: Final = 253
MAX_DETAIL: Final = 200
MAX_EARLIER: Final = 5
"""Most earlier terms of a measure that are told."""

_EMAIL: Final = re.compile(r"[A-Za-z0-9.!#$&'*+/=^_`{|}~-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]+")


def _readable(value: Any) -> Any:
    return readable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_templates: Final = Environment(
    loader=PackageLoader("tokgate.block_page", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_readable,
    trim_blocks=True,
    lstrip_blocks=True,
)
_template: Final = _templates.get_template("page.html")
_style: Final = _templates.get_template("page.css").render()
_style_hash: Final = base64.b64encode(hashlib.sha256(_style.encode()).digest()).decode("ascii")


def _policy_for_content(form_action: str) -> str:
    return (
        f"default-src 'none'; style-src 'sha256-{_style_hash}'; "
        f"base-uri 'none'; form-action {form_action}; frame-ancestors 'none'"
    )


SECURITY_HEADERS: Final = {
    "Content-Security-Policy": _policy_for_content("'none'"),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
FORM_HEADERS: Final = {
    # Chromium holds the redirects that follow a form to it, too: the site may send people on to others.
    "Content-Security-Policy": _policy_for_content("'self' http: https:"),
    "Referrer-Policy": "same-origin",  # with no-referrer the form would come from the origin `null`
}
_ASKING_HEADERS: Final = FORM_HEADERS | {"Content-Security-Policy": _policy_for_content("'self'")}


class Format(StrEnum):
    """The media types in which the block page can be written."""

    HTML = "text/html"
    PROBLEM = "application/problem+json"
    JSON = "application/json"
    TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class RenderedResponse:
    """A complete response; for HEAD its body is left out by the sender."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact with its label; `href` where it leads somewhere."""

    label: str
    value: str
    href: str | None = None
    note: str | None = None
    instant: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A request or an answer that can't be passed on, without any ban."""

    kind: str
    """`client` where the request is at fault; `unreachable`; `answer`."""
    status: int
    detail: str
    """What was wrong, in English and in a line."""
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """What a page says, in one language, as HTML and as text. `why` explains in place of a ban."""

    status: str
    title: str
    lead: str
    why: str | None = None
    description: str | None = None
    rows: tuple[Fact, ...]
    choice: tuple[str, ...] = ()
    button: str | None = None
    form: Warned | None = None
    asking: Asking | None = None
    state: tuple[str, ...] = ()
    """What became of a request for an exception."""
    offered: tuple[tuple[str, str], ...] = ()
    """For how long people may ask: in ISO 8601, and in words."""
    closing: tuple[str, ...] = ()
    """What was sent to the website, and what is opened."""


def compose(notice: Notice, *, accept: str | None, accept_language: str | None) -> RenderedResponse:
    """The response in the language and format that the client likes best."""
    texts = TEXTS[choose_language(accept_language, notice.language)]
    page = _page_of(notice, texts)
    headers = {"Vary": "Accept, Accept-Language"}
    if notice.warning is None:
        headers["Link"] = f'<{link_target(notice.implementer)}>; rel="blocked-by"'
    else:
        headers |= FORM_HEADERS
    if page.offered:
        headers |= _ASKING_HEADERS
    if notice.ban is not None:
        headers["Tokgate-Ban"] = re.sub(r"[^!-~]", "-", notice.ban.name)[:128]  # safe as a header's value
    return _response(notice.status, page, _problem(notice, page, texts), notice.event, headers, accept, texts)


def compose_failure(failure: Failure, *, accept: str | None, accept_language: str | None) -> RenderedResponse:
    """The response to what can't be passed on, in the language and format that the client likes best."""
    texts = TEXTS[choose_language(accept_language)]
    labels, detail, event = texts["failure"], clean(failure.detail, MAX_DETAIL), failure.reference
    said = labels[failure.kind]
    rows = Fact(labels["detail"], detail), Fact(labels["event"], event, note=labels["event_note"])
    page = _Page(status=f"HTTP {failure.status}", title=said["title"], lead=said["lead"], rows=rows)
    problem = {"type": "about:blank", "title": page.title, "status": failure.status, "detail": detail, "event": event}
    return _response(failure.status, page, problem, event, {}, accept, texts)


def _response(
    status: int,
    page: _Page,
    problem: dict[str, Any],
    event: str,
    headers: dict[str, str],
    accept: str | None,
    texts: Texts,
) -> RenderedResponse:
    kind = choose_format(accept)
    if kind is Format.HTML:
        paths = {"path": PATH, "request_path": REQUEST_PATH}
        body = _template.render(texts=texts, page=page, style=_style, longest=MAX_WHY, **paths)
    elif kind is Format.TEXT:
        lines = [page.title, "", page.lead, ""]
        if page.why is not None:
            lines += [page.why, ""]
        lines += [f"{row.label}: {readable(row.value)}" for row in page.rows]
        lines += (["", *page.state] if page.state else []) + ([texts["request"]["browser"]] if page.offered else [])
        body = "\n".join([*lines, *(("", *page.closing) if page.closing else ()), ""])
    else:
        body = json.dumps(problem, ensure_ascii=False, indent=2) + "\n"
    headers = {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Language": texts["language"],
        "Cache-Control": "no-store",
        "Tokgate-Event": event,
        **SECURITY_HEADERS,
        **headers,
    }
    return RenderedResponse(status, headers, body.encode())


def choose_format(accept: str | None) -> Format:
    """The preferred media type by q-values (RFC 9110 §12.5.1); HTML for `*/*`."""
    accepted = parse_accept_header((accept or "")[:MAX_HEADER], MIMEAccept)
    return Format(accepted.best_match(tuple(Format), Format.HTML))


def link_target(uri: str) -> str:
    """A URI that can stand between angle brackets in a Link field (RFC 8288), whatever it was."""
    return uri if _URI.fullmatch(uri) else quote(uri, safe=":/?#[]@!$&'()*+,;=%~")


def href_of(text: str | None) -> str | None:
    """Where a reference or contact leads: only to the web or to a mailbox, never to another scheme."""
    if text is None:
        return None
    if _EMAIL.fullmatch(text):
        return f"mailto:{text}"
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    return text if parts.scheme in ("http", "https") and parts.netloc else None


def _page_of(notice: Notice, texts: Texts) -> _Page:
    why = texts["without_ban"].get(notice.reason.value)
    if why is None and notice.ban is None:
        why = texts["without_ban"]["other"]
    opened = (texts["inspected"],) * notice.inspected + (texts["opened"],) * notice.opened
    asked, refused = clean(notice.asked, MAX_ASKED), f"{texts['refused']} (HTTP {notice.status})"
    page = _Page(
        status=refused,
        title=texts["title"].format(what=notice.service or texts["this_address"]),
        lead=texts["lead"].format(what=asked),
        why=why,
        description=_said(notice, "description", texts),
        rows=tuple(_rows(notice, texts)),
        closing=(texts["nothing_else"], *opened),
    )
    if notice.unreadable:
        said = texts["unreadable"]
        return replace(page, title=said["title"], lead=said["lead"], closing=(said["nothing_sent"], *opened))
    if notice.asking is not None:
        return replace(page, **_asking(notice.asking, notice.zone, texts))
    if notice.warning is None:
        return page
    said, what = texts["warning"], notice.service or asked
    holds = said["holds_less" if notice.warning.shortened else "holds"]
    moment = texts.local_moment(notice.warning.until, notice.zone)
    return replace(
        page,
        status=said["warned"],
        title=said["title"].format(what=what),
        lead=said["lead"].format(what=what),
        choice=(holds.format(lasting=texts.lasting(notice.warning.lasting), moment=moment), said["recorded"]),
        button=said["button"].format(what=what),
        form=notice.warning,
        closing=(said["nothing_yet"], *opened),
    )


def _asking(asking: Asking, zone: str, texts: Texts) -> dict[str, Any]:
    """The parts of a page about asking for an exception: no form while a request waits or holds."""
    said, state, last = texts["request"], list[str](), asking.last
    if asking.problem is not None:
        state.append(said["problems"][asking.problem])
    if last is not None:
        until = "" if last.until is None else texts.local_moment(last.until, zone)
        state.append(said[last.state].format(moment=texts.local_moment(last.at, zone), until=until))
        state += [last.reason] if last.reason else []
        state.append(f"{said['reference']}: {last.id}")
    again = last is None or last.state is RequestState.DECLINED
    offered = [(each.format_iso(), texts.lasting(each)) for each in asking.offered if again]
    return {"asking": asking, "state": tuple(state), "offered": tuple(offered)}


def _rows(notice: Notice, texts: Texts) -> Iterator[Fact]:
    """The facts in the order in which people ask for them."""
    if not notice.unreadable:
        yield Fact(texts["asked"], clean(notice.asked, MAX_ASKED))
    if notice.service is not None:
        yield Fact(texts["service"], notice.service)
    if notice.ban is not None:
        yield Fact(texts["ban"], _said(notice, "title", texts) or "")
        for key in ("reason", "authority", "basis", "reference"):
            if (said := _said(notice, key, texts)) is not None:
                yield Fact(texts[key], said, href_of(said) if key == "reference" else None)
        yield from _times(notice, texts)
    if (contact := _said(notice, "contact", texts)) is not None:
        href = href_of(contact)
        if href is not None and href.startswith("mailto:"):  # with the reference for a subject
            href += f"?subject={quote(f'{texts["event"]}: {notice.event}')}"
        yield Fact(texts["contact"], contact, href)
    label = texts["event"] if notice.warning is None else texts["warning"]["event"]
    yield Fact(label, notice.event, note=texts["event_note"])


def _times(notice: Notice, texts: Texts) -> Iterator[Fact]:
    """From when and until when a ban is in force, and the bans that it extends."""

    def moment(at: Instant) -> str:
        return texts.local_moment(at, notice.zone)

    def end(at: Instant) -> str:
        day = texts.last_day(at, notice.zone)
        return moment(at) if day is None else texts["through"].format(date=day, zone=notice.zone)

    if notice.warning is not None and (begins := notice.warning.blocks_from) is not None:
        yield Fact(texts["warning"]["blocked_from"], moment(begins), instant=begins.format_iso())
    elif notice.since is not None:
        yield Fact(texts["since"], moment(notice.since), instant=notice.since.format_iso())
    for term in notice.earlier[:MAX_EARLIER]:  # its end is where the next one begins
        yield Fact(texts["extends"], f"{term.ban.title}, {end(term.ends)}", instant=term.ends.format_iso())
    if notice.pauses is not None:
        window = texts["window"].format(moment=moment(notice.pauses))
        yield Fact(texts["pauses"], window, instant=notice.pauses.format_iso())
    if notice.until is None:
        yield Fact(texts["until"], texts["lifted"])
    elif notice.overdue:
        day = texts.last_day(notice.until, notice.zone)
        ended = moment(notice.until) if day is None else f"{day} ({notice.zone})"
        yield Fact(texts["until"], texts["overdue"].format(moment=ended))
    else:
        yield Fact(texts["until"], end(notice.until), instant=notice.until.format_iso())


def _problem(notice: Notice, page: _Page, texts: Texts) -> dict[str, Any]:
    """A problem document (RFC 9457) with the facts as members of their own."""
    ban, warning = notice.ban, notice.warning
    return {
        "type": TYPE if notice.status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS else "about:blank",
        "title": page.title,
        "status": notice.status,
        "detail": page.why or page.lead,
        "instance": f"urn:uuid:{notice.event}",
        "language": texts["language"],
        "asked": clean(notice.asked, MAX_ASKED) or None,
        "service": notice.service,
        "ban": ban and ban.name,
        "measure": ban and _said(notice, "title", texts),
        "ban_reason": ban and _said(notice, "reason", texts),
        "authority": ban and ban.authority,
        "basis": ban and ban.basis,
        "reference": ban and ban.reference,
        "contact": _said(notice, "contact", texts),
        "since": notice.since and notice.since.format_iso(),
        "until": notice.until and notice.until.format_iso(),
        "overdue": notice.overdue,
        "extends": [
            {
                "ban": term.ban.name,
                "measure": term.ban.title,
                "basis": term.ban.basis,
                "since": term.starts.format_iso(),
                "until": term.ends.format_iso(),
            }
            for term in notice.earlier[:MAX_EARLIER]
        ],
        "warning": warning is not None,
        "blocks_from": warning and warning.blocks_from and warning.blocks_from.format_iso(),
        "opened": notice.opened,
        "inspected": notice.inspected,
        "zone": notice.zone,
        "reason": notice.reason.value,
        "exception": _exception(notice, page),
        "event": notice.event,
        "blocked_by": None if warning is not None else notice.implementer,
    }


def _exception(notice: Notice, page: _Page) -> dict[str, Any] | None:
    """How to ask for an exception, and what became of the last request."""
    if notice.asking is None:
        return None
    asking, last, may_ask = notice.asking, notice.asking.last, bool(page.offered)
    return {
        "state": last and last.state,
        "request": last and last.id,
        "until": last and last.until and last.until.format_iso(),
        "reason": last and last.reason,
        "problem": asking.problem,
        "path": REQUEST_PATH if may_ask else None,
        "token": asking.token if may_ask else None,
        "lasting": [each.format_iso() for each in asking.offered] if may_ask else [],
    }


def _said(notice: Notice, key: str, texts: Texts) -> str | None:
    """A text of the ban in the page's language, or else in the network's, or as it is stated first."""
    if notice.ban is None:
        return notice.contact if key == "contact" else None
    return notice.ban.said(key, texts["language"], notice.language)
