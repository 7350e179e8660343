"""The pages: right in their numbers, every bar and value a link to what it counts, and safe whatever clients say."""

import csv
import io
import json
import re
from contextlib import closing
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from labs.logs import refusal, write
from labs.review_page import OpenPage, Page, numbered, sample
from labs.samples import NOON, OBSERVER, SNAPSHOT, exception_request, stamp
from tokgate.analytics.index import Index
from tokgate.blocklog.integrity.evidence import NoProof, prove
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.records.coverage import coverage_counted
from tokgate.blocklog.records.lifecycle import started
from tokgate.blocklog.records.log_state import log_gap
from tokgate.blocklog.records.record import EventAction, Stamp, encode
from tokgate.blocklog.records.requests import RequestState, exception_answered, exception_requested
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.writer import LogWriter
from tokgate.policy.decision import Reason, Signal, Verdict
from tokgate.policy.observation import Stage
from tokgate.webui import queries
from tokgate.webui.context import CODES
from tokgate.webui.log_query import PAGE_ROWS

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
    found = re.findall(r"<dt>([^<]+)</dt><dd>(?:<a [^>]+>)?([0-9\u202f]+)", text)
    return {label: int(number.replace("\u202f", "")) for label, number in found}


def behind(page: Page, link: str) -> int:
    """How many events the lines stand for to which a link leads."""
    downloaded = page.get(unescape(link).replace("/lines?", "/lines.csv?")).text
    return sum(int(row["events"]) for row in csv.DictReader(io.StringIO(downloaded)))


def wrong_bars(page: Page, text: str) -> list[tuple[str, str]]:
    """The bars of a chart that lead to other lines than they count."""
    bars = re.findall(r'<a href="([^"]+)" tabindex="-1">\s*<rect [^>]*>\s*<title>[^<]*?: ([0-9]+) ', text)
    assert bars
    return [(link, number) for link, number in bars if behind(page, link) != int(number)]


def rows(text: str) -> int:
    return text.count('<th scope="row" class="t" data-label="Time">')


def test_the_overview_counts_everything_once(page: Page) -> None:
    """Repeats add up; the chart, its table and each ranking come to the same sum."""
    text = page.get("/").text
    assert figures(text) == {
        "Events": 11, "blocked": 10, "warned": 1, "would block": 0, "exempt": 0, "Clients": 3, "Domains": 1,
    }  # fmt: skip
    assert sum(int(number) for number in re.findall(r"<title>[^<]*?: ([0-9]+) \w", text)) == 11
    assert [by for by in queries.RANKED if behind(page, f"/counts.csv?by={by}") != 11] == []
    over = list(csv.DictReader(io.StringIO(page.get("/counts.csv?by=time").text)))
    assert sum(int(row["block"]) + int(row["warn"]) for row in over) == 11


def test_what_holds_now(page: Page) -> None:
    """The overview has what the policies say now, as text."""
    text = page.get("/").text
    assert "<li>1 ban is in force</li>\n<li>block: &lt;b&gt;The ban&lt;/b&gt; [ban] for office</li>" in text


@pytest.mark.parametrize("down", queries.CROSSED)
@pytest.mark.parametrize("across", ["hour", "client", "ban"])
def test_tables_count_everything_once(page: Page, down: str, across: str) -> None:
    """By any two fields the cells come to the sum of the overview."""
    text = page.get(f"/table?down={down}&across={across}&zone=Europe/Brussels").text
    cells = re.findall(r'<td class="n s([0-5])">(?:<a [^>]+>|<span class="none">)?([0-9]+)', text)
    assert sum(int(number) for _, number in cells) == 11
    assert all((shade == "0") == (number == "0") for shade, number in cells)


def test_hours_and_days_are_those_of_the_zone(page: Page) -> None:
    """Without fields a table is of hours by day of the week: 10 March 2023 was a Friday."""
    row = page.get("/table?zone=Europe/Brussels").text.partition('<th scope="row">Fri</th>')[2].partition("</tr>")[0]
    counts = [int(number) for number in re.findall(r'<td class="n s[0-5]">(?:<span class="none">)?([0-9]+)', row)]
    assert {hour: count for hour, count in enumerate(counts) if count} == {12: 1, 13: 1, 14: 1, 15: 5}
    wrong = page.get("/table?down=secret")
    assert (wrong.status_code, "There is no such field" in wrong.text) == (400, True)


