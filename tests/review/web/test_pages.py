"""The pages: right in their numbers, every bar and value a link to what it counts, and safe whatever clients say."""

import csv
import io
import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from blocklog.samples import NOON, SNAPSHOT, stamp
from review.logs import write
from review.web.conftest import OpenPage, Page, numbered, sample
from tokgate.blocklog.coverage import coverage_counted
from tokgate.blocklog.lifecycle import log_gap, started
from tokgate.blocklog.line import encode
from tokgate.review.web import questions
from tokgate.review.web.look import PAGE_ROWS

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</title></style></svg><svg onload=alert(1)>",
    "=HYPERLINK(\"http://evil.example\")",
    "x&amp;y<!--",
)  # fmt: skip
FORGED = "moc.\u202eknalb\u200b\x1b\x85"


class Reader(HTMLParser):
    """A page's tags and where it leads, and whether its elements are closed in order."""

    _VOID = ("meta", "link", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self._VOID:
            self._open.pop()


def figures(text: str) -> dict[str, int]:
    """The figures at the head of the overview."""
    found = re.findall(r"<dt>([^<]+)</dt><dd>(?:<a [^>]+>)?([0-9\u202f]+)", text)
    return {label: int(number.replace("\u202f", "")) for label, number in found}


def rows(text: str) -> int:
    """Lines in a table of lines."""
    return text.count('<th scope="row" class="t">')


def test_the_overview_counts_everything_once(page: Page) -> None:
    """Repeats add up; the chart, its table and each ranking come to the same sum."""
    text = page.get("/").text
    assert figures(text) == {
        "Events": 11, "blocked": 10, "warned": 1, "would block": 0, "exempt": 0, "Clients": 3, "Domains": 1,
    }  # fmt: skip
    assert sum(int(number) for number in re.findall(r"<title>[^<]*?: ([0-9]+) \w", text)) == 11
    for by in questions.RANKED:
        table = list(csv.DictReader(io.StringIO(page.get(f"/counts.csv?by={by}").text)))
        assert sum(int(row["events"]) for row in table) == 11
    over = list(csv.DictReader(io.StringIO(page.get("/counts.csv?by=time").text)))
    assert sum(int(row["block"]) + int(row["warn"]) for row in over) == 11


def test_every_link_leads_to_what_it_counts(page: Page) -> None:
    """A bar, a value and a number: each opens lines whose events are as many."""
    text = page.get("/").text
    bars = re.findall(r'<a href="([^"]+)" tabindex="-1"><rect [^>]*/></a><title>[^<]*?: ([0-9]+) ', text)
    bars += [(link, number) for link, number in re.findall(r'<a href="(/lines\?[^"]*)">([0-9\u202f]+)<', text)]
    assert len(bars) > 20
    for link, number in bars:
        found = list(csv.DictReader(io.StringIO(page.get(unescape(link).replace("/lines?", "/lines.csv?")).text)))
        assert sum(int(row["events"]) for row in found) == int(number), link


def test_no_link_is_dead(page: Page) -> None:
    """Everything that the pages link to is there, from the overview on."""
    seen, todo = set(), ["/", "/live"]
    while todo and len(seen) < 150:
        url = todo.pop(0)
        if url in seen:
            continue
        seen.add(url)
        answer = page.get(url)
        assert answer.status_code == 200, url
        if answer.headers["content-type"].startswith("text/html"):
            links = [link for link in Reader(answer.text).links if link.startswith("/") and link != "/sign-out"]
            todo += [link for link in links if link not in seen]
    assert any(url.startswith("/event/") for url in seen)


@pytest.mark.parametrize(
    ("query", "events"),
    [
        ("client=192.0.2.7", 9),
        ("client=192.0.2.0/24", 10),
        ("client=2001:db8:1::/48", 1),
        ("client=p1-abcdefghijklmnop", 0),
        ("verdict=warn", 1),
        ("network=lab", 1),
        ("action=connection-warned", 1),
        ("name=example.org", 11),
        ("name=WWW.CLIPS.example.org.", 11),
        ("name=ample.org", 0),
        ("ban=ban&signal=sni", 11),
        ("since=2023-03-11", 3),
        ("until=2023-03-11", 8),
        ("since=2023-03-12T23:59:59.999999Z", 1),
        ("until=2023-03-12T23:59:59.999999Z", 10),
        ("since=2023-03-11&until=2023-03-12&client=192.0.2.9", 1),
        ("reason=ban-block", 10),
        ("policy=test", 11),
        ("policy=other", 0),
        ("nonsense=1", 11),
    ],
)
def test_filters(page: Page, query: str, events: int) -> None:
    """Each alone and together; the same on all pages."""
    assert figures(page.get(f"/?{query}").text)["Events"] == events
    found = list(csv.DictReader(io.StringIO(page.get(f"/lines.csv?{query}").text)))
    assert sum(int(row["events"]) for row in found) == events


@pytest.mark.parametrize("query", ["since=yesterday", "since=2023-03-12&until=2023-03-10"])
def test_a_filter_that_makes_no_sense_is_told(page: Page, query: str) -> None:
    """At its field, for everybody, and the answer is 400."""
    answer = page.get(f"/lines?{query}")
    assert answer.status_code == 400
    assert 'aria-invalid="true" aria-describedby="' in answer.text


def test_lines_about_tokgate_itself(open_page: OpenPage) -> None:
    """Apart from traffic; what a gap lost is told on the overview."""
    gap = log_gap(stamp(), 7, stamp().at, stamp().at)
    with open_page([*sample(), started(stamp(), 1, SNAPSHOT.policy), gap, b"torn\n"]) as page:
        page.sign_in()
        text = page.get("/").text
        assert figures(text)["Events"] == 11
        assert "7 records were lost" in text
        assert "1 lines of the log could not be read" in text
        about = page.get("/lines?about=tokgate").text
        assert rows(about) == 2
        assert "What the log says" in about
        assert gap["message"] in about


def test_what_could_be_seen(open_page: OpenPage) -> None:
    """Coverage of the time that is looked at, by network, whatever else is filtered."""
    counts = {"office": {"sni": 30, "none": 10}, "lab": {"dns": 5}}
    early, late = (coverage_counted(stamp(f"2023-03-{day}T12:00:00Z"), counts, NOON) for day in (10, 12))
    with open_page([*sample(), early, late]) as page:
        page.sign_in()
        for query, office, lab in (("", 80, 10), ("?until=2023-03-11&ban=x", 40, 5), ("?network=office", 80, None)):
            text = page.get(f"/{query}").text
            assert f'<th scope="row">office</th><td class="n">{office}</td><td class="n">75 %</td>' in text
            assert (f'<th scope="row">lab</th><td class="n">{lab}</td><td class="n">100 %</td>' in text) == bool(lab)
        assert "no counts of coverage" in page.get("/?until=2023-03-01").text


def test_pages_of_lines(open_page: OpenPage) -> None:
    """Newest first, each line once, also when new ones come while somebody turns pages."""
    records = [numbered(n, moment=f"2023-03-10T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z") for n in range(1, 251)]
    with open_page(records) as page:
        page.sign_in()
        url, seen = "/lines", []
        while url:
            text = page.get(url).text
            seen += re.findall(r'href="/event/([0-9a-f-]+)"', text)
            write(page.log, [*records, numbered(1000 + len(seen), moment="2023-03-11T00:00:00Z")])
            older = re.search(r'rel="next" href="([^"]+)"', text)
            url = unescape(older[1]) if older else ""
        assert seen == [record["event"]["id"] for record in reversed(records)]
        assert "251 lines" in page.get("/lines").text
        assert rows(page.get("/lines").text) == PAGE_ROWS


def test_users_where_the_log_names_them(open_page: OpenPage) -> None:
    """Beside their client, as a filter, and ranked only where there are any."""
    with open_page([*sample(), numbered(9) | {"user": {"name": "carol"}}]) as page:
        page.sign_in()
        assert 'id="by-user"' in page.get("/").text
        assert figures(page.get("/?user=carol").text)["Events"] == 1
        assert "192.0.2.7</a> carol</td>" in page.get("/lines").text
        assert 'id="by-user"' not in page.get("/?client=192.0.2.9").text


def test_a_page_too_far(page: Page) -> None:
    """Has no lines, and is no error."""
    answer = page.get("/lines?page=400")
    assert answer.status_code == 200
    assert "No line of the log is like that" in answer.text


def test_one_event(page: Page) -> None:
    """What the log says, why, and the line itself; an id that isn't there is told."""
    event = sample()[2]["event"]["id"]
    text = page.get(f"/event/{event}").text
    for said in ("192.0.2.7", "www.clips.example.org", "Circular 7", "block.ndjson, line 3", "no policies for"):
        assert said in text
    assert page.get(f"/event/{event.upper()}").status_code == 200
    answer = page.get("/event/00000000-0000-0000-0000-000000000000")
    assert answer.status_code == 404
    assert "No line of the log has the id" in answer.text
    assert page.get("/event/nonsense").status_code == 404


def hostile_record(number: int, words: str) -> dict[str, Any]:
    """A record in which everything that can be text is this."""
    record = numbered(number)
    record["message"] = words
    record["source"] = {"address": words}
    record["destination"] = {"domain": words, "registered_domain": words}
    record["event"]["action"] = words if number % 2 else record["event"]["action"]
    record["observer"]["hostname"] = words
    record["user"] = {"name": words}
    for field in (
        "verdict",
        "ban",
        "network",
        "service",
        "rule",
        "signal",
        "reason",
        "exemption",
        "authority",
        "basis",
    ):
        record["tokgate"][field] = words
    record["tokgate"]["policy"] = {"version": words}
    return record


def test_nothing_from_the_log_is_markup(open_page: OpenPage) -> None:
    """Names are chosen by attackers: in tables, charts, links, lists, attributes and JSON they stay text."""
    with open_page([hostile_record(number, words) for number, words in enumerate(HOSTILE)]) as page:
        page.sign_in()
        event = f"/event/{numbered(1)['event']['id']}"
        for url in ("/", "/lines", "/live", event, "/?about=tokgate", "/lines?about=tokgate"):
            answer = page.get(url)
            assert answer.status_code == 200
            reader = Reader(answer.text)
            assert not {"img", "iframe", "object", "style"} & set(reader.tags)
            assert reader.tags.count("script") == (url == "/live")
            assert not any(name.startswith("on") or name == "style" for name, _ in reader.attributes)
            assert all(link in ("", "#main") or re.match(r"/(?![/\\\\])", link) for link in reader.links), url
        assert "{{ 7 * 7 }}" in unescape(page.get("/lines").text)


def test_nothing_from_the_log_turns_letters_round(open_page: OpenPage) -> None:
    """Forged names are shown with their invisible characters, and still lead to their lines."""
    with open_page([hostile_record(number, FORGED) for number in range(2)]) as page:
        page.sign_in()
        event = f"/event/{numbered(1)['event']['id']}"
        for url in ("/", "/lines", "/live", event, "/?about=tokgate", "/lines?about=tokgate"):
            text = page.get(url).text
            exact = re.sub(r'value="[^"]*"', "", text)  # of the lists to choose from
            assert not set("\u202e\u200b\x1b\x85") & set(exact), url
            assert r"moc.\u202eknalb" in text
        assert figures(page.client.get("/", params={"ban": FORGED}).text)["Events"] == 1


@pytest.mark.parametrize("facet", ["client", "name", "ban", "network", "action", "policy", "verdict", "exemption"])
@pytest.mark.parametrize("words", [*HOSTILE, "x' OR 1=1; DROP TABLE lines; --", "%", "_"])
def test_nothing_from_the_url_is_markup_or_sql(page: Page, facet: str, words: str) -> None:
    """A filter only fails to match; it is shown as it was typed, and the log is still there."""
    for path in ("/", "/lines", "/live"):
        answer = page.client.get(path, params={facet: words})
        assert answer.status_code == 200
        reader = Reader(answer.text)
        assert not {"img", "iframe", "style"} & set(reader.tags)
        assert not any(name.startswith("on") for name, _ in reader.attributes)
    assert figures(page.client.get("/", params={facet: words}).text)["Events"] == 0
    assert figures(page.get("/").text)["Events"] == 11


def test_no_cell_of_a_download_is_a_formula(open_page: OpenPage) -> None:
    """A spreadsheet would run it."""
    with open_page([hostile_record(1, HOSTILE[6])]) as page:
        page.sign_in()
        for url in ("/lines.csv", "/lines.csv?about=tokgate", "/counts.csv?by=client&about=tokgate"):
            answer = page.get(url)
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            assert answer.headers["content-disposition"].startswith("attachment; filename=")
            for row in csv.reader(io.StringIO(answer.text)):
                assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)


