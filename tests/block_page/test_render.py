"""The page: language and format by what the client likes, every fact in each, and nothing unescaped."""

import base64
import json
import re
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest
from whenever import Instant

from labs import builders
from tokgate.block_page.language import LANGUAGES, TEXTS
from tokgate.block_page.notice import Asking, Notice, Request, Warned
from tokgate.block_page.render import Format, choose_format, compose, href_of, link_target
from tokgate.blocklog.records.requests import RequestState
from tokgate.policy.analysis.terms import Term
from tokgate.policy.bans import Translation
from tokgate.policy.decision import Reason
from tokgate.policy.values import Language
from tokgate.traffic.exception_requests import NotTaken

NOTICE = Notice(
    asked="www.clips.example.org",
    service="Clips",
    ban=builders.ban(
        title="Clips on work devices",
        authority="The Council",
        basis="Circular 716",
        reference="https://example.org/circular",
        contact="desk@example.org",
        description="Because of the data it collects.",
    ),
    reason=Reason.BAN_BLOCK,
    since=builders.at("2023-03-09T23:00:00Z"),
    until=builders.at("2023-09-30T22:00:00Z"),
    zone="Europe/Brussels",
    event="018c0ffe-0000-7000-8000-000000000001",
    implementer="https://example.org/filter",
)
WARNING = replace(
    NOTICE,
    reason=Reason.BAN_WARN,
    warning=Warned(
        blocks_from=builders.at("2023-03-31T22:00:00Z"),
        lasting=builders.duration("P1DT12H"),
        until=builders.at("2023-03-17T08:30:00Z"),
        shortened=False,
        token="1679000000-abc",
        target="/@someone?a=b&c=%22",
    ),
)
HOSTILE = "</style><script>alert(1)</script>\"'&<b>\x00\r\nSet-Cookie: a=b"


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (None, Format.HTML),
        ("*/*", Format.HTML),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format.HTML),
        ("application/json", Format.JSON),
        ("application/json, text/plain, */*", Format.JSON),
        ("application/problem+json", Format.PROBLEM),
        ("text/plain", Format.TEXT),
        ("text/html;q=0.1, application/json;q=0.2", Format.JSON),
        ("image/png", Format.HTML),
    ],
)
def test_format(header: str | None, kind: Format) -> None:
    """HTML unless something else is liked better."""
    assert choose_format(header) is kind


