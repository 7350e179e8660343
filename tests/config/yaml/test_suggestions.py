"""What was probably meant: guessed only where nothing else can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.config.format import times
from tokgate.config.yaml import suggestions


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2023-3-1", "2023-03-01"),
        ("2023/03/10", "2023-03-10"),
        ("2023.3.10", "2023-03-10"),
        ("20230310", "2023-03-10"),
        ("10 March 2023", "2023-03-10"),
        ("10-Mar-2023", "2023-03-10"),
        ("10. Mar. 2023", "2023-03-10"),
        ("March 10, 2023", "2023-03-10"),
        ("Sept 1st 2023", "2023-09-01"),
        ("2023-03-10T8:00", "2023-03-10T08:00"),
        ("2023-3-10 8.30", "2023-03-10T08:30"),
        ("10 March 2023, 18:00", "2023-03-10T18:00"),
        ("2023-3-10 08:00:30+01:00", "2023-03-10T08:00:30+01:00"),
        ("10/03/2023", None),  # in March or in October
        ("10.3.2023", None),
        ("2023-02-30", None),
        ("31 Foober 2023", None),
        ("2023-3-10T24:00", None),
        ("2023-3-10T8:60", None),
        ("2023-3/10", None),
        ("1678406400", None),
        ("tomorrow", None),
        ("", None),
    ],
)
def test_moments(written: str, meant: str | None) -> None:
    """Days and times as people write them, where one day can be meant only."""
    assert suggestions.moment(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("8:00", "08:00"),
        ("8.30", "08:30"),
        ("0800", "08:00"),
        ("18h", "18:00"),
        ("18h30", "18:30"),
        ("8", "08:00"),
        ("8 am", "08:00"),
        ("6pm", "18:00"),
        ("12 AM", "00:00"),
        ("12:15 pm", "12:15"),
        ("13pm", None),
        ("25:00", None),
        ("8:60", None),
        ("480", None),
        ("noon", None),
    ],
)
def test_times_of_day(written: str, meant: str | None) -> None:
    """Times as clocks and people show them."""
    assert suggestions.time_of_day(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("6 months", "P6M"),
        ("1 year", "P1Y"),
        ("90 Days", "P90D"),
        ("2w", "P2W"),
        ("2h", "PT2H"),
        ("36hours", "PT36H"),
        ("30 min", "PT30M"),
        ("6m", None),  # minutes, or months
        ("6M", None),
        ("0 days", None),
        ("1.5 years", None),
        ("six months", None),
        ("6", None),
    ],
)
def test_durations(written: str, meant: str | None) -> None:
    """A number and a unit."""
    assert suggestions.duration(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("monday", "mon"),
        ("Monday-Friday", "mon-fri"),
        ("mon - fry", "mon-fri"),
        ("weekdays", "mon-fri"),
        ("weekend", "sat-sun"),
        ("daily", "mon-sun"),
        ("mon-xyz", None),
        ("holidays", None),
    ],
)
def test_days(written: str, meant: str | None) -> None:
    """Longer names of days, and what several are called together."""
    assert suggestions.days(written, tuple(times.DAYS)) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Europe/Brusels", "Europe/Brussels"),
        ("Brussels", "Europe/Brussels"),
        ("brussels", "Europe/Brussels"),
        ("new york", "America/New_York"),
        ("Rome", "Europe/Rome"),
        ("CEST", None),
        ("+01:00", None),
    ],
)
def test_zones(written: str, meant: str | None) -> None:
    """A misspelt zone, or a city; an abbreviation is nothing to guess from."""
    known = {"Europe/Brussels", "Europe/Rome", "America/New_York", "EST", "UTC", "CET"}
    assert suggestions.zone(written, known) == meant


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("192.0.2.0-192.0.2.255", "prefixes, `192.0.2.0/24`"),
        ("192.0.2.0 - 192.0.2.191", "prefixes, `192.0.2.0/25`, `192.0.2.128/26`"),
        ("192.0.2.1-192.0.2.254", "write it as"),  # fourteen prefixes
        ("192.0.2.9-192.0.2.1", "write it as"),
        ("192.0.2.1-2001:db8::1", "write it as"),
        ("192.0.2.0/33", "at most 32"),
        ("2001:db8::/129", "at most 128"),
        ("192.0.2.0 /24", "did you mean `192.0.2.0/24`?"),
        ("010.0.0.0/8", "leading zeros"),
        ("00:53:00:00:00:01", "a hardware address"),
        ("any", "all addresses are `0.0.0.0/0` and `::/0`"),
        ("192.0.2.*", "did you mean `192.0.2.0/24`?"),
        ("10.*.*.*", "did you mean `10.0.0.0/8`?"),
        ("300.*", "write it as"),
        ('192.0.2.0/24 "2001:db8::/32"', "separated by commas, `192.0.2.0/24`, `2001:db8::/32`"),
        ("192.0.2", "write it as"),
        ("office.example.org", "write it as"),
    ],
)
def test_prefixes(written: str, said: str) -> None:
    """What is wrong with a prefix, where it can be told."""
    assert said in suggestions.prefix(written)


@given(st.text(max_size=40))
def test_guesses_are_valid(written: str) -> None:
    """Whatever is written, a guess is something that would be taken; nothing raises."""
    moment, clock = suggestions.moment(written), suggestions.time_of_day(written)
    assert moment is None or suggestions.moment(moment) in (moment, None)
    assert clock is None or times.clock(clock)
    lasting = suggestions.duration(written)
    assert lasting is None or times.duration(lasting)
    assert suggestions.prefix(written)
    suggestions.days(written, tuple(times.DAYS))
    suggestions.zone(written, {"Europe/Brussels"})
