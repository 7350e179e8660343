"""The report: complete, self-contained, right in its numbers, and safe whatever clients called themselves."""

import json
import re
import shutil
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from labs.builders import at, ban, duration, exemption, network, policy_in, snapshot, wall
from labs.command_line import POLICY, Command
from labs.logs import WriteLog, refusal, repeats
from labs.samples import NOON, OBSERVER, SNAPSHOT, stamp
from tokgate.analytics.counts import MAX_BARS, buckets
from tokgate.analytics.engine import LogDatabase
from tokgate.analytics.report.charts import attempts_over_time
from tokgate.analytics.report.report_data import (
    BanPhases,
    PhaseSpan,
    collect,
    facts_of_policy,
    phases_of_log,
    phases_of_policy,
)
from tokgate.analytics.report.texts import Language, Wording
from tokgate.blocklog.records.coverage import coverage_counted
from tokgate.blocklog.records.lifecycle import phase_changed, started
from tokgate.blocklog.records.log_state import log_gap
from tokgate.blocklog.records.record import encode
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.writer import LogWriter
from tokgate.cli.log.report import with_information
from tokgate.policy.analysis.timeline import transitions
from webui.test_views import Reader

OF_MARCH = ("--from", "2023-03-01", "--to", "2023-04-01")
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
    with LogDatabase([log]) as database:
        found = collect(database, *MARCH, NOON)
    assert found.totals.events == 102
    assert found.verdicts == {"block": 101, "allow": 1}
    assert (found.totals.clients, found.dropped, found.unreadable) == (3, 7, 0)
    assert [(row["client"], row["days"], row["events"]) for row in found.repeated] == [("192.0.2.7", 5, 100)]
    assert [row["client"] for row in found.new_clients] == ["192.0.2.10", "192.0.2.50"]
    assert [(row["exemption"], row["events"]) for row in found.exemptions] == [("press", 1)]
    assert {row.value: (row.verdicts["allow"], row.verdicts["block"]) for row in found.by_client.rows} == {
        "192.0.2.7": (0, 100), "192.0.2.10": (0, 1), "192.0.2.50": (1, 0),
    }  # fmt: skip
    assert [row["policy"] for row in found.policies] == ["test"]
    assert sum(map(sum, found.over_time.values())) == found.totals.events
    for ranking in (found.networks, found.by_client, found.by_name, found.signals, found.visibilities):
        assert sum(row.events for row in ranking.rows) + ranking.other == found.totals.events


def reported(tokgate: Command, log: Path, *options: str) -> str:
    target = log.with_name("r.html")
    outcome = tokgate("log", "report", "--log", str(log), "-o", str(target), *options)
    assert (outcome.code, outcome.out) == (0, "")
    return target.read_text(encoding="utf-8")


def outside(page: str) -> list[str]:
    """What a page would fetch or run; its elements are closed in order."""
    reader = Reader(page)
    found = [tag for tag in reader.tags if tag in ("script", "link", "img", "iframe", "object")]
    return found + [name for name, _ in reader.attributes if name in ("src", "href") or name.startswith("on")]


def test_the_page_is_complete_and_needs_nothing(log: Path, tokgate: Command) -> None:
    """Every section, charts with words for those who can't see them, no script, nothing from the network."""
    page = reported(tokgate, log, *OF_MARCH)
    assert outside(page) == []
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "The bans", "What happened", "Integrity of the log", "Repeated attempts", "New clients", "Exemptions used",
        "Coverage", "Policies in force", "Method and limits",
    ]  # fmt: skip
    for said in (
        "the log has no chain", "could not be written (log-gap): 7.", "192.0.2.7", "Monitoring of statements",
        "has no coverage records", "<code>test</code>", 'role="img"', "ban: block",
        'counter(page) " / " counter(pages)',
    ):  # fmt: skip
        assert said in page
    assert Path("r.html").stat().st_mode & 0o007 == 0


def test_one_client_has_no_chart_of_clients(log: Path, tokgate: Command) -> None:
    """It would show a row of ones."""
    for extra, charts in ((), 2), (("--client", "192.0.2.50"), 1):
        assert reported(tokgate, log, *OF_MARCH, *extra).count("<svg ") == charts


