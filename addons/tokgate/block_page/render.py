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

from tokgate.block_page.language import MAX_HEADER, TEXTS, Texts, choose_language
from tokgate.block_page.notice import Notice
from tokgate.blocklog.records.record import clean
from tokgate.policy.analysis.terms import Term
from tokgate.policy.bans import Ban
from tokgate.policy.values.text import readable, readable_lines

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
_page: Final = _templates.get_template("page.html")
_failure: Final = _templates.get_template("failure.html")
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


def compose(notice: Notice, *, accept: str | None, accept_language: str | None) -> RenderedResponse:
    """The response in the language and format that the client likes best."""
    texts, kind = TEXTS[choose_language(accept_language, notice.language)], choose_format(accept)
    headers = {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Language": texts.language,
        "Cache-Control": "no-store",
        "Vary": "Accept, Accept-Language",
        "Tokgate-Event": notice.event,
        **SECURITY_HEADERS,
    }
    if notice.warning is None:
        headers["Link"] = f'<{link_target(notice.implementer)}>; rel="blocked-by"'
    else:
        headers |= FORM_HEADERS
    if notice.ban is not None:
        headers["Tokgate-Ban"] = _token(notice.ban.name)
    if kind is Format.HTML:
        body = _html(notice, texts)
    elif kind is Format.TEXT:
        body = _text(notice, texts)
    else:
        body = _json(notice, texts)
    return RenderedResponse(notice.status, headers, body.encode())


@dataclass(frozen=True, slots=True)
class Failure:
    """A request or an answer that can't be passed on, without any ban."""

    kind: str
    """`client` where the request is at fault; `unreachable`; `answer`."""
    status: int
    detail: str
    """What was wrong, in English and in a line."""
    reference: str


def compose_failure(failure: Failure, *, accept: str | None, accept_language: str | None) -> RenderedResponse:
    """The response to what can't be passed on, in the language and format that the client likes best."""
    texts, kind = TEXTS[choose_language(accept_language)], choose_format(accept)
    said, detail = texts.failure[failure.kind], clean(failure.detail, MAX_DETAIL)
    failure = replace(failure, detail=detail)
    if kind is Format.HTML:
        body = _failure.render(texts=texts, failure=failure, said=said, style=_style)
    elif kind is Format.TEXT:
        lines = [said["title"], "", said["lead"], "", f"{texts.failure['detail']}: {detail}"]
        body = "\n".join([*lines, f"{texts.failure['event']}: {failure.reference}", ""])
    else:
        problem = {"type": "about:blank", "title": said["title"], "status": failure.status, "detail": detail}
        body = json.dumps(problem | {"event": failure.reference}, ensure_ascii=False, indent=2) + "\n"
    headers = {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Language": texts.language,
        "Cache-Control": "no-store",
        "Tokgate-Event": failure.reference,
        **SECURITY_HEADERS,
    }
    return RenderedResponse(failure.status, headers, body.encode())


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


def _rows(notice: Notice, texts: Texts) -> Iterator[Fact]:
    """The facts in the order in which people ask for them."""
    if not notice.unreadable:
        yield Fact(texts.asked, _asked(notice))
    if notice.service is not None:
        yield Fact(texts.service, notice.service)
    if notice.ban is not None:
        yield from _ban_rows(notice, notice.ban, texts)
    if (contact := _contact(notice, texts)) is not None:
        yield Fact(texts.contact, contact, href_of(contact))
    label = texts.event if notice.warning is None else texts.warning.event
    yield Fact(label, notice.event, note=texts.event_note)


def _ban_rows(notice: Notice, ban: Ban, texts: Texts) -> Iterator[Fact]:
    blocks_from = notice.warning.blocks_from if notice.warning is not None else None
    yield Fact(texts.ban, _said(notice, ban, "title", texts) or "")
    if (reason := _said(notice, ban, "reason", texts)) is not None:
        yield Fact(texts.reason, reason)
    if ban.authority is not None:
        yield Fact(texts.authority, ban.authority)
    if ban.basis is not None:
        yield Fact(texts.basis, ban.basis)
    if ban.reference is not None:
        yield Fact(texts.reference, ban.reference, href_of(ban.reference))
    if blocks_from is not None:
        moment = texts.local_moment(blocks_from, notice.zone)
        yield Fact(texts.warning.blocked_from, moment, instant=blocks_from.format_iso())
    elif notice.since is not None:
        since = texts.local_moment(notice.since, notice.zone)
        yield Fact(texts.since, since, instant=notice.since.format_iso())
    yield from (_earlier(term, notice.zone, texts) for term in notice.earlier[:MAX_EARLIER])
    if notice.pauses is not None:
        window = texts.window.format(moment=texts.local_moment(notice.pauses, notice.zone))
        yield Fact(texts.pauses, window, instant=notice.pauses.format_iso())
    yield _end(notice, texts)