def test_a_misspelt_parameter_is_told(page: Page) -> None:
    """It would otherwise show everything, as if nobody had been asked for."""
    answer = page.get("/lines?clinet=192.0.2.9")
    assert answer.status_code == 400
    assert "clinet: There is no such parameter." in answer.text


def test_lines_of_one_client_or_another(page: Page) -> None:
    """Several values of a filter mean any of them; what is not meant is left out of all."""
    both = page.get("/lines?client=192.0.2.9&client=2001:db8:1::7").text
    assert rows(both) == 2
    assert rows(page.get("/lines?client=192.0.2.9,2001:db8:1::7").text) == 2
    assert "or Client" in both


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("url_path=/watch", 1), ("url_path=/wat", 0), ("url_path=/", 1), ("user_agent=CURL", 1), ("user_agent=wget", 0),
        ("destination_ip=203.0.113.5", 2), ("ja4=t13d1516h2_8daaf6152771_02713d6af862", 1),
    ],
)  # fmt: skip
def test_filters_on_what_a_request_showed(open_page: OpenPage, said: str, found: int) -> None:
    """A path with what is under it, a part of a user agent, a destination, a fingerprint."""
    with open_page([numbered(1), refusal(stage=Stage.HTTP)]) as opened:
        opened.sign_in()
        assert rows(opened.get(f"/lines?{said}").text) == found


def test_every_link_leads_to_what_it_counts(page: Page) -> None:
    """A bar, a value and a number: each opens lines whose events are as many."""
    text = page.get("/").text
    bars = re.findall(r'<a href="([^"]+)" tabindex="-1">\s*<rect [^>]*>\s*<title>[^<]*?: ([0-9]+) ', text)
    bars += [(link, number) for link, number in re.findall(r'<a href="(/lines\?[^"]*)">([0-9\u202f]+)<', text)]
    assert len(bars) > 20
    assert [(link, number) for link, number in bars if behind(page, link) != int(number)] == []


def test_no_link_is_dead(page: Page) -> None:
    """Everything that the pages link to is there, from the overview on."""
    seen: set[str] = set()
    todo = ["/", "/live"]
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
    assert figures(page.get(f"/?{query}").text)["Events"] == behind(page, f"/lines?{query}") == events


@pytest.mark.parametrize(
    ("query", "events"),
    [
        ("not-client=192.0.2.7", 2),
        ("not-client=192.0.2.0/24", 1),
        ("not-client=192.0.2.7&not-client=192.0.2.9", 1),
        ("not-name=example.org", 0),
        ("not-name=other.example", 11),
        ("not-verdict=warn&client=192.0.2.0/24", 9),
        ("not-user=carol", 11),
        ("not-ban=ban", 0),
    ],
)
def test_what_is_left_out(page: Page, query: str, events: int) -> None:
    """Everything but that, also where a line says nothing of it; what is left out can be taken back."""
    assert figures(page.get(f"/?{query}").text)["Events"] == events
    chosen = page.get(f"/lines?{query}").text
    taken_back = unescape(re.findall(r'<li class="not">.*?href="([^"]+)"', chosen, re.DOTALL)[0])
    assert len(taken_back) < len(f"/lines?{query}")
    assert page.get(taken_back).status_code == 200


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("ban=bann", "The log has no such ban: ban?"),
        ("verdict=blok", "The log has no such verdict: blocked?"),
        ("network=zzz", "The log has no such network."),
        ("client=10.0.0.0/33", "This is no address and no prefix"),
        ("zone=Mars", "This is no time zone"),
    ],
)
def test_a_mistyped_filter_says_so(page: Page, query: str, told: str) -> None:
    """An empty page alone would say that nothing happened. What was typed is still there to be mended."""
    for path in ("/", "/lines", "/live"):
        text = unescape(page.get(f"{path}?{query}").text)
        assert told in text
        assert query.startswith("zone=") or query.partition("=")[2] in text


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("-time", "2023-03-12 23:59:59"),
        ("time", "2023-03-10 11:00:00"),
        ("-events", "2023-03-10 14:00:50"),
        ("-client", "2023-03-11 08:00:00"),
    ],
)
def test_lines_are_sorted_as_asked(page: Page, sort: str, first: str) -> None:
    """By any column, both ways, on the page and in the download; the heading says which."""
    text = page.get(f"/lines?sort={sort}").text
    assert re.findall(r"</span>(2023-[0-9: -]+)</summary>", text)[0] == first
    assert text.count("aria-sort=") == 1
    top = next(csv.DictReader(io.StringIO(page.get(f"/lines.csv?sort={sort}").text)))
    assert top["time"][:19] == first.replace(" ", "T")