def test_each_ban_has_the_time_of_its_own_zone() -> None:
    """Where networks live in several zones; a ban in two of them has its phases in both."""
    lasting: dict[str, Any] = {"starts": wall("2023-01-05T00:00"), "duration": duration("P6M")}
    policy = snapshot(
        ban(networks=("brussels",), **lasting),
        ban("both", networks=("brussels", "lisbon"), **lasting),
        networks=(network("brussels", "192.0.2.0/28"), network("lisbon", "192.0.2.16/28", zone="Europe/Lisbon")),
        exemptions=(exemption(starts=wall("2023-03-05T00:00"), until=wall("2023-03-20T00:00")),),
    )
    say = Wording(Language.EN)
    begins = {
        facts.name: [str(say.moment(phase.start, phase.zone)) for phase in facts.phases if phase.phase == "block"]
        for facts in facts_of_policy(policy, ("ban", "both"))
    }
    brussels = '2023-01-04 23:00 <span class="local">(2023-01-05 00:00 CET)</span>'
    assert begins == {"ban": [brussels], "both": [brussels, '2023-01-05 00:00 <span class="local">(00:00 WET)</span>']}
    lanes = phases_of_policy(policy, datetime(2023, 3, 1), datetime(2023, 4, 1))
    assert [(lane.ban, lane.exempt) for lane in lanes] == [
        ("ban", (PhaseSpan("press", datetime(2023, 3, 4, 23), datetime(2023, 3, 19, 23)),)), ("both", ()),
    ]  # fmt: skip
    drawn = attempts_over_time(buckets(datetime(2023, 3, 1), datetime(2023, 4, 1)), {}, lanes, say)
    assert "ban: Exemption press" in drawn


def test_clients_cannot_write_into_the_page(write_log: WriteLog, tokgate: Command) -> None:
    """Markup in names stays text, in tables and in charts."""
    record = refusal()
    for field in ("ban", "network", "signal"):
        record["tokgate"][field] = '<script>alert("x")</script>'
    record["destination"] |= {"registered_domain": "<img src=x onerror=alert(1)>"}
    assert outside(reported(tokgate, write_log([record]))) == []


def test_forged_names_are_shown_as_they_are_made(write_log: WriteLog, tokgate: Command, tmp_path: Path) -> None:
    """In tables, and in the chart whose lanes the log tells: no character turns the order of letters round."""
    forged, shown = "moc.\u202eknalb", r"moc.\u202eknalb"
    changes = [phase_changed(stamp(change.at.format_iso()), change, "test") for change in transitions(SNAPSHOT, *MARCH)]
    attempt = refusal(moment="2023-03-20T08:00:00Z")
    for record in (attempt, *changes):
        record["tokgate"]["ban"] = forged
    attempt["destination"] |= {"registered_domain": forged}
    page = reported(tokgate, write_log([attempt, *changes]), "--policies", str(tmp_path / "none"))
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
    record["tokgate"]["policy"] = {"version": version or policy_in(policies, NOON).version}
    page = reported(tokgate, write_log([record]), *OF_MARCH)
    assert ("spring-ban: announced" in page) is drawn
    assert ("No phases of bans that the log met are known" in page) is not drawn
    assert "The bans and their phases are those of the policy files as they were" in page


@pytest.mark.parametrize(
    ("end", "said"),
    [("2023-04-01", "Busiest days: 2023-03-20 ("), ("2024-03-01", "Busiest weeks, by their first day: 2023-03-20 (")],
)
def test_the_busiest_pieces_of_time_are_named(write_log: WriteLog, tokgate: Command, end: str, said: str) -> None:
    """A date means a day, unless the page says that it begins a week."""
    log = write_log([refusal(moment="2023-03-20T08:00:00Z")])
    assert said in reported(tokgate, log, "--from", "2023-03-01", "--to", end)


