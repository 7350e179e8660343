"""The report's languages: complete, with the same places for values, and local time beside UTC."""

import re
from datetime import datetime
from pathlib import Path

import pytest

from tokgate.analytics.report import page
from tokgate.analytics.report.charts import PHASE_COLORS
from tokgate.analytics.report.report_data import Scope
from tokgate.analytics.report.texts import Language, Wording, catalogue_of
from tokgate.blocklog.records.record import TRAFFIC
from tokgate.cli.log import report_integrity
from tokgate.policy.decision import Signal, Verdict
from tokgate.policy.observation import Visibility

TEMPLATE = Path(page.__file__).parent / "templates" / "report.html"
SOURCES = (Path(page.__file__), Path(page.__file__).with_name("texts.py"), Path(report_integrity.__file__))
OTHERS = [language for language in Language if language is not Language.EN]
PIECES = ("minute", "hour", "day", "week", "month")


def asked() -> set[str]:
    """Every text that the template and the modules around it ask for."""
    found = set(re.findall(r'_\("((?:[^"\\]|\\.)*)"[,)]', TEMPLATE.read_text("utf-8")))
    for piece in PIECES:
        found |= {f"Events per {piece}, in UTC", f"Different clients per {piece}", f"Busiest {piece}s"}
    for source in SOURCES:
        text = source.read_text("utf-8")
        found |= set(re.findall(r'Sentence\(\s*"([^"]+)"', text)) | set(re.findall(r'"(\w+:? {\w+})"', text))
    labels = {"Client", "User", "Name", "Ban", "Action", "Verdict", "Network", "Clients"}
    return found | labels | {page.BANS_OF_LOG, page.BANS_OF_POLICY}


def test_english_has_all_that_is_asked_for() -> None:
    """And nothing that nobody asks for: texts, and words for the codes of the log."""
    english = catalogue_of(Language.EN)
    assert set(english.texts) == asked()
    assert {kind: set(words) for kind, words in english.codes.items()} == {
        "verdict": set(Verdict), "signal": set(Signal), "visibility": set(Visibility), "phase": set(PHASE_COLORS),
        "action": {action.value for action in TRAFFIC},
    }  # fmt: skip


@pytest.mark.parametrize("language", OTHERS)
def test_languages_have_the_same_keys(language: Language) -> None:
    """No sentence of another language stands in a report, and no value of a sentence is missing."""
    english, other = catalogue_of(Language.EN), catalogue_of(language)
    assert other.texts.keys() == english.texts.keys()
    assert {kind: set(words) for kind, words in other.codes.items()} == {
        kind: set(words) for kind, words in english.codes.items()
    }
    for text, translated in other.texts.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", translated)), text
    for text, said in english.texts.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", said)), text


def test_records_are_told_in_the_language() -> None:
    """Each action of traffic, with its name in it, who and why; what a client wrote stays text."""
    row = {"client": "192.0.2.7", "network": "bureaux", "what": "<b>", "rule_title": "TikTok"}
    for action in TRAFFIC:
        said = [str(Wording(language).sentence(row | {"action": action.value})) for language in Language]
        assert len(set(said)) == len(Language)
        assert all(each.startswith("192.0.2.7 (bureaux) ") and "&lt;b&gt;" in each for each in said)
    refused = row | {"action": "tls-handshake-refused", "what": "tiktok.com"}
    assert str(Wording(Language.FR).sentence(refused)) == (
        "192.0.2.7 (bureaux) s&#39;est vu refuser tiktok.com\u00a0: TikTok."
    )


def test_values_are_escaped() -> None:
    assert Wording(Language.EN)("others: {count}", count="<b>") == "others: &lt;b&gt;"


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        (None, "2023-03-26 00:30"),
        ("Europe/Brussels", '2023-03-26 00:30 <span class="local">(01:30 CET)</span>'),
        ("America/New_York", '2023-03-26 00:30 <span class="local">(2023-03-25 20:30 EDT)</span>'),
    ],
)
def test_local_time_beside_utc(zone: str | None, said: str) -> None:
    """With its date where that is another, and the name of the offset that holds then."""
    assert Wording(Language.EN, zone).moment(datetime(2023, 3, 26, 0, 30)) == said
    assert Wording(Language.EN, zone).moment(None) == "–"


def test_who_is_in_scope() -> None:
    """Everything about a network is said in the report's language."""
    network = Scope(name="<offices>", members=("10.32.0.0/14",), devices=1200, users=1, without=("10.33.0.0/16",))
    said = str(Wording(Language.DE).scope(network))
    assert said == "&lt;offices&gt; (10.32.0.0/14, Ger\u00e4te: 1\u202f200, Benutzer: 1, au\u00dfer 10.33.0.0/16)"
    assert Wording(Language.DE).scope(Scope(name="press")) == "press"