def test_columns_are_chosen(page: Page) -> None:
    text = page.get("/lines?column=reason&column=client").text
    heads = re.findall(r'<th scope="col"[^>]*><a [^>]+>([^<▼ ]+)', text)
    assert heads == ["Time", "Client", "Reason"]
    assert "ban that blocks" in text


def test_codes_are_words(page: Page) -> None:
    """People read words; who needs the code finds it at the word, and in the line that opens in place."""
    text = page.get("/lines").text
    assert re.search(r'title="Only tls-handshake-refused">TLS refused</a>', text)
    assert "TLS refused <code>tls-handshake-refused</code>" in text
    for facet, codes in (("verdict", Verdict), ("action", EventAction), ("signal", Signal), ("reason", Reason)):
        assert set(CODES[facet]) == set(codes)


def test_times_in_a_zone(page: Page) -> None:
    """Lines, chart, table and fields show the zone's time; each link still leads to what it counts."""
    text = page.get("/?zone=Europe/Brussels&until=2023-03-11").text
    assert "Begins (Europe/Brussels)" in text
    assert '<th scope="row" class="t">03-10 12:00</th>' in text
    assert 'value="2023-03-11T00:00"' in text
    assert wrong_bars(page, text) == []
    assert "2023-03-13 00:59:59" in page.get("/lines?zone=Europe/Brussels").text


def test_the_change_against_the_period_before(page: Page) -> None:
    """As long a period, before this one; without a beginning there is none to compare with."""
    text = page.get("/?since=2023-03-11&until=2023-03-12").text
    assert re.search(r"75 %<span class=\"unseen\"> against the period before, with 8", text)
    assert "none before" in text
    assert "against the period before, with" not in page.get("/").text


def test_names_of_clients(page: Page) -> None:
    """An address says little; the inventory knows whose it is."""
    for url in ("/", "/lines", f"/event/{sample()[6]['event']['id']}"):
        assert "Desk 9" in page.get(url).text
    assert '<option value="192.0.2.9" label="Desk 9">' in page.get("/").text


def test_what_belongs_to_an_event(open_page: OpenPage) -> None:
    """The other lines of its connection and its repeats, and the lines of its client before and after."""
    one, other, repeat, stranger = (numbered(n, moment=f"2023-03-10T11:00:0{n}Z") for n in range(1, 5))
    one["tokgate"]["connection"] = other["tokgate"]["connection"] = "c1"
    repeat["tokgate"] |= {"repeats": {"of": one["event"]["id"], "count": 2}, "connection": "c2"}
    stranger["tokgate"]["connection"] = "c3"
    with open_page([one, other, repeat, stranger]) as page:
        page.sign_in()
        text = page.get(f"/event/{one['event']['id']}?client=192.0.2.7").text
        belongs = text[text.index('id="related"') : text.index('id="why"')]
        assert re.findall(r"/event/[0-9a-f-]+(?=\")", belongs) == [
            f"/event/{e['event']['id']}" for e in (other, repeat)
        ]
        assert f'rel="next" href="/event/{other["event"]["id"]}?client=192.0.2.7"' in text
        assert 'rel="prev"' not in text
        last = page.get(f"/event/{stranger['event']['id']}").text
        assert 'id="related"' not in last
        assert f'rel="prev" href="/event/{repeat["event"]["id"]}"' in last


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
        assert wrong_bars(page, page.get("/?about=tokgate").text) == []
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
            seen += re.findall(r'href="/event/([0-9a-f-]+)[?"]', text)
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
        assert re.search(r">192\.0\.2\.7</a>.*>carol</a>", page.get("/lines").text, re.DOTALL)
        assert 'id="by-user"' not in page.get("/?client=192.0.2.9").text


