"""The answer to a refused request: a page for people, JSON for programs, text for terminals; the same facts in each."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from whenever import Instant

from tokgate.blocklog.document import clean
from tokgate.proxy.languages import Format, choose_format, choose_language
from tokgate.proxy.notice import Notice
from tokgate.proxy.strings import STRINGS, Strings

TYPE: Final = "https://www.rfc-editor.org/rfc/rfc7725"
MAX_ASKED: Final = 253

_EMAIL: Final = re.compile(r"[A-Za-z0-9.!#$&'*+/=^_`{|}~-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]+")
_templates: Final = Environment(
    loader=PackageLoader("tokgate.proxy", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_page: Final = _templates.get_template("page.html")
_style: Final = _templates.get_template("page.css").render()
_style_hash: Final = base64.b64encode(hashlib.sha256(_style.encode()).digest()).decode("ascii")

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_style_hash}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response; for HEAD its body is left out by the sender."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """A fact with its label; `href` where it leads somewhere."""

    label: str
    value: str
    href: str | None = None
    note: str | None = None
    instant: str | None = None


def compose(notice: Notice, *, accept: str | None, accept_language: str | None) -> Answer:
    """The response in the language and format that the client likes best."""
    language, kind = choose_language(accept_language), choose_format(accept)
    words = STRINGS[language]
    headers = {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Language": language,
        "Cache-Control": "no-store",
        "Vary": "Accept, Accept-Language",
        "Link": f'<{link_target(notice.implementer)}>; rel="blocked-by"',
        "Tokgate-Event": notice.event,
        **SECURITY_HEADERS,
    }
    if notice.ban is not None:
        headers["Tokgate-Ban"] = _token(notice.ban.name)
    if kind is Format.HTML:
        body = _html(notice, words, language)
    elif kind is Format.TEXT:
        body = _text(notice, words)
    else:
        body = _json(notice, words, language)
    return Answer(notice.status, headers, body.encode())


def link_target(uri: str) -> str:
    """A URI that can stand between angle brackets in a Link field (RFC 8288), whatever it was."""
    return uri if _URI.fullmatch(uri) else quote(uri, safe=":/?#[]@!$&'()*+,;=%~")


def local_moment(words: Strings, at: Instant, zone: str) -> str:
    """An instant as it is written in a language: `10 March 2023, 00:00 (Europe/Brussels)`."""
    local = at.to_tz(zone)
    day = words.first if local.day == 1 else "{day}"
    return words.moment.format(
        day=day.format(day=local.day),
        month=words.months[local.month - 1],
        year=local.year,
        time=f"{local.hour:02}:{local.minute:02}",
        zone=zone,
    )


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


def rows(notice: Notice, words: Strings) -> Iterator[Row]:
    """The facts in the order in which people ask for them."""
    ban = notice.ban
    yield Row(words.asked, _asked(notice))
    if notice.service is not None:
        yield Row(words.service, notice.service)
    if ban is not None:
        yield Row(words.ban, ban.title)
        if ban.authority is not None:
            yield Row(words.authority, ban.authority)
        if ban.basis is not None:
            yield Row(words.basis, ban.basis)
        if ban.reference is not None:
            yield Row(words.reference, ban.reference, href_of(ban.reference))
        if notice.since is not None:
            since = local_moment(words, notice.since, notice.zone)
            yield Row(words.since, since, instant=notice.since.format_iso())
        yield _end(notice, words)
        if ban.contact is not None:
            yield Row(words.contact, ban.contact, href_of(ban.contact))
    yield Row(words.event, notice.event, note=words.event_note)


def _end(notice: Notice, words: Strings) -> Row:
    if notice.until is None:
        return Row(words.until, words.lifted)
    moment = local_moment(words, notice.until, notice.zone)
    if notice.overdue:
        return Row(words.until, words.overdue.format(moment=moment))
    return Row(words.until, moment, instant=notice.until.format_iso())


def _why(notice: Notice, words: Strings) -> str | None:
    """A sentence where no ban on the service itself explains the refusal."""
    said = words.without_ban.get(notice.reason.value)
    if said is None and notice.ban is None:
        return words.without_ban[""]
    return said


def _html(notice: Notice, words: Strings, language: str) -> str:
    return _page.render(
        language=language,
        words=words,
        style=_style,
        status=notice.status,
        title=_title(notice, words),
        lead=words.lead.format(what=_asked(notice)),
        why=_why(notice, words),
        description=notice.ban.description if notice.ban is not None else None,
        rows=list(rows(notice, words)),
        opened=notice.opened,
        inspected=notice.inspected,
    )


def _text(notice: Notice, words: Strings) -> str:
    lines = [_title(notice, words), "", words.lead.format(what=_asked(notice)), ""]
    if (why := _why(notice, words)) is not None:
        lines += [why, ""]
    lines += [f"{row.label}: {clean(row.value)}" for row in rows(notice, words)]
    return "\n".join([*lines, "", words.nothing_else, *([words.inspected] if notice.inspected else []), ""])


def _json(notice: Notice, words: Strings, language: str) -> str:
    """A problem document (RFC 9457) with the facts as members of their own."""
    ban = notice.ban
    facts = {
        "type": TYPE if notice.status == 451 else "about:blank",
        "title": _title(notice, words),
        "status": notice.status,
        "detail": _why(notice, words) or words.lead.format(what=_asked(notice)),
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
        "opened": notice.opened,
        "inspected": notice.inspected,
        "zone": notice.zone,
        "reason": notice.reason.value,
        "event": notice.event,
        "blocked_by": notice.implementer,
    }
    return json.dumps(facts, ensure_ascii=False, indent=2) + "\n"


def _title(notice: Notice, words: Strings) -> str:
    return words.title.format(what=notice.service or words.this_address)


def _asked(notice: Notice) -> str:
    return clean(notice.asked, MAX_ASKED)


def _token(text: str) -> str:
    """Text that is safe as a header's value."""
    return re.sub(r"[^!-~]", "-", text)[:128]
