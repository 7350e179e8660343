"""The calendar feed: what RFC 5545 asks for, one event a transition, and identities that last."""

from pathlib import Path
from typing import Any

import pytest
from icalendar import Calendar

from cli.command_line import POLICY, Command

SPAN = ("--from", "2023-02-01T00:00Z", "--to", "2024-03-01")


def feed(tokgate: Command, *span: str) -> Any:
    """The calendar, as a client reads it."""
    outcome = tokgate("timeline", "--ics", *(span or SPAN))
    assert (outcome.code, outcome.err) == (0, "")
    return Calendar.from_ical(outcome.out)


def events(tokgate: Command, *span: str) -> dict[str, Any]:
    """Events by what they are called, and in which time."""
    return {f"{each['summary']} {each['dtstart'].dt:%H%z}": each for each in feed(tokgate, *span).walk("VEVENT")}


def test_form(policies: Path, tokgate: Command) -> None:
    """Lines of at most 75 octets that end in CR LF; what a calendar and an event must have."""
    text = tokgate("timeline", "--ics", *SPAN).out
    assert text.startswith("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:")
    assert text.endswith("END:VCALENDAR\r\n")
    assert text.count("\n") == text.count("\r\n")
    assert max(len(line.encode()) for line in text.split("\r\n")) <= 75
    calendar = feed(tokgate)
    assert not calendar.errors
    for event in calendar.walk("VEVENT"):
        assert not event.errors
        assert {"UID", "DTSTAMP", "DTSTART", "SUMMARY"} <= set(event)
        assert event["dtstart"].dt.utcoffset().total_seconds() == 0


def test_one_event_a_transition(policies: Path, tokgate: Command) -> None:
    """The same transitions as in the table, in words."""
    assert [str(event["summary"]) for event in feed(tokgate).walk("VEVENT")] == [
        "No clips at work: announced",
        "Watching the lab: announced -> monitor",
        "Watching the lab: announced -> monitor",
        "No clips at work: announced -> block",
        "No clips at work: exemption press ends",
        "No clips at work: block -> expired",
    ]
    event = events(tokgate)["No clips at work: exemption press ends 16+0000"]
    assert str(event["description"]).splitlines() == [
        "ban spring-ban: clips in office",
        "2023-06-30 18:00 +02:00 Europe/Brussels (2023-06-30T16:00:00Z)",
        "authority: Example Authority",
        "basis: Circular 1 of 10 March 2023",
        "exemption for 192.0.2.9/32: Monitoring of public statements",
    ]


def uids(tokgate: Command, *span: str) -> list[str]:
    """All identities."""
    return [str(event["uid"]) for event in feed(tokgate, *span).walk("VEVENT")]


def test_identities_last(policies: Path, tokgate: Command) -> None:
    """Asked again, from another day, or with another time in the policy, an event is the same event."""
    before = events(tokgate)
    assert len(set(uids(tokgate))) == len(before) == 6
    assert set(uids(tokgate, "--from", "2023-05-01", "--to", "2023-12-01")) < set(uids(tokgate))
    (policies / "policy.yaml").write_text(POLICY.replace("duration: P6M", "duration: P7M"))
    after = events(tokgate)
    moved = before["No clips at work: block -> expired 22+0000"], after["No clips at work: block -> expired 22+0000"]
    assert moved[0]["uid"] == moved[1]["uid"]
    assert moved[0]["dtstart"].dt < moved[1]["dtstart"].dt


def test_windows_are_events_of_their_own(policies: Path, tokgate: Command) -> None:
    """Two windows a day, day after day: no identity twice, and the same ones when asked again."""
    windows = 'windows: [{from: "08:00", to: "12:00"}, {from: "13:00", to: "18:00"}]\n    duration: P6M'
    (policies / "policy.yaml").write_text(POLICY.replace("duration: P6M", windows))
    span = ("--from", "2023-03-13", "--to", "2023-09-01")
    found = uids(tokgate, *span)
    assert len(found) == len(set(found)) > 600
    assert uids(tokgate, *span) == found


@pytest.mark.parametrize("title", ["Clips; all, of\tthem \\ here", "É" * 200, "x" * 500])
def test_text_is_escaped(policies: Path, tokgate: Command, title: str) -> None:
    """What a title holds comes back as it was."""
    quoted = title.replace("\\", "\\\\").replace("\t", " ")
    (policies / "policy.yaml").write_text(POLICY.replace("title: No clips at work", f'title: "{quoted}"'))
    summaries = {str(event["summary"]) for event in feed(tokgate).walk("VEVENT")}
    assert f"{title.replace(chr(9), ' ')}: announced" in summaries


def test_only_one_form(policies: Path, tokgate: Command) -> None:
    """A calendar is not JSON, nor a chart."""
    assert tokgate("timeline", "--ics", "--json").code == 2
    assert tokgate("timeline", "--ics", "--plot", "-").code == 2