def test_an_empty_log_gives_an_empty_report(
    write_log: WriteLog, tokgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No events is something to report; without phases there is nothing to draw."""
    monkeypatch.chdir(tmp_path)
    text = reported(tokgate, write_log([]))
    assert "None." in text
    assert "The log has no records." in text
    assert "<svg" not in text
    with LogDatabase([write_log([])]) as database:
        found = collect(database, None, None, NOON)  # of no period that anything tells of
        assert (found.start, found.end) == (datetime(2023, 3, 10), datetime(2023, 3, 11))
        assert collect(database, None, MARCH[1], NOON).start == datetime(2023, 4, 1)


@pytest.mark.parametrize(
    ("options", "code"),
    [(("-o", "r.txt"), 2), (("-o", "r.html", "--from", "2023-03-02", "--to", "2023-03-02"), 2), ((), 2)],
)
def test_wrong_options_are_usage_errors(log: Path, tokgate: Command, options: tuple[str, ...], code: int) -> None:
    assert tokgate("log", "report", "--log", str(log), *options).code == code
    assert not Path("r.html").exists()


def test_pdf_needs_a_browser(log: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the message says what to do instead."""
    monkeypatch.setenv("PATH", "")
    outcome = tokgate("log", "report", "--log", str(log), "-o", "r.pdf")
    assert outcome.code == 3
    assert "PDF needs Chromium" in outcome.err


def information(printed: bytes) -> dict[str, str]:
    """The document information dictionary of a PDF, found as a reader finds it: by the last cross-reference tables."""
    where, places = int(printed.rstrip().splitlines()[-2]), dict[int, int]()
    trailers: list[str] = []
    while where:
        head, _, trailer = printed[where:].partition(b"trailer")
        trailers.append(trailer.partition(b">>")[0].decode("ascii"))
        lines = iter(head.decode("ascii").splitlines()[1:])
        for line in lines:
            first, count = map(int, line.split())
            for number in range(first, first + count):
                places.setdefault(number, int(next(lines).split()[0]))
        before = re.search(r"/Prev (\d+)", trailers[-1])
        where = int(before[1]) if before else 0
    assert len({re.search(r"/Root (\d+)", trailer)[1] for trailer in trailers}) == 1  # type: ignore[index]
    number = int(re.search(r"/Info (\d+) 0 R", trailers[0])[1])  # type: ignore[index]
    found = printed[places[number] :].partition(b"endobj")[0].decode("ascii")
    assert found.startswith(f"{number} 0 obj")
    return {key: bytes.fromhex(text).decode("utf-16") for key, text in re.findall(r"/(\w+) <([0-9a-f]+)>", found)}


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("command", "title", "subject"),
    [
        (
            ("report", *OF_MARCH),
            "Block log report, 2023-03-01 00:00 – 2023-04-01 00:00 UTC",
            "Purpose: complaint \\u202e",
        ),
        (
            ("case", *OF_MARCH, "--client", "192.0.2.7", "--language", "fr"),
            "Dossier\u00a0: 192.0.2.7, 2023-03-01 00:00 – 2023-04-01 00:00 UTC",
            "Client: 192.0.2.7, Purpose: complaint \\u202e",
        ),
    ],
    ids=["report", "case"],
)
def test_pdf_is_the_page_on_paper(
    log: Path, tokgate: Command, command: tuple[str, ...], title: str, subject: str
) -> None:
    """Chromium prints it; its properties say whose it is, about what, and when it was made, as the page does."""
    by = ("--author", "Renée (1)", "--why", "complaint \u202e")
    assert tokgate("log", *command, *by, "--log", str(log), "-o", "r.pdf").code == 0
    printed = Path("r.pdf").read_bytes()
    assert printed.startswith(b"%PDF-")
    found = information(printed)
    made = found.pop("CreationDate")
    assert re.fullmatch(r"D:\d{14}Z", made)
    assert found.pop("ModDate") == made
    assert found.pop("Creator").startswith("tokgate ")
    assert found == {"Title": title, "Author": "Renée (1)", "Subject": subject}
    assert with_information(printed, {"Title": title}).startswith(printed)
    assert information(with_information(printed, {"Title": "another"})) == {"Title": "another"}


@pytest.mark.parametrize("other", [b"", b"%PDF-1.7 xref stream startxref 9 %%EOF", b"trailer <</Root 1 0 R>>"])
def test_a_pdf_of_another_form_stays_as_it_is(other: bytes) -> None:
    """Without a table to add to, the page is on paper all the same."""
    assert with_information(other, {"Title": "x"}) == other


