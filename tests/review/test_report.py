"""The report: complete, self-contained, right in its numbers, and safe whatever clients called themselves."""

import re
import shutil
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from blocklog.samples import NOON, OBSERVER, SNAPSHOT, stamp
from builders import at
from cli.command_line import POLICY, Command
from review.conftest import WriteLog
from review.logs import refusal, repeats
from tokgate.blocklog.candidates import near_misses
from tokgate.blocklog.coverage import coverage_counted
from tokgate.blocklog.custody import Sealing
from tokgate.blocklog.lifecycle import log_gap, phase_changed, started
from tokgate.blocklog.line import encode
from tokgate.blocklog.writer import LogWriter
from tokgate.config.loader import load
from tokgate.policy.likeness import How, Likeness
from tokgate.policy.timeline import transitions
from tokgate.review.buckets import MAX_BARS, buckets
from tokgate.review.charts import attempts_over_time
from tokgate.review.engine import Review
from tokgate.review.findings import find
from tokgate.review.lanes import Lane, Stretch, lanes_of_log, lanes_of_policy

MARCH = (at("2023-03-01T00:00:00Z"), at("2023-04-01T00:00:00Z"))


@pytest.fixture
def log(write_log: WriteLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A client from before, one that comes back day after day, one that is new, and what tokgate says of itself."""
    monkeypatch.chdir(tmp_path)
    exempt = refusal("192.0.2.50", "2023-03-20T08:00:00Z")
    exempt["event"]["action"] = "exemption-used"
    exempt["tokgate"] |= {"verdict": "allow", "exemption": "press", "exemption_reason": "Monitoring of statements"}
    changes = [phase_changed(stamp(change.at.format_iso()), change, "test") for change in transitions(SNAPSHOT, *MARCH)]
    return write_log(
        [
            refusal("192.0.2.7") | {"@timestamp": "2023-02-20T08:00:00.000000Z"},
            *(refusal("192.0.2.7", f"2023-03-{day:02}T08:00:00Z") for day in range(10, 15)),
            repeats(95, "2023-03-14T08:00:01Z", "2023-03-14T08:00:50Z"),
            refusal("192.0.2.10", "2023-03-15T08:00:00Z"),
            exempt,
            started(stamp("2023-03-01T00:00:00Z"), 1, SNAPSHOT.policy),
            log_gap(stamp("2023-03-16T00:00:00Z"), 7, stamp().at, stamp().at),
            *changes,
            refusal("192.0.2.11", "2023-04-01T00:00:00Z"),
        ]
    )


def test_findings(log: Path) -> None:
    """Repeats add up, the period is half-open, new means never met before."""
    with Review([log]) as review:
        found = find(review, *MARCH, NOON)
    assert found.events == 102
    assert found.verdicts == {"block": 101, "allow": 1}
    assert (found.clients, found.dropped, found.unreadable) == (3, 7, 0)
    assert [(row["client"], row["days"], row["events"]) for row in found.offenders] == [("192.0.2.7", 5, 100)]
    assert [row["client"] for row in found.new_clients] == ["192.0.2.10", "192.0.2.50"]
    assert [(row["exemption"], row["events"]) for row in found.exemptions] == [("press", 1)]
    assert [row["policy"] for row in found.policies] == ["test"]
    assert sum(map(sum, found.over_time.values())) == found.events
    for ranking in (found.networks, found.by_client, found.by_name, found.signals, found.visibilities):
        assert sum(row["events"] for row in ranking.rows) + ranking.other == found.events


class _Reader(HTMLParser):
    """What a page would fetch or run, and which of its elements aren't closed."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe", "object"):
            self.outside.append(tag)
        self.outside += [f"{name}={value}" for name, value in attrs if name in ("src", "href") or name.startswith("on")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_complete_and_needs_nothing(log: Path, tokgate: Command) -> None:
    """Every section, charts with words for those who can't see them, no script, nothing from the network."""
    outcome = tokgate("log", "report", "--log", str(log), "--from", "2023-03-01", "--to", "2023-04-01", "-o", "r.html")
    assert (outcome.code, outcome.out) == (0, "")
    page = Path("r.html").read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(page)
    assert reader.outside == []
    assert reader.open == []
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Attempts over time", "Who, what and by what", "Repeated offenders", "New clients", "Exemptions used",
        "Coverage", "Policies in force", "Method and limits",
    ]  # fmt: skip
    for said in (
        "Not verified for this report", "7 records were lost", "192.0.2.7", "Monitoring of statements",
        "has no coverage records", "<code>test</code>", 'role="img"', "ban: block",
    ):  # fmt: skip
        assert said in page
    assert Path("r.html").stat().st_mode & 0o007 == 0


def test_clients_cannot_write_into_the_page(write_log: WriteLog, tokgate: Command, tmp_path: Path) -> None:
    """Markup in names stays text, in tables and in charts."""
    record = refusal()
    for field in ("ban", "network", "signal"):
        record["tokgate"][field] = '<script>alert("x")</script>'
    record["destination"] |= {"registered_domain": "<img src=x onerror=alert(1)>"}
    target = tmp_path / "r.html"
    assert tokgate("log", "report", "--log", str(write_log([record])), "-o", str(target)).code == 0
    reader = _Reader()
    reader.feed(target.read_text(encoding="utf-8"))
    assert reader.outside == []


def test_forged_names_are_shown_as_they_are_made(write_log: WriteLog, tokgate: Command, tmp_path: Path) -> None:
    """In tables, and in the chart whose lanes the log tells: no character turns the order of letters round."""
    forged, shown = "moc.\u202eknalb", r"moc.\u202eknalb"
    changes = [phase_changed(stamp(change.at.format_iso()), change, "test") for change in transitions(SNAPSHOT, *MARCH)]
    attempt = refusal(moment="2023-03-20T08:00:00Z")
    for record in (attempt, *changes):
        record["tokgate"]["ban"] = forged
    attempt["destination"] |= {"registered_domain": forged}
    target = tmp_path / "r.html"
    options = ("--policies", str(tmp_path / "none"), "-o", str(target))
    assert tokgate("log", "report", "--log", str(write_log([attempt, *changes])), *options).code == 0
    page = target.read_text(encoding="utf-8")
    assert "\u202e" not in page
    assert f"<title>{shown}: " in page
    assert f'<th scope="row">{shown}</th>' in page


@pytest.mark.parametrize(
    ("ban", "version", "drawn"), [("spring-ban", "another", True), ("ban", "another", False), ("ban", None, True)]
)
def test_phases_come_from_the_policies_where_there_are_any(
    write_log: WriteLog, tokgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    ban: str, version: str | None, drawn: bool,
) -> None:  # fmt: skip
    """The page says which it was; bans that the log never met are drawn only where it names their policy's version."""
    monkeypatch.chdir(tmp_path)
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "policy.yaml").write_text(POLICY)
    record = refusal(moment="2023-03-20T08:00:00Z")
    record["tokgate"] |= {"ban": ban}
    policy = load(policies, NOON).policy
    assert policy is not None
    record["tokgate"]["policy"] = {"version": policy.version if version is None else version}
    options = ("--from", "2023-03-01", "--to", "2023-04-01", "-o", "r.html")
    assert tokgate("log", "report", "--log", str(write_log([record])), *options).code == 0
    page = Path("r.html").read_text(encoding="utf-8")
    assert ("spring-ban: announced" in page) is drawn
    assert ("No phases of bans that the log met are known" in page) is not drawn
    assert "by the policy files as they were" in page