class Reading(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("accept", ["text/html", "application/json", "text/plain"])
def test_every_fact_is_told(language: str, accept: str) -> None:
    """What, by whose decision, on which basis, since and until when, whom to ask, and the event."""
    answer = compose(NOTICE, accept=accept, accept_language=language)

    told = answer.body.decode()
    for fact in ("www.clips.example.org", "Clips", "The Council", "Circular 716", "https://example.org/circular"):
        assert fact in told
    assert "desk@example.org" in told
    assert NOTICE.event in told
    assert "2023" in told
    assert answer.headers["Content-Language"] == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_html_needs_nothing_from_the_network(language: str) -> None:
    """No script, image, font or style sheet is loaded; the one style is allowed by its digest."""
    answer = compose(NOTICE, accept="text/html", accept_language=language)
    page = answer.body.decode()
    found = Reading(page)

    assert ("lang", language) in found.attributes
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & set(found.tags)
    assert {name for name, _ in found.attributes} & {"src", "style", "onload", "onclick"} == set()
    assert "url(" not in page
    assert "@import" not in page
    style = re.search("<style>(.*)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_headers() -> None:
    """451 with the implementer, never stored, and told apart by what it depends on."""
    answer = compose(NOTICE, accept=None, accept_language=None)

    assert answer.status == 451
    assert answer.headers["Link"] == '<https://example.org/filter>; rel="blocked-by"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Vary"] == "Accept, Accept-Language"


def test_json_is_a_problem_document() -> None:
    """The members of RFC 9457 and the facts, absent ones null."""
    facts = json.loads(compose(NOTICE, accept="application/problem+json", accept_language=None).body)

    assert facts["status"] == 451
    assert facts["until"] == "2023-09-30T22:00:00Z"
    assert facts["instance"] == f"urn:uuid:{NOTICE.event}"
    bare = replace(NOTICE, ban=None, service=None, since=None, until=None, reason=Reason.UNKNOWN_CLIENT)
    facts = json.loads(compose(bare, accept="application/json", accept_language=None).body)
    assert (facts["status"], facts["type"], facts["ban"], facts["until"]) == (403, "about:blank", None, None)


@pytest.mark.parametrize("warns", [False, True])
@pytest.mark.parametrize("language", LANGUAGES)
def test_hostile_texts_stay_texts(language: str, warns: bool) -> None:
    """Markup in a name, a ban or a contact is shown, not obeyed; headers stay one line each."""
    ban = builders.ban(
        name=HOSTILE, title=HOSTILE, authority=HOSTILE, basis=HOSTILE, reference=HOSTILE, contact=HOSTILE
    )
    honest = WARNING if warns else NOTICE
    notice = replace(honest, asked=HOSTILE, service=HOSTILE, ban=ban, implementer=HOSTILE)
    if notice.warning is not None:
        notice = replace(notice, warning=replace(notice.warning, token=HOSTILE, target=HOSTILE))
    harmless = Reading(compose(honest, accept="text/html", accept_language=language).body.decode())

    answer = compose(notice, accept="text/html", accept_language=language)
    found = Reading(answer.body.decode())

    assert set(found.tags) <= set(harmless.tags)
    assert "alert(1)" in found.text
    for value in answer.headers.values():
        assert value.isascii()
        assert value.isprintable()
    assert warns or answer.headers["Link"].count("<") == answer.headers["Link"].count(">") == 1
    json.loads(compose(notice, accept="application/json", accept_language=language).body)


@pytest.mark.parametrize(
    ("text", "href"),
    [
        ("https://example.org/a?b=c", "https://example.org/a?b=c"),
        ("http://example.org", "http://example.org"),
        ("desk@example.org", "mailto:desk@example.org"),
        ("javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("https://", None),
        ("http://[", None),
        ("extension 1234", None),
        ("a@b@c.example", None),
        (None, None),
    ],
)
def test_links_lead_to_web_and_mail_only(text: str | None, href: str | None) -> None:
    assert href_of(text) == href


def test_link_target_is_a_uri() -> None:
    """What could end the angle brackets early is encoded."""
    assert link_target("https://example.org/") == "https://example.org/"
    assert link_target('a>; rel="x", <b') == "a%3E;%20rel=%22x%22,%20%3Cb"


WINDOW = builders.at("2023-05-10T16:00:00Z")
PAUSES = {
    "en": "10 May 2023, 18:00 (Europe/Brussels); it applies at set times of the week only",
    "fr": "10 mai 2023 à 18:00 (Europe/Brussels) ; elle ne s’applique qu’à des heures fixes de la semaine",
    "nl": "10 mei 2023 om 18:00 (Europe/Brussels); ze geldt alleen op vaste tijden in de week",
    "de": "10. Mai 2023, 18:00 Uhr (Europe/Brussels); sie gilt nur zu festen Zeiten der Woche",
}


@pytest.mark.parametrize(
    ("language", "changes", "label", "told", "instant"),
    [
        *(
            (language, {"until": builders.at(ends)}, "until", told, ends)
            for language, ends, told in (
                ("en", "2099-12-31T23:00:00Z", "until the end of 31 December 2099 (Europe/Brussels)"),
                ("fr", "2099-12-31T23:00:00Z", "jusqu’au 31 décembre 2099 inclus (Europe/Brussels)"),
                ("fr", "2023-10-01T22:00:00Z", "jusqu’au 1er octobre 2023 inclus (Europe/Brussels)"),
                ("nl", "2099-12-31T23:00:00Z", "tot en met 31 december 2099 (Europe/Brussels)"),
                ("de", "2099-12-31T23:00:00Z", "bis einschließlich 31. Dezember 2099 (Europe/Brussels)"),
                ("en", "2023-10-01T16:00:00Z", "1 October 2023, 18:00 (Europe/Brussels)"),
                ("en", "2023-09-30T22:00:01Z", "1 October 2023, 00:00 (Europe/Brussels)"),
                ("en", "2023-10-01T00:00:00Z", "1 October 2023, 02:00 (Europe/Brussels)"),
            )
        ),
        ("en", {"until": None}, "until", "no end is set: until it is lifted", None),
        (
            *("en", {"overdue": True}, "until"),
            *("was to end on 30 September 2023 (Europe/Brussels), and is kept until it is lifted", None),
        ),
        *(
            (language, {"pauses": WINDOW, "until": None}, "pauses", told, "2023-05-10T16:00:00Z")
            for language, told in PAUSES.items()
        ),
    ],
)
def test_until_when(language: str, changes: dict[str, Any], label: str, told: str, instant: str | None) -> None:
    """Nobody reads `1 January, 00:00` as New Year's Eve: the last whole day is told, and programs get the instant.

    Whoever may go there again this evening is not told that it takes until the measure is lifted.
    """
    notice = replace(NOTICE, **changes)
    text = compose(notice, accept="text/plain", accept_language=language).body.decode()
    assert f"{TEXTS[language][label]}: {told}\n" in text
    page = compose(notice, accept="text/html", accept_language=language).body.decode()
    assert (f'<time datetime="{instant}">{told}</time>' if instant else f"<dd>{told}</dd>") in page


@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
def test_what_is_opened_is_said(accept: str) -> None:
    """That nothing else is opened is said with the exceptions that the policy makes, and only with these."""
    words = TEXTS["en"]
    quiet = compose(NOTICE, accept=accept, accept_language="en").body.decode()
    told = compose(replace(NOTICE, inspected=True), accept=accept, accept_language="en").body.decode()

    assert words["nothing_else"] in quiet
    assert words["nothing_else"] in told
    assert (words["inspected"] in quiet, words["inspected"] in told) == (False, True)
    opened = compose(replace(NOTICE, opened=True), accept=accept, accept_language="en").body.decode()
    assert (words["opened"] in quiet, words["opened"] in opened) == (False, True)


WARNED = {
    "en": (
        "Before you continue to Clips",
        "1 day, 12 hours: until 17 March 2023, 09:30 (Europe/Brussels)",
        "1 April 2023, 00:00",
    ),
    "fr": (
        "Avant de continuer vers Clips",
        "1 jour, 12 heures : jusqu’au 17 mars 2023 à 09:30 (Europe/Brussels)",
        "1er avril 2023",
    ),
    "nl": (
        "Voordat u doorgaat naar Clips",
        "1 dag, 12 uur niet meer: tot 17 maart 2023 om 09:30",
        "1 april 2023 om 00:00",
    ),
    "de": (
        "Bevor Sie Clips öffnen",
        "1 Tag, 12 Stunden lang, bis 17. März 2023, 09:30 Uhr",
        "1. April 2023, 00:00 Uhr",
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_warning_says_what_continuing_means(language: str) -> None:
    """The reason, from when it blocks, for how long continuing holds, and one button that sends its token."""
    answer = compose(WARNING, accept="text/html", accept_language=language)
    page = answer.body.decode()
    found = Reading(page)

    for text in (*WARNED[language], "The Council", "Circular 716", "desk@example.org", NOTICE.event):
        assert text in found.text
    assert "451" not in page
    assert [tag for tag in found.tags if tag in ("form", "input", "button")] == ["form", "input", "input", "button"]
    for attribute in (
        ("method", "post"),
        ("action", "/.tokgate/continue"),
        ("value", "1679000000-abc"),
        ("value", "/@someone?a=b&c=%22"),
        ("lang", language),
    ):
        assert attribute in found.attributes


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_warning_cut_short_names_its_end_only(language: str) -> None:
    """Where the ban blocks before continuing would end, no length is promised; a ban that only warns has no start."""
    assert WARNING.warning is not None
    notice = replace(WARNING, warning=replace(WARNING.warning, shortened=True))
    page = compose(notice, accept="text/html", accept_language=language).body.decode()
    assert "12" not in page.partition("<form")[0].partition("</dl>")[2]
    assert "09:30" in page

    only = replace(WARNING, warning=replace(WARNING.warning, blocks_from=None))
    assert (
        TEXTS[language]["warning"]["blocked_from"]
        not in compose(only, accept=None, accept_language=language).body.decode()
    )


def test_a_warning_is_neither_a_legal_refusal_nor_a_success() -> None:
    """403, never stored, without `blocked-by`; the form may be sent, and says from where; no script, no frame."""
    answer = compose(WARNING, accept="text/html", accept_language=None)

    assert answer.status == 403
    assert "Link" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'", "'none'")
    assert policy["form-action"].startswith("'self'")
    assert "form-action 'none'" in compose(NOTICE, accept=None, accept_language=None).headers["Content-Security-Policy"]


def test_a_warning_for_programs_has_no_token() -> None:
    """JSON and text have the facts; continuing is for people."""
    for accept in ("application/json", "text/plain"):
        told = compose(WARNING, accept=accept, accept_language=None).body.decode()
        assert "abc" not in told
        assert "The Council" in told
    facts = json.loads(compose(WARNING, accept="application/json", accept_language=None).body)
    assert (facts["status"], facts["type"], facts["warning"]) == (403, "about:blank", True)
    assert facts["blocks_from"] == "2023-03-31T22:00:00Z"
    assert facts["blocked_by"] is None


@pytest.mark.parametrize(
    ("language", "label"), [("en", "Extends"), ("fr", "Prolonge"), ("nl", "Verlengt"), ("de", "Verlängert")]
)
def test_an_extension_tells_of_the_terms_before_it(language: str, label: str) -> None:
    """Whoever is refused reads that the measure is older than its latest decision, and when each term ended."""
    first = Term(builders.ban(title="The first"), NOTICE.since or Instant.MIN, builders.at("2023-09-09T22:00:00Z"))
    second = Term(
        builders.ban(title="The second"), builders.at("2023-09-09T22:00:00Z"), builders.at("2024-03-10T12:00Z")
    )
    notice = replace(NOTICE, earlier=(second, first))
    text = compose(notice, accept="text/plain", accept_language=language).body.decode()
    told = [line for line in text.splitlines() if line.startswith(f"{label}: ")]
    assert [line.removeprefix(f"{label}: ").partition(",")[0] for line in told] == ["The second", "The first"]
    assert "2023" in told[1]
    assert ":00" not in told[1]  # the last day, as people think of it
    problem = json.loads(compose(notice, accept="application/json", accept_language=language).body)
    assert [term["until"] for term in problem["extends"]] == ["2024-03-10T12:00:00Z", "2023-09-09T22:00:00Z"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", [Format.HTML, Format.PROBLEM, Format.TEXT])
@pytest.mark.parametrize(
    ("reason", "status"),
    [(Reason.UNREADABLE, 400), (Reason.INVALID_HOST, 400), (Reason.NAME_CHANGED, 403), (Reason.ECH_OUTER, 403)],
)
def test_what_was_not_understood(kind: Format, language: str, reason: Reason, status: int) -> None:
    """The page says so in words of its own, why, whom to ask and the reference; no ban, service or address."""
    unread = replace(NOTICE, ban=None, service=None, asked="", reason=reason, unreadable=True, contact="it@example.org")
    unread = replace(unread, since=None, until=None)
    page, texts = compose(unread, accept=kind, accept_language=language), TEXTS[language]
    said = re.sub(r"\s+", " ", page.body.decode())
    assert page.status == status
    assert "Tokgate-Ban" not in page.headers
    told = [texts["unreadable"]["title"], texts["without_ban"][reason], "it@example.org", NOTICE.event]
    for text in [*told, *([texts["unreadable"]["lead"]] if kind is not Format.PROBLEM else [])]:
        assert text in said.replace("&#39;", "'"), text
    for text in ("clips", "Clips", "Council", "Circular"):
        assert text not in said


BY_LANGUAGE = builders.ban(
    title="Clips at work",
    reason="Because",
    contact="desk@example.org",
    translations=(
        Translation("title", Language.EN, "Clips at work"),
        Translation("title", Language.NL, "Clips op het werk"),
        Translation("reason", Language.EN, "Because"),
        Translation("reason", Language.NL, "Daarom"),
        Translation("reason", Language.FR, "Parce que"),
    ),
)


@pytest.mark.parametrize(
    ("asked", "network", "page", "title", "reason"),
    [
        ("nl-BE", None, "nl", "Clips op het werk", "Daarom"),
        ("fr", None, "fr", "Clips at work", "Parce que"),
        ("fr", Language.NL, "fr", "Clips op het werk", "Parce que"),
        ("de", Language.NL, "de", "Clips op het werk", "Daarom"),
        ("ja", Language.NL, "nl", "Clips op het werk", "Daarom"),
        ("ja", None, "en", "Clips at work", "Because"),
        (None, Language.FR, "fr", "Clips at work", "Parce que"),
    ],
)
def test_the_language_of_a_page(
    asked: str | None, network: Language | None, page: str, title: str, reason: str
) -> None:
    """The browser's, else the network's, else English; a ban's text in the page's, the network's, or as stated."""
    notice = replace(NOTICE, ban=BY_LANGUAGE, language=network)
    answer = compose(notice, accept="application/json", accept_language=asked)
    facts = json.loads(answer.body)
    assert answer.headers["Content-Language"] == facts["language"] == page
    assert (facts["measure"], facts["ban_reason"], facts["contact"]) == (title, reason, "desk@example.org")
    text = compose(notice, accept="text/plain", accept_language=asked).body.decode()
    assert f"{TEXTS[page]['reason']}: {reason}\n" in text
    assert reason in compose(notice, accept="text/html", accept_language=asked).body.decode()


ASKING = Asking(token="1679000000-abc", offered=(builders.duration("PT1H"), builders.duration("PT24H")))
ASKED = Request(NOTICE.event, RequestState.DECLINED, builders.at("2023-03-16T08:30:00Z"), None, HOSTILE)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("state", RequestState)
def test_what_became_of_a_request(language: str, state: RequestState) -> None:
    """In every language and format; a form only where none waits or holds, and what was answered as text."""
    until = builders.at("2023-03-16T10:30:00Z") if state is RequestState.APPROVED else None
    asking = replace(ASKING, last=replace(ASKED, state=state, until=until))
    page, text, data = (
        compose(replace(NOTICE, asking=asking), accept=accept, accept_language=language).body.decode()
        for accept in ("text/html", "text/plain", "application/json")
    )
    told = TEXTS[language]["request"][state].partition("{")[0]
    assert (told in page, told in text) == (True, True)
    assert ("textarea" in Reading(page).tags) is (state is RequestState.DECLINED)
    assert "script" not in Reading(page).tags
    found = json.loads(data)["exception"]
    assert (found["state"], found["lasting"]) == (state, ["PT1H", "PT24H"] if state is RequestState.DECLINED else [])


@pytest.mark.parametrize("language", LANGUAGES)
def test_why_a_request_is_not_kept(language: str) -> None:
    for problem, told in TEXTS[language]["request"]["problems"].items():
        failed = replace(NOTICE, asking=replace(ASKING, problem=problem))
        assert told in compose(failed, accept="text/plain", accept_language=language).body.decode()


def test_every_problem_has_its_text() -> None:
    """Those that the folder knows, and those of forms and disks."""
    assert set(TEXTS["en"]["request"]["problems"]) == {*map(str, NotTaken), "incomplete", "not-kept"}