def test_a_table_that_is_none(page: Page) -> None:
    """Counts are by what the overview counts by, and nothing else."""
    for by in ("", "event_id", 'client" FROM lines --', "file"):
        assert page.client.get("/counts.csv", params={"by": by}).status_code == 404


def test_answers_are_kept_until_the_log_changes(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same page twice asks once; a new line is seen at once."""
    assert figures(page.get("/").text)["Events"] == 11
    asked: list[object] = []
    original = questions.ranking
    monkeypatch.setattr(questions, "ranking", lambda *said: asked.append(said) or original(*said))
    page.get("/")
    assert asked == []
    with page.log.open("ab") as stream:
        stream.write(encode(numbered(77)))
    assert figures(page.get("/").text)["Events"] == 12
    assert len(asked) == len(questions.RANKED)


def test_an_empty_log_and_none(open_page: OpenPage) -> None:
    """Every page says so."""
    with open_page([]) as page:
        page.sign_in()
        for url in ("/", "/lines", "/live"):
            assert page.get(url).status_code == 200
        page.log.unlink()
        assert "No line of the log is like that" in page.get("/lines").text


def test_tables_can_be_heard(page: Page) -> None:
    """Captions, scopes, labels; the chart is hidden, and the table beside it has its links."""
    for url in ("/", "/lines", "/live"):
        text = page.get(url).text
        assert text.count("<table") == text.count("<caption")
        assert "<th>" not in text
        assert text.count("<h1>") == 1
        labels = set(re.findall(r'<label for="([^"]+)"', text))
        fields = set(re.findall(r'<(?:input|select) id="([^"]+)"', text))
        assert labels == fields
    overview = page.get("/").text
    assert 'aria-hidden="true"' in re.search(r"<svg [^>]*pygal[^>]*>", overview)[0]  # type: ignore[index]
    charted = set(re.findall(r'<a href="([^"]+)" tabindex="-1"><rect', overview))
    table = overview[overview.index("As a table") :]
    assert charted <= set(re.findall(r'<a href="([^"]+)">', table))