@pytest.mark.parametrize(
    ("end", "said"),
    [("2023-04-01", "Busiest days: 20 Mar 2023 ("), ("2024-03-01", "Busiest weeks, by their first day: 20 Mar 2023 (")],
)
def test_the_busiest_pieces_of_time_are_named(
    write_log: WriteLog, tokgate: Command, tmp_path: Path, end: str, said: str
) -> None:
    """A date means a day, unless the page says that it begins a week."""
    target = tmp_path / "r.html"
    log = write_log([refusal(moment="2023-03-20T08:00:00Z")])
    options = ("--from", "2023-03-01", "--to", end, "-o", str(target))
    assert tokgate("log", "report", "--log", str(log), *options).code == 0
    assert said in target.read_text(encoding="utf-8")


def test_an_empty_log_gives_an_empty_report(
    write_log: WriteLog, tokgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No events is something to report; without phases there is nothing to draw."""
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "r.html"
    assert tokgate("log", "report", "--log", str(write_log([])), "-o", str(target)).code == 0
    text = target.read_text(encoding="utf-8")
    assert "None." in text
    assert "The log has no records." in text
    assert "<svg" not in text
    with Review([write_log([])]) as review:
        found = find(review, None, None, NOON)  # of no period that anything tells of
        assert (found.start, found.end) == (datetime(2023, 3, 10), datetime(2023, 3, 11))
        assert find(review, None, MARCH[1], NOON).start == datetime(2023, 4, 1)


@pytest.mark.parametrize(
    ("options", "code"),
    [(("-o", "r.txt"), 2), (("-o", "r.html", "--from", "2023-03-02", "--to", "2023-03-02"), 2), ((), 2)],
)
def test_wrong_options_are_usage_errors(log: Path, tokgate: Command, options: tuple[str, ...], code: int) -> None:
    """Told, and nothing written."""
    assert tokgate("log", "report", "--log", str(log), *options).code == code
    assert not Path("r.html").exists()


def test_pdf_needs_a_browser(log: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the message says what to do instead."""
    monkeypatch.setenv("PATH", "")
    outcome = tokgate("log", "report", "--log", str(log), "-o", "r.pdf")
    assert outcome.code == 3
    assert "PDF needs Chromium" in outcome.err


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_pdf_is_the_page_on_paper(log: Path, tokgate: Command) -> None:
    """Chromium prints it."""
    assert tokgate("log", "report", "--log", str(log), "-o", "r.pdf").code == 0
    assert Path("r.pdf").read_bytes().startswith(b"%PDF-")


def test_phases_are_cut_to_the_period() -> None:
    """From a policy and from the log's changes alike; what has ended is not drawn."""
    first, last = datetime(2023, 3, 1), datetime(2023, 3, 20)
    (lane,) = lanes_of_policy(SNAPSHOT, first, last)
    assert lane.ban == "ban"
    assert lane.stretches[-1].end == last
    day = datetime(2023, 3, 10)
    changes = [("b", day, "block", "announced"), ("b", day + timedelta(days=2), "expired", "block")]
    assert lanes_of_log(changes, first, last) == [
        Lane("b", "b", (Stretch("announced", first, day), Stretch("block", day, day + timedelta(days=2))))
    ]


@pytest.mark.parametrize(
    ("days", "unit"),
    [(1, "hour"), (7, "hour"), (8, "day"), (186, "day"), (187, "week"), (1302, "week"), (4000, "month")],
)
def test_periods_are_divided_into_few_equal_pieces(days: int, unit: str) -> None:
    """Every instant belongs to a piece, and there are never more than a page can show."""
    start = datetime(2023, 3, 10, 12, 30)
    pieces = buckets(start, start + timedelta(days=days))
    assert pieces.unit == unit
    assert pieces.starts[0] <= start
    assert pieces.end >= start + timedelta(days=days)
    assert len(pieces.starts) <= MAX_BARS + 2
    assert list(pieces.starts) == sorted(set(pieces.starts))


def test_charts_are_svg_that_says_what_it_shows() -> None:
    """Well-formed, with the phases in it and a bar for each piece."""
    pieces = buckets(datetime(2023, 3, 1), datetime(2023, 3, 11))
    lane = Lane("b", "B", (Stretch("block", datetime(2023, 3, 5), datetime(2023, 3, 11)),))
    svg = attempts_over_time(pieces, {"block": list(range(1, 11))}, [lane], "Events per day")
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "Events per day"
    assert [node.text for node in root.iter() if node.get("class") == "said"] == ["b: block"]
    assert sum("rect reactive" in (node.get("class") or "") for node in root.iter()) == 10


def test_the_chain_is_verified_if_asked(tmp_path: Path, tokgate: Command) -> None:
    """Sound, broken, and a log without chain each have their sentence; a broken one is exit code 1."""
    path, target = tmp_path / "block.ndjson", str(tmp_path / "r.html")
    writer = LogWriter(path, OBSERVER, Sealing())
    writer.start()
    for day in range(10, 14):
        writer.put(refusal(moment=f"2023-03-{day}T11:00:00Z"))
    assert writer.close(10)
    arguments = ("log", "report", "--log", str(path), "-o", target, "--verify")
    assert tokgate(*arguments).code == 0
    assert "nothing changed, missing or moved" in Path(target).read_text(encoding="utf-8")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    assert tokgate(*arguments).code == 1
    assert "BROKEN" in Path(target).read_text(encoding="utf-8")
    path.write_bytes(encode(refusal()))
    assert tokgate(*arguments).code == 0
    assert "the log has no chain" in Path(target).read_text(encoding="utf-8")


def test_coverage_is_added_up_where_the_log_has_it(write_log: WriteLog) -> None:
    """By network and visibility; what has another shape is left out."""
    hour = started(stamp("2023-03-10T00:00:00Z"), 1, SNAPSHOT.policy)
    covered = {"office": {"sni": 90, "none": 10}, "bent": 7}
    records = [hour | {"tokgate": {"coverage": covered}}, hour | {"tokgate": {"coverage": covered}}, refusal()]
    with Review([write_log(records)]) as review:
        found = find(review, *MARCH, NOON)
    assert found.coverage == {"office": {"none": 20, "sni": 180}}
    assert (found.share.percent, found.shares["office"].total) == ("90 %", 200)


def test_near_misses_are_pointed_to(write_log: WriteLog, tokgate: Command, tmp_path: Path) -> None:
    """By name and number, and to whoever keeps the service files."""
    likeness = Likeness("mycliptok.org", "clips", "cliptok", How.CONTAINS)
    record = near_misses(stamp("2023-03-10T11:00:00Z"), [(likeness, 12)], stamp().at)
    target = tmp_path / "r.html"
    assert tokgate("log", "report", "--log", str(write_log([record, refusal()])), "-o", str(target)).code == 0
    page = target.read_text(encoding="utf-8")
    assert "1 name resembles a banned service without matching a rule of it: mycliptok.org (12). Nothing" in page


def test_coverage_is_said_plainly(write_log: WriteLog, tokgate: Command, tmp_path: Path) -> None:
    """The share that could be judged, and what was not seen."""
    coverage = coverage_counted(stamp("2023-03-10T01:00:00Z"), {"office": {"sni": 9}, "-": {"none": 1}}, stamp().at)
    target = tmp_path / "r.html"
    assert tokgate("log", "report", "--log", str(write_log([coverage, refusal()])), "-o", str(target)).code == 0
    page = target.read_text(encoding="utf-8")
    assert "Of 10 connections and requests 90 % showed a name" in page
    assert "1 TLS that named no host" in page
    assert '<th scope="row">in no network</th><td class="n">1</td><td class="n">0 %</td>' in page