def _earlier(term: Term, zone: str, texts: Texts) -> Fact:
    """An earlier term of the measure, with its end, which is where the next one begins."""
    day = texts.last_day(term.ends, zone)
    ended = texts.local_moment(term.ends, zone) if day is None else texts.through.format(date=day, zone=zone)
    return Fact(texts.extends, f"{term.ban.title}, {ended}", instant=term.ends.format_iso())


def _end(notice: Notice, texts: Texts) -> Fact:
    if notice.until is None:
        return Fact(texts.until, texts.lifted)
    moment, day = texts.local_moment(notice.until, notice.zone), texts.last_day(notice.until, notice.zone)
    if notice.overdue:
        return Fact(texts.until, texts.overdue.format(moment=moment if day is None else f"{day} ({notice.zone})"))
    ends = moment if day is None else texts.through.format(date=day, zone=notice.zone)
    return Fact(texts.until, ends, instant=notice.until.format_iso())


def _why(notice: Notice, texts: Texts) -> str | None:
    """A sentence where no ban on the service itself explains the refusal."""
    said = texts.without_ban.get(notice.reason.value)
    if said is None and notice.ban is None:
        return texts.without_ban["other"]
    return said


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What differs between a refusal and a warning in words: the head of the page, and what it says of the website."""

    status: str
    title: str
    lead: str
    nothing_sent: str
    choice: tuple[str, ...] = ()
    button: str | None = None


def _beginning(notice: Notice, texts: Texts) -> _Beginning:
    if notice.unreadable:
        title, lead, nothing_sent = (texts.unreadable[key] for key in ("title", "lead", "nothing_sent"))
        return _Beginning(f"{texts.refused} (HTTP {notice.status})", title, lead, nothing_sent)
    if notice.warning is None:
        return _Beginning(
            status=f"{texts.refused} (HTTP {notice.status})",
            title=texts.title.format(what=notice.service or texts.this_address),
            lead=texts.lead.format(what=_asked(notice)),
            nothing_sent=texts.nothing_else,
        )
    said, what = texts.warning, notice.service or _asked(notice)
    holds = said.holds_less if notice.warning.shortened else said.holds
    moment = texts.local_moment(notice.warning.until, notice.zone)
    holds = holds.format(lasting=texts.lasting(notice.warning.lasting), moment=moment)
    return _Beginning(
        status=said.warned,
        title=said.title.format(what=what),
        lead=said.lead.format(what=what),
        nothing_sent=said.nothing_yet,
        choice=(holds, said.recorded),
        button=said.button.format(what=what),
    )


def _html(notice: Notice, texts: Texts) -> str:
    return _page.render(
        texts=texts,
        notice=notice,
        begin=_beginning(notice, texts),
        style=_style,
        why=_why(notice, texts),
        description=None if notice.ban is None else _said(notice, notice.ban, "description", texts),
        rows=list(_rows(notice, texts)),
    )


def _text(notice: Notice, texts: Texts) -> str:
    begin = _beginning(notice, texts)
    lines = [begin.title, "", begin.lead, ""]
    if (why := _why(notice, texts)) is not None:
        lines += [why, ""]
    lines += [f"{row.label}: {readable(row.value)}" for row in _rows(notice, texts)]
    said = (texts.inspected,) * notice.inspected + (texts.opened,) * notice.opened
    return "\n".join([*lines, "", begin.nothing_sent, *said, ""])


def _json(notice: Notice, texts: Texts) -> str:
    """A problem document (RFC 9457) with the facts as members of their own."""
    ban, warning = notice.ban, notice.warning
    begin = _beginning(notice, texts)
    facts = {
        "type": TYPE if notice.status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS else "about:blank",
        "title": begin.title,
        "status": notice.status,
        "detail": _why(notice, texts) or begin.lead,
        "instance": f"urn:uuid:{notice.event}",
        "language": texts.language,
        "asked": _asked(notice) or None,
        "service": notice.service,
        "ban": ban and ban.name,
        "measure": ban and _said(notice, ban, "title", texts),
        "ban_reason": ban and _said(notice, ban, "reason", texts),
        "authority": ban and ban.authority,
        "basis": ban and ban.basis,
        "reference": ban and ban.reference,
        "contact": _contact(notice, texts),
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
        "event": notice.event,
        "blocked_by": None if warning is not None else notice.implementer,
    }
    return json.dumps(facts, ensure_ascii=False, indent=2) + "\n"


def _contact(notice: Notice, texts: Texts) -> str | None:
    return notice.contact if notice.ban is None else _said(notice, notice.ban, "contact", texts)


def _said(notice: Notice, ban: Ban, key: str, texts: Texts) -> str | None:
    """A text of a ban in the page's language, or else in the network's, or as it is stated first."""
    return ban.said(key, texts.language, notice.language)


def _asked(notice: Notice) -> str:
    return clean(notice.asked, MAX_ASKED)


def _token(text: str) -> str:
    """Text that is safe as a header's value."""
    return re.sub(r"[^!-~]", "-", text)[:128]