def test_a_page_too_far(page: Page) -> None:
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
            assert reader.tags.count("script") == (2 if url.startswith(("/live", "/?")) or url == "/" else 1)
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
def test_nothing_from_the_url_is_markup_or_sql(page: Page, facet: str) -> None:
    """A filter only fails to match; it is shown as it was typed, and the log is still there."""
    for words in (*HOSTILE, "x' OR 1=1; DROP TABLE lines; --", "%", "_"):
        answers = {path: page.client.get(path, params={facet: words}) for path in ("/", "/lines", "/live")}
        for answer in answers.values():
            assert answer.status_code == 200, words
            reader = Reader(answer.text)
            assert not {"img", "iframe", "style"} & set(reader.tags), words
            assert not any(name.startswith("on") for name, _ in reader.attributes), words
        assert figures(answers["/"].text)["Events"] == 0, words
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
    original = queries.ranking

    def ranking(*said: Any) -> Any:
        asked.append(said)
        return original(*said)

    monkeypatch.setattr(queries, "ranking", ranking)
    page.get("/")
    assert asked == []
    with page.log.open("ab") as stream:
        stream.write(encode(numbered(77)))
    assert figures(page.get("/").text)["Events"] == 12
    assert len(asked) == len(queries.RANKED)


def test_an_empty_log_and_none(open_page: OpenPage) -> None:
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
    assert 'aria-hidden="true"' in re.search(r"<svg [^>]*over-time[^>]*>", overview)[0]  # type: ignore[index]
    charted = set(re.findall(r'<a href="([^"]+)" tabindex="-1">\s*<rect', overview))
    table = overview[overview.index("As a table") :]
    assert charted <= set(re.findall(r'<a href="([^"]+)">', table))


def test_the_proof_of_a_line(open_page: OpenPage, tmp_path: Path) -> None:
    """The page of an event offers its proof; a line that no checkpoint covers says so instead of offering rubbish."""
    path = tmp_path / "written" / "block.ndjson"
    writer = LogWriter(path, OBSERVER, LogOptions())
    writer.start()
    writer.put(refusal())
    assert writer.close(60)
    event = json.loads(path.read_bytes().splitlines()[0])["event"]["id"]
    where = f"/event/{event}/proof.json"
    with open_page(path.read_bytes().splitlines(keepends=True)) as page:
        page.sign_in()
        assert where in Reader(page.get(f"/event/{event}").text).links
        answer = page.get(where)
        assert answer.headers["content-disposition"] == f'attachment; filename="proof-{event}.json"'
        assert answer.json() == prove(event, [path])
        with closing(Index([path], verifier_of=lambda _: Verifier(["A" * 43 + "="]))) as index:
            index.catch_up(5)
            with pytest.raises(NoProof):  # by another key than the log's
                index.prove(event)
        missing = page.get("/event/01862000-0000-7000-8000-00000000000f/proof.json")
        assert missing.status_code == 404
        assert "no record of these files has the id" in missing.text


def test_requests_for_exceptions(open_page: OpenPage) -> None:
    """Each with its answer, if there is one, and links to both lines; whatever people wrote is text."""
    names = [stamp(number=number).id for number in range(4)]
    asked = [exception_request(id=name, why=HOSTILE[0]) for name in names[:2]]
    lines = list[Any]()
    for each in asked:
        lines.append(exception_requested(Stamp(each["id"], NOON, OBSERVER), each, "v", disguised=False))
    forging = f"The request {names[1]} for an exception "
    answer = exception_request(id=names[0], state=RequestState.DECLINED, by="bob", reason=forging)
    lines.append(exception_answered(Stamp(names[2], NOON.add(seconds=1), OBSERVER), answer, "v"))
    with open_page(lines) as page:
        page.sign_in()
        text = page.get("/requests").text
        assert page.get(f"/event/{names[0]}").status_code == 200
    rows = text[text.index("<tbody>") :].split("</tr>")
    (declined,) = (row for row in rows if names[0] in row and f"/event/{names[0]}" in row)
    (waits,) = (row for row in rows if f"/event/{names[1]}" in row)
    assert (f"/event/{names[2]}" in declined, "declined by bob" in declined, "waits" in waits) == (True, True, True)
    assert HOSTILE[0] not in text
    with open_page() as page:
        page.sign_in()
        assert "Nobody has asked" in page.get("/requests").text
