"""The report's languages: complete, with the same places for values, and local time beside UTC."""

import re
from datetime import datetime
from pathlib import Path

import pytest

from tokgate.analytics.report import page, wording
from tokgate.analytics.report.ban_facts import Scope
from tokgate.analytics.report.charts import PHASE_COLORS, WORDS
from tokgate.analytics.report.wording import SIGNALS, VISIBILITIES, Language, Wording, texts
from tokgate.cli.log import report_integrity

TEMPLATE = Path(page.__file__).parent / "templates" / "report.html"
OTHERS = [language for language in Language if language is not Language.EN]
PIECES = ("minute", "hour", "day", "week", "month")


def keys() -> set[str]:
    """Every text that the template and its words ask for."""
    found = set(re.findall(r'_\("((?:[^"\\]|\\.)*)"[,)]', TEMPLATE.read_text("utf-8")))
    for piece in PIECES:
        found |= {f"Events per {piece}, in UTC", f"Different clients per {piece}", f"Busiest {piece}s"}
    found |= set(re.findall(r'Sentence\(\s*"([^"]+)"', Path(report_integrity.__file__).read_text("utf-8")))
    found |= set(re.findall(r'"(\w+:? {\w+})"', Path(wording.__file__).read_text("utf-8")))
    found |= {
        *WORDS.values(),
        *SIGNALS.values(),
        *VISIBILITIES.values(),
        *("Client", "User", "Name", "Ban", "Action", "Verdict", "Network"),
        page.NOT_VERIFIABLE.sentences[0].text,
        *PHASE_COLORS,
        page.BANS_OF_LOG,
        page.BANS_OF_POLICY,
        page.NOT_VERIFIED.sentences[0].text,
    }
    return found


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated(language: Language) -> None:
    """No sentence of another language stands in a report, and no value of a sentence is missing."""
    known = texts(language)
    assert keys() - known.keys() == set()
    for english, translated in known.items():
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", translated)), english
    assert known.keys() == texts(Language.FR).keys()


def test_values_are_escaped() -> None:
    """What a client wrote stays text in every sentence."""
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
