"""Times as people type and read them; what untrusted text looks like when it is shown."""

import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant, PlainDateTime

from tokgate.policy.values.text import both, escaped, local, read_moment, readable, readable_lines, utc

START = Instant.from_utc(2023, 3, 9, 23)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2023-03-09T23:00:00Z", START),
        ("2023-03-10T00:00+01:00", START),
        ("2023-03-10T00:00", PlainDateTime(2023, 3, 10)),
        ("2023-03-10", PlainDateTime(2023, 3, 10)),
        ("1900-01-01T00:00Z", Instant.from_utc(1900, 1, 1)),
        ("9899-12-31T23:59", PlainDateTime(9899, 12, 31, 23, 59)),
    ],
)
def test_what_is_typed_is_read(text: str, moment: Any) -> None:
    """A ban can be asked about at an instant, at a wall time, or at the midnight of a day."""
    assert read_moment(text) == moment


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1899-12-31T23:59Z", "outside the years"),
        ("9900-01-01", "outside the years"),
        ("tomorrow", "no time"),
        ("", "no time"),
        ("2023-02-30", "no time"),
    ],
)
def test_what_is_no_time_is_said(text: str, why: str) -> None:
    """A mistyped time is answered with the forms that are allowed, and not with a guess."""
    with pytest.raises(ValueError, match=why):
        read_moment(text)


def test_a_time_reads_the_same_here_and_there() -> None:
    """Whoever reads a decision sees the local time, its zone and UTC; in UTC only once."""
    half = START.add(seconds=30, nanoseconds=500_000_000)
    assert utc(START) == "2023-03-09T23:00:00Z"
    assert local(START, "Europe/Brussels") == "2023-03-10 00:00 +01:00"
    assert local(half, "Asia/Kolkata") == "2023-03-10 04:30:30 +05:30"
    assert both(half, "Europe/Brussels") == "2023-03-10 00:00:30 +01:00 Europe/Brussels (2023-03-09T23:00:30Z)"
    assert both(START, "UTC") == "2023-03-09T23:00:00Z"


INVISIBLE = {
    "zero-width space": "\u200b",
    "C0 control": "\x1b",
    "line separator": "\u2028",
    "lone surrogate": "\udc80",
    "Hangul filler": "\u3164",
    "halfwidth Hangul filler": "\uffa0",
    "combining grapheme joiner": "\u034f",
    "variation selector after a letter": "\ufe0f",
    "variation selector after what can't be seen": "\u200b\ufe0f",
    "Braille blank": "\u2800",
    "joiner between letters that don't join": "\u200d",
    "non-joiner between letters that don't join": "\u200c",
    "ideographic space": "\u3000",
}


@pytest.mark.parametrize("character", INVISIBLE.values(), ids=INVISIBLE)
def test_a_forged_name_shows_what_is_in_it(character: str) -> None:
    """Somebody who reads the name sees that it is not the one that it looks like."""
    forged = f"clips{character}.example.org"
    code = character.encode("unicode_escape").decode()
    assert escaped(forged) == readable(forged) == f"clips{code}.example.org"


def test_no_control_or_unassigned_character_is_shown_as_it_is() -> None:
    """All of Unicode's controls, formats, surrogates, private and unassigned code points, and separators of lines."""
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            assert escaped(chr(code)).isascii(), hex(code)
            assert readable(chr(code)).isascii(), hex(code)


@pytest.mark.parametrize(
    "text",
    [
        "Ban on TikTok",
        "12\u00a0mars\u202f: non",
        "می\u200cخواهم",
        "क्\u200dष",
        "禁令",
        "حظر",
        "⚠\ufe0f stop",
        "a\u0301",
    ],
)
def test_what_a_language_needs_stays(text: str) -> None:
    """Titles of bans are read by people: their typography is left alone."""
    assert readable(text) == text


@pytest.mark.parametrize(("text", "shown"), [("12\u00a0mars", r"12\xa0mars"), ("می\u200cخ", r"می\u200cخ")])
def test_names_have_no_typography(text: str, shown: str) -> None:
    """A name from outside has no claim to spaces or joiners."""
    assert escaped(text) == shown


def test_a_line_break_stays_between_lines_only() -> None:
    """A message of several lines stays one; what else breaks lines does not add any."""
    assert readable_lines("one\ntwo\u2028\rthree") == "one\ntwo\\u2028\\rthree"


@given(st.text())
def test_showing_is_settled_at_once(text: str) -> None:
    """What was escaped already is not escaped again, and has nothing left that Python calls unprintable."""
    assert escaped(text).isprintable()
    assert escaped(escaped(text)) == escaped(text)
    assert readable(readable(text)) == readable(text)
    assert readable(escaped(text)) == escaped(text)