def test_phases_are_cut_to_the_period() -> None:
    """From a policy and from the log's changes alike; what has ended is not drawn."""
    first, last = datetime(2023, 3, 1), datetime(2023, 3, 20)
    (lane,) = phases_of_policy(SNAPSHOT, first, last)
    assert lane.ban == "ban"
    assert lane.spans[-1].end == last
    day = datetime(2023, 3, 10)
    changes = [("b", day, "block", "announced"), ("b", day + timedelta(days=2), "expired", "block")]
    assert phases_of_log(changes, first, last) == [
        BanPhases("b", "b", (PhaseSpan("announced", first, day), PhaseSpan("block", day, day + timedelta(days=2))))
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
    """Well-formed, with the phases in it, a band for an exemption, and a bar for each piece."""
    pieces = buckets(datetime(2023, 3, 1), datetime(2023, 3, 11))
    phase = PhaseSpan("block", datetime(2023, 3, 5), datetime(2023, 3, 11))
    lane = BanPhases("b", "B", (phase,), (PhaseSpan("press", datetime(2023, 3, 6), datetime(2023, 3, 8)),))
    bars, say = {"block": list(range(1, 11))}, Wording(Language.EN)
    svg = attempts_over_time(pieces, bars, [lane], say, alt_text="Events per day")
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "Events per day"
    assert [node.text for node in root.iter() if node.get("class") == "said"] == ["b: block"]
    (box, band) = (next(node for node in root.iter() if node.get("class") == kind) for kind in ("phase", "exempt"))
    assert band.findtext("{*}title") == "b: Exemption press"
    assert float(band.get("width") or 0) == pytest.approx(float(box.get("width") or 0) / 3, rel=0.01)
    (series,) = (node for node in root.iter() if node.get("class") == "series block")
    assert [bar.findtext("{*}title") for bar in series][:2] == ["2023-03-01: 1 blocked", "2023-03-02: 2 blocked"]
    heights = [float(bar.get("height") or 0) for bar in series]
    assert len(heights) == 10
    assert heights[-1] == pytest.approx(10 * heights[0], rel=0.02)
    assert float(series[0].get("y") or 0) + heights[0] == pytest.approx(float(series[9].get("y") or 0) + heights[9])


def test_the_chain_is_verified_if_asked(tmp_path: Path, tokgate: Command) -> None:
    """Sound, broken, and a log without chain each have their sentence; a broken one is exit code 1."""
    path, target = tmp_path / "block.ndjson", str(tmp_path / "r.html")
    writer = LogWriter(path, OBSERVER, LogOptions())
    writer.start()
    for day in range(10, 14):
        writer.put(refusal(moment=f"2023-03-{day}T11:00:00Z"))
    assert writer.close(60)
    arguments = ("log", "report", "--log", str(path), "-o", target, "--verify")
    assert tokgate(*arguments).code == 0
    page = Path(target).read_text(encoding="utf-8")
    assert "nothing changed, missing or moved" in page
    last = json.loads(path.read_bytes().splitlines()[-1])
    digest = tokgate("log", "key", "--fingerprint", "--log", str(path)).out.strip()
    for said in (last["tokgate"]["chain"], last["event"]["hash"], digest, sha256(path.read_bytes()).hexdigest()):
        assert f">{said}<" in page
    assert "run it without --no-verify" not in page
    assert tokgate(*arguments[:-1], "--no-verify").code == 0
    assert "run it without --no-verify" in Path(target).read_text(encoding="utf-8")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    outcome = tokgate(*arguments)
    assert (outcome.code, "the log is not what was written" in outcome.err) == (1, True)
    assert "BROKEN" in Path(target).read_text(encoding="utf-8")
    path.write_bytes(encode(refusal()))
    assert tokgate(*arguments).code == 0
    assert "the log has no chain" in Path(target).read_text(encoding="utf-8")


def test_coverage_is_said_plainly(write_log: WriteLog, tokgate: Command) -> None:
    """The share that could be judged, and what was not seen."""
    coverage = coverage_counted(stamp("2023-03-10T01:00:00Z"), {"office": {"sni": 9}, "-": {"none": 1}}, stamp().at)
    coverage["tokgate"]["coverage"]["-"]["{of another version}"] = 0
    page = reported(tokgate, write_log([coverage, coverage, refusal()]))
    assert "{of another version} 0" in page
    assert "Of 20 connections and requests 90 % showed a name" in page
    assert "TLS without a name 2" in page
    assert '<th scope="row">in no network</th><td class="n">2</td><td class="n">0 %</td>' in page


def test_small_groups_are_withheld_under_pseudonyms(write_log: WriteLog, tokgate: Command) -> None:
    """What few pseudonyms share isn't told by name, and the sums stay right; plain addresses withhold nothing."""
    records = []
    for number in range(6):
        record = refusal(moment=f"2023-03-1{number}T08:00:00Z")
        record["source"] = {"address": f"p19-{'abcdefghij'[number] * 16}"}
        records.append(record)
    records[0]["destination"] |= {"registered_domain": "rare.example", "domain": "www.rare.example"}
    path = write_log(records)
    with LogDatabase([path]) as database:
        found = collect(database, *MARCH, NOON, small_groups=5)
        whole = collect(database, *MARCH, NOON)
    assert [row.value for row in found.by_name.rows] == ["example.org"]
    assert (found.by_name.other, found.totals.events) == (1, 6)
    assert {row["most"] for row in found.new_clients} == {"example.org", None}
    assert {row.value for row in whole.by_name.rows} == {"example.org", "rare.example"}
    page = reported(tokgate, path)
    assert "rare.example" not in page
    assert "fewer than 5 clients share" in page
    assert "clients: under 5" in page
    for record in records:
        record["source"] = {"ip": "192.0.2.7", "address": "192.0.2.7"}
    assert "rare.example" in reported(tokgate, write_log(records))


def test_it_begins_with_the_bans(
    write_log: WriteLog, tokgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Title, authority, basis, reference, dates and scope, then filters and author, before anything else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    policy = yaml.safe_load(POLICY)
    stated = {"authority": "Council", "basis": "Circular 7", "reference": "https://example.org/7", "title": "No clips"}
    policy["bans"]["spring-ban"] |= stated
    del policy["bans"]["spring-ban"]["duration"]
    policy["networks"][policy["bans"]["spring-ban"]["networks"][0]]["timezone"] = "Europe/Brussels"
    (tmp_path / "policies" / "policy.yaml").write_text(yaml.safe_dump(policy))
    record = refusal(moment="2023-03-20T23:30:00Z")
    record["tokgate"]["ban"] = "spring-ban"
    options = ("--client", "192.0.2.7", "--author", "Alice Example", "--zone", "Europe/Brussels")
    page = reported(tokgate, write_log([record]), *options)
    first = page[: page.index("<h2>What happened</h2>")]
    for said in (
        *stated.values(),
        "Alice Example",
        "Client: 192.0.2.7",
        "Europe/Brussels",
        "2023-03-10",
        "until lifted",
    ):
        assert said in first, said
    assert '2023-03-20 23:30 <span class="local">(2023-03-21 00:30 CET)</span>' in page
    assert "This command repeats the report" in page


def test_without_policies_the_log_names_the_bans(log: Path, tokgate: Command) -> None:
    """By authority and basis, as the records have them."""
    page = reported(tokgate, log)
    assert "as far as the log tells them" in page
    assert "Circular 7" in page[: page.index("<h2>What happened</h2>")]


@pytest.mark.parametrize(
    ("language", "said"), [("fr", "Ce qui s&#39;est passé"), ("nl", "Wat er is gebeurd"), ("de", "Was geschehen ist")]
)
def test_other_languages(log: Path, tokgate: Command, language: str, said: str) -> None:
    """The whole page is in that language, with the numbers written alike in all."""
    page = reported(tokgate, log, "--language", language, *OF_MARCH)
    assert f'<html lang="{language}">' in page
    assert said in page
    for english in ("What happened", "Integrity of the log", "Method and limits", "not stated", "Events per day"):
        assert english not in page
