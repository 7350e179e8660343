"""Whether times make sense: what depends on zones, on now, and on several entries together."""

from collections.abc import Callable
from pathlib import Path

import pytest
from whenever import Instant

from tokgate.config.diagnostics import Code
from tokgate.config.loader import Loaded, load

Say = Callable[[str], Loaded]

HEAD = """\
services: {tiktok: {names: {suffix: [tiktok.com]}}}
networks:
  brussels: {cidrs: [192.0.2.0/25], timezone: Europe/Brussels}
  tokyo: {cidrs: [192.0.2.128/25], timezone: Asia/Tokyo}
"""


def ban(more: str, networks: str = "[brussels]") -> str:
    """A policy with one ban."""
    return f"{HEAD}bans: {{it: {{title: x, services: [tiktok], networks: {networks}, {more}}}}}\n"


def hole(times: str, client: str = "192.0.2.9/32") -> str:
    """An exemption from it."""
    return f"exemptions: {{hole: {{ban: it, clients: [{client}], {times}, reason: x}}}}\n"


def codes(loaded: Loaded) -> list[Code]:
    return [each.code for each in loaded.diagnostics]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("announced: 2024-03-10, starts: 2024-03-10", []),
        ("announced: 2024-03-10T00:01, starts: 2024-03-10", [Code.REVERSED_TIMES]),
        ("monitor_from: 2024-03-09T23:59, starts: 2024-03-10", []),
        ("monitor_from: 2024-03-10, starts: 2024-03-10", [Code.REVERSED_TIMES]),
        ("starts: 2024-03-10, expires: 2024-03-10T00:01", []),
        ("starts: 2024-03-10, last_day: 2024-03-10", []),
        ("starts: 2024-03-10, last_day: 2024-03-09", [Code.REVERSED_TIMES]),
        ("starts: 2024-03-10T12:00+01:00, expires: 2024-03-10T12:00", [Code.REVERSED_TIMES]),
        ("starts: 2024-03-31T02:10, expires: 2024-03-31T02:50", [Code.REVERSED_TIMES]),
        ("starts: 2024-10-27T02:30, expires: 2024-10-27T02:30", [Code.CLOCK_CHANGE] * 2),
        ("starts: 2024-03-10, duration: PT1S", []),
        ("action: warn, monitor_from: 2024-03-01, starts: 2024-03-10", []),
        ("action: warn, warn_from: 2024-03-01, starts: 2024-03-10", [Code.REVERSED_TIMES]),
        ("action: monitor, monitor_from: 2024-03-01, starts: 2024-03-10", [Code.REVERSED_TIMES]),
    ],
)
def test_order_of_times(say: Say, more: str, expected: list[Code]) -> None:
    """Times may touch where that has a meaning; gaps and folds of DST days are seen through."""
    assert codes(say(ban(more))) == expected


def test_order_in_each_zone(say: Say) -> None:
    """What is in order in Brussels may not be so in Tokyo; the error says where."""
    times = "starts: 2024-03-10T12:00+01:00, expires: 2024-03-10T19:00"
    assert codes(say(ban(times))) == []
    (error,) = say(ban(times, "[brussels, tokyo]")).errors
    assert "Asia/Tokyo" in error.message


@pytest.mark.parametrize(
    ("more", "never"),
    [
        ("starts: 2024-03-09, last_day: 2024-03-10, windows: [{days: mon-fri}]", True),
        ("starts: 2024-03-09, last_day: 2024-03-11, windows: [{days: mon-fri}]", False),
        ("starts: 2024-03-09, last_day: 2024-03-10, windows: [{days: fri, from: 22:00, to: 02:00}]", False),
        ("starts: 2024-03-09T02:00, last_day: 2024-03-10, windows: [{days: fri, from: 22:00, to: 02:00}]", True),
        ("starts: 2024-12-25, last_day: 2024-12-25, windows: [{except_holidays: BE}]", True),
        ("starts: 2024-03-31, last_day: 2024-03-31, windows: [{from: 02:00, to: 03:00}]", True),
        ("monitor_from: 2024-03-08, starts: 2024-03-09, last_day: 2024-03-10, windows: [{days: fri}]", False),
        ("starts: 2024-03-09, last_day: 2024-03-10, on_expiry: hold, windows: [{days: mon}]", False),
    ],
)
def test_windows_that_never_open(say: Say, more: str, never: bool) -> None:
    """A ban of a weekend with windows on work days never applies; one that is held does."""
    assert codes(say(ban(more))) == ([Code.NEVER_APPLIES] if never else [])


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (Instant.from_utc(2024, 3, 10, 15), [Code.BAN_OVER, Code.EXEMPTION_OVER]),
        (Instant.from_utc(2024, 3, 10, 22, 59, 59), []),
        (Instant.from_utc(2024, 3, 10, 23), [Code.BAN_OVER, Code.EXEMPTION_OVER]),
    ],
)
def test_over_when_the_last_zone_is(tmp_path: Path, at: Instant, expected: list[Code]) -> None:
    """A ban is over when it has ended in all its zones, to the second."""
    networks = "[tokyo]" if at == Instant.from_utc(2024, 3, 10, 15) else "[brussels, tokyo]"
    path = tmp_path / "x.yaml"
    holes = hole("until: 2024-03-11T00:00", "192.0.2.128/28")
    path.write_text(ban("starts: 2024-03-01, last_day: 2024-03-10", networks) + holes)
    assert codes(load(path, at)) == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ("starts: 2024-04-01T00:00, until: 2024-04-01T00:00", [Code.REVERSED_TIMES]),
        ("starts: 2024-04-01T00:00, until: 2024-04-01T00:01", []),
        ("until: 2024-03-10T00:00", [Code.EXEMPTION_IDLE]),
        ("until: 2024-03-10T00:01", []),
        ("starts: 2024-09-10T00:00, until: 2024-10-01T00:00", [Code.EXEMPTION_IDLE]),
        ("starts: 2024-09-09T23:59, until: 2024-10-01T00:00", []),
    ],
)
def test_exemption_that_exempts_nobody(say: Say, times: str, expected: list[Code]) -> None:
    """An exemption that ends as it, or its ban, begins helps nobody to whom it was promised: the admin is told."""
    assert codes(say(ban("starts: 2024-03-10, last_day: 2024-09-09") + hole(times))) == expected


@pytest.mark.parametrize(("until", "expected"), [("T12:00", []), ("T12:01", [Code.OVERRIDE_TOO_LONG])])
def test_an_override_lasts_a_day(say: Say, until: str, expected: list[Code]) -> None:
    """Where nothing else is said, who is let through for once is let through for a day at most."""
    times = f"starts: 2024-04-01T12:00, until: 2024-04-02{until}, override: true, by: alice"
    assert codes(say(ban("starts: 2024-03-10") + hole(times))) == expected


@pytest.mark.parametrize(("zones", "expected"), [("[brussels]", []), ("[brussels, tokyo]", [Code.OVERRIDE_TOO_LONG])])
def test_an_override_is_measured_in_each_zone(say: Say, zones: str, expected: list[Code]) -> None:
    """A day and an hour by the clock is a day where that night loses an hour, and too long where it doesn't."""
    times = "starts: 2024-03-30T12:00, until: 2024-03-31T13:00, override: true, by: alice"
    assert codes(say(ban("starts: 2024-03-10", zones) + hole(times))) == expected
