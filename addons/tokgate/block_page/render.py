"""Renders refusals and warnings: HTML for browsers, problem details (RFC 9457) for programs, text for terminals."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from whenever import Date, Instant, Time

from tokgate.block_page.locales import STRINGS, Strings
from tokgate.block_page.negotiation import Format, choose_format, choose_language
from tokgate.block_page.notice import Notice
from tokgate.block_page.warning_locales import WARNING_STRINGS
from tokgate.blocklog.records.record import clean
from tokgate.policy.analysis.extensions import Term
from tokgate.policy.values.visible_text import readable, readable_lines

TYPE: Final = "https://www.rfc-editor.org/rfc/rfc7725"
MAX_ASKED: Final = 253
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
    language, kind = choose_language(accept_language), choose_format(accept)
    headers = {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Language": language,
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
        body = _html(notice, language)
    elif kind is Format.TEXT:
        body = _text(notice, language)
    else:
        body = _json(notice, language)
    return RenderedResponse(notice.status, headers, body.encode())


def link_target(uri: str) -> str:
    """A URI that can stand between angle brackets in a Link field (RFC 8288), whatever it was."""
    return uri if _URI.fullmatch(uri) else quote(uri, safe=":/?#[]@!$&'()*+,;=%~")


def local_moment(words: Strings, at: Instant, zone: str) -> str:
    """An instant as it is written in a language: `10 March 2023, 00:00 (Europe/Brussels)`."""
    local = at.to_tz(zone)
    time = f"{local.hour:02}:{local.minute:02}"
    return words.moment.format(**_calendar(words, local.date()), time=time, zone=zone)


def last_day(words: Strings, ends: Instant, zone: str) -> str | None:
    """The last whole day before an end at midnight, which is how people think of it; None for other ends."""
    local = ends.to_tz(zone)
    if local.time() != Time.MIDNIGHT:
        return None
    return words.date.format(**_calendar(words, local.date().subtract(days=1)))


def _calendar(words: Strings, date: Date) -> dict[str, str]:
    day = words.first if date.day == 1 else "{day}"
    return {"day": day.format(day=date.day), "month": words.months[date.month - 1], "year": str(date.year)}


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


def rows(notice: Notice, language: str) -> Iterator[Fact]:
    """The facts in the order in which people ask for them."""
    ban, words = notice.ban, STRINGS[language]
    blocks_from = notice.warning.blocks_from if notice.warning is not None else None
    yield Fact(words.asked, _asked(notice))
    if notice.service is not None:
        yield Fact(words.service, notice.service)
    if ban is not None:
        yield Fact(words.ban, ban.title)
        if ban.authority is not None:
            yield Fact(words.authority, ban.authority)
        if ban.basis is not None:
            yield Fact(words.basis, ban.basis)
        if ban.reference is not None:
            yield Fact(words.reference, ban.reference, href_of(ban.reference))
        if blocks_from is not None:
            moment = local_moment(words, blocks_from, notice.zone)
            yield Fact(WARNING_STRINGS[language].blocked_from, moment, instant=blocks_from.format_iso())
        elif notice.since is not None:
            since = local_moment(words, notice.since, notice.zone)
            yield Fact(words.since, since, instant=notice.since.format_iso())
        yield from (_earlier(term, notice.zone, words) for term in notice.earlier[:MAX_EARLIER])
        if notice.pauses is not None:
            window = words.window.format(moment=local_moment(words, notice.pauses, notice.zone))
            yield Fact(words.pauses, window, instant=notice.pauses.format_iso())
        yield _end(notice, words)
        if ban.contact is not None:
            yield Fact(words.contact, ban.contact, href_of(ban.contact))
    label = words.event if notice.warning is None else WARNING_STRINGS[language].event
    yield Fact(label, notice.event, note=words.event_note)


def _earlier(term: Term, zone: str, words: Strings) -> Fact:
    """An earlier term of the measure, with its end, which is where the next one begins."""
    if term.ends is None:
        return Fact(words.extends, term.ban.title)
    day = last_day(words, term.ends, zone)
    ended = local_moment(words, term.ends, zone) if day is None else words.through.format(date=day, zone=zone)
    return Fact(words.extends, f"{term.ban.title}, {ended}", instant=term.ends.format_iso())


def _end(notice: Notice, words: Strings) -> Fact:
    if notice.until is None:
        return Fact(words.until, words.lifted)
    moment, day = local_moment(words, notice.until, notice.zone), last_day(words, notice.until, notice.zone)
    if notice.overdue:
        return Fact(words.until, words.overdue.format(moment=moment if day is None else f"{day} ({notice.zone})"))
    ends = moment if day is None else words.through.format(date=day, zone=notice.zone)
    return Fact(words.until, ends, instant=notice.until.format_iso())


def _why(notice: Notice, words: Strings) -> str | None:
    """A sentence where no ban on the service itself explains the refusal."""
    said = words.without_ban.get(notice.reason.value)
    if said is None and notice.ban is None:
        return words.without_ban[""]
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


def _beginning(notice: Notice, language: str) -> _Beginning:
    words = STRINGS[language]
    if notice.warning is None:
        status = f"{words.refused} (HTTP {notice.status})"
        return _Beginning(status, _title(notice, words), words.lead.format(what=_asked(notice)), words.nothing_else)
    said, what = WARNING_STRINGS[language], notice.service or _asked(notice)
    holds = said.holds_less if notice.warning.shortened else said.holds
    moment = local_moment(words, notice.warning.until, notice.zone)
    holds = holds.format(lasting=said.lasting(notice.warning.lasting), moment=moment)
    return _Beginning(
        status=said.warned,
        title=said.title.format(what=what),
        lead=said.lead.format(what=what),
        nothing_sent=said.nothing_yet,
        choice=(holds, said.recorded),
        button=said.button.format(what=what),
    )


def _html(notice: Notice, language: str) -> str:
    return _page.render(
        language=language,
        words=STRINGS[language],
        begin=_beginning(notice, language),
        style=_style,
        why=_why(notice, STRINGS[language]),
        description=notice.ban.description if notice.ban is not None else None,
        rows=list(rows(notice, language)),
        warning=notice.warning,
        choice=WARNING_STRINGS[language].choice,
        opened=notice.opened,
        inspected=notice.inspected,
    )


def _text(notice: Notice, language: str) -> str:
    words, begin = STRINGS[language], _beginning(notice, language)
    lines = [begin.title, "", begin.lead, ""]
    if (why := _why(notice, words)) is not None:
        lines += [why, ""]
    lines += [f"{row.label}: {readable(row.value)}" for row in rows(notice, language)]
    said = (words.inspected,) * notice.inspected + (words.opened,) * notice.opened
    return "\n".join([*lines, "", begin.nothing_sent, *said, ""])


def _json(notice: Notice, language: str) -> str:
    """A problem document (RFC 9457) with the facts as members of their own."""
    ban, warning, words = notice.ban, notice.warning, STRINGS[language]
    begin = _beginning(notice, language)
    facts = {
        "type": TYPE if notice.status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS else "about:blank",
        "title": begin.title,
        "status": notice.status,
        "detail": _why(notice, words) or begin.lead,
        "instance": f"urn:uuid:{notice.event}",
        "language": language,
        "asked": _asked(notice),
        "service": notice.service,
        "ban": ban and ban.name,
        "measure": ban and ban.title,
        "authority": ban and ban.authority,
        "basis": ban and ban.basis,
        "reference": ban and ban.reference,
        "contact": ban and ban.contact,
        "since": notice.since and notice.since.format_iso(),
        "until": notice.until and notice.until.format_iso(),
        "overdue": notice.overdue,
        "extends": [
            {
                "ban": term.ban.name,
                "measure": term.ban.title,
                "basis": term.ban.basis,
                "since": term.starts.format_iso(),
                "until": term.ends and term.ends.format_iso(),
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


def _title(notice: Notice, words: Strings) -> str:
    return words.title.format(what=notice.service or words.this_address)


def _asked(notice: Notice) -> str:
    return clean(notice.asked, MAX_ASKED)


def _token(text: str) -> str:
    """Text that is safe as a header's value."""
    return re.sub(r"[^!-~]", "-", text)[:128]
