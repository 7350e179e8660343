"""The calendar feed: what RFC 5545 asks for, one event a transition, and identities that last."""

from pathlib import Path
from typing import Any

import pytest
from icalendar import Calendar

from labs.command_line import POLICY, Command

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


def windowed(policies: Path, windows: str) -> None:
    """Give the ban windows."""
    (policies / "policy.yaml").write_text(POLICY.replace("duration: P6M", f"windows: [{windows}]\n    duration: P6M"))


def test_a_window_is_one_event_that_recurs(policies: Path, tokgate: Command) -> None:
    """Two windows are two events for half a year, in wall time, to the ban's end; none is an event a day."""
    windowed(policies, '{days: mon-fri, from: "08:00", to: "12:00"}, {days: sat, from: "22:00", to: "06:00"}')
    calendar = feed(tokgate)
    week, night = (each for each in calendar.walk("VEVENT") if "rrule" in each)
    assert str(week["summary"]) == "No clips at work: block in this window"
    assert week["dtstart"].dt.isoformat() == "2023-03-10T08:00:00+01:00"
    assert week["dtstart"].params["TZID"] == "Europe/Brussels"
    assert week["dtend"].dt.isoformat() == "2023-03-10T12:00:00+01:00"
    assert week["rrule"].to_ical().decode() == "FREQ=WEEKLY;UNTIL=20230909T215959Z;BYDAY=MO,TU,WE,TH,FR"
    assert night["dtend"].dt.isoformat() == "2023-03-12T06:00:00+01:00"
    assert [str(each["tzid"]) for each in calendar.walk("VTIMEZONE")] == ["Europe/Brussels"]
    assert len(calendar.walk("VEVENT")) == 8
    assert len(set(uids(tokgate))) == 8


def test_holidays_are_exceptions(policies: Path, tokgate: Command) -> None:
    """Whitsun and others: a window that does not open stands in no calendar."""
    windowed(policies, '{days: mon-fri, from: "08:00", to: "12:00", except_holidays: BE}')
    (event,) = (each for each in feed(tokgate).walk("VEVENT") if "rrule" in each)
    out = [each.dt.date().isoformat() for each in event["exdate"].dts]
    assert out == ["2023-04-10", "2023-05-01", "2023-05-18", "2023-05-29", "2023-07-21", "2023-08-15"]


def test_only_windows_within_the_span(policies: Path, tokgate: Command) -> None:
    """A ban that is over before the span, or begins after it, has no window in it."""
    windowed(policies, '{days: mon-fri, from: "08:00", to: "12:00"}')
    for span in (("--from", "2023-10-01", "--to", "2023-11-01"), ("--from", "2023-02-01", "--to", "2023-03-10")):
        assert not [each for each in feed(tokgate, *span).walk("VEVENT") if "rrule" in each]


def test_a_calendar_keeps_what_is_past(policies: Path, tokgate: Command) -> None:
    """Without --from all events are in it, so that a subscribed calendar doesn't lose them."""
    assert [str(each["summary"]) for each in feed(tokgate, "--to", "2024-03-01").walk("VEVENT")] == [
        str(each["summary"]) for each in feed(tokgate).walk("VEVENT")
    ]


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
