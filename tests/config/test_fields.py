"""Text to values, one kind at a time."""

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError
from whenever import Date, Instant, ItemizedDelta, PlainDateTime, Time, Weekday

from tokgate.config import fields, patterns
from tokgate.config.diagnostics import Code
from tokgate.policy.schedule import add_duration
from tokgate.policy.stores import STORES

_VALIDATORS: list[Callable[[Any], Any]] = [
    *(
        getattr(fields, name)
        for name in (
            "text",
            "one_line",
            "link",
            "flag",
            "date",
            "moment",
            "expiry",
            "until",
            "duration",
            "clock",
            "closing",
            "day_range",
            "holiday_code",
            "cidr",
            "address",
            "timezone",
        )
    ),
    *(getattr(patterns, name) for name in ("suffix", "exact", "label", "regex")),
    *(patterns.store_id(store) for store in STORES),
]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2023-03-10", PlainDateTime(2023, 3, 10)),
        ("2023-03-10T08:00", PlainDateTime(2023, 3, 10, 8)),
        ("2023-03-10 08:00:30", PlainDateTime(2023, 3, 10, 8, 0, 30)),
        ("2023-03-10T08:00:30.25", PlainDateTime(2023, 3, 10, 8, 0, 30, nanosecond=250_000_000)),
        ("2023-03-10T08:00Z", Instant.from_utc(2023, 3, 10, 8)),
        ("2023-03-10T08:00+01:00", Instant.from_utc(2023, 3, 10, 7)),
        ("2023-03-10 08:00:00-0330", Instant.from_utc(2023, 3, 10, 11, 30)),
    ],
)
def test_moments(written: str, value: object) -> None:
    """Dates, wall times and instants."""
    assert fields.moment(written) == value


@pytest.mark.parametrize(
    "written",
    ["20230310", "2023-3-10", "2023-03-10T8:00", "2023-03-10T08", "2023-03-10T08:00:60", "2023-03-10T25:00",
     "2023-W10-5", "10.03.2023", "2023-03-10T08:00+25:00", "2023-03-10T08:00 CET",
     "2023-03-10\n", "1899-12-31", "3001-01-01T00:00Z"],
)  # fmt: skip
def test_not_moments(written: str) -> None:
    """One spelling only, within the calendar and a range of years."""
    with pytest.raises(PydanticCustomError) as raised:
        fields.moment(written)
    assert raised.value.type == Code.BAD_TIME


@pytest.mark.parametrize("end", [fields.expiry, fields.until])
def test_ends_need_a_time_of_day(end: Callable[[Any], object]) -> None:
    """A date alone as an end is an error that shows both meanings."""
    with pytest.raises(PydanticCustomError, match="2023-09-10T00:00") as raised:
        end("2023-09-10")
    assert raised.value.type == Code.DATE_ALONE
    assert end("2023-09-10T00:00") == PlainDateTime(2023, 9, 10)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("P6M", ItemizedDelta(months=6)),
        ("P1Y6M", ItemizedDelta(years=1, months=6)),
        ("P2W", ItemizedDelta(weeks=2)),
        ("PT36H", ItemizedDelta(hours=36)),
    ],
)
def test_durations(written: str, value: ItemizedDelta) -> None:
    """ISO 8601, calendar units kept apart from exact ones."""
    assert fields.duration(written).strict_eq(value)


@pytest.mark.parametrize(
    ("written", "minutes"), [("30m", 30), ("2h", 120), ("1h30m", 90), ("1d", 1440), ("1d2h3m", 1563), ("PT2H", 120)]
)
def test_durations_as_typed(written: str, minutes: int) -> None:
    """Short forms are exact time, whatever the clock does; ISO 8601 is taken, too."""
    start = Instant.from_utc(2023, 3, 25, 12)  # the clocks go forward on the next day
    assert add_duration(start, fields.lasting(written), "Europe/Brussels") == start.add(minutes=minutes)


@pytest.mark.parametrize("written", ["PT1M", "PT60S", "PT8H", "P1D", "P1DT12H", "P30D", "PT720H"])
def test_continuing(written: str) -> None:
    """From a minute to 30 days."""
    assert fields.continuing(written).strict_eq(fields.duration(written))


@pytest.mark.parametrize("written", ["PT59S", "P31D", "P1M", "P1Y", "PT720H1S", "P9999999Y", "8h", "-PT8H", "PT0S"])
def test_not_continuing(written: str) -> None:
    """Shorter would show the page at every turn, longer would outlast what it said."""
    with pytest.raises(PydanticCustomError):
        fields.continuing(written)


@pytest.mark.parametrize(
    "written", ["", "2", "h", "2H", "2 h", "1m2h", "2h 30", "0m", "-2h", "1.5h", "P", "2w", "99999999h"]
)
def test_no_durations(written: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(PydanticCustomError):
        fields.lasting(written)


def test_programs() -> None:
    """By their whole path, or none at all."""
    assert fields.program([]) == []
    assert fields.program(["/bin/mail", "desk"]) == ["/bin/mail", "desk"]
    with pytest.raises(PydanticCustomError, match="whole path"):
        fields.program(["mail"])


def test_times_of_day() -> None:
    """The end of a window may be the midnight that ends its day; nothing else is lenient."""
    assert fields.clock("08:30") == Time(8, 30)
    assert fields.closing("24:00") == Time.MIN
    for wrong in ("8:30", "24:00", "08:60", "08:30:00", "0830", "8h30"):
        with pytest.raises(PydanticCustomError):
            fields.clock(wrong)


@given(st.sampled_from(list(fields.DAYS)), st.sampled_from(list(fields.DAYS)))
def test_day_ranges(first: str, last: str) -> None:
    """A range holds both its ends, goes forwards, and together with the way back is the week."""
    days = fields.day_range(f"{first}-{last}")
    assert {fields.DAYS[first], fields.DAYS[last]} <= days
    if first != last:
        assert days | fields.day_range(f"{last}-{first}") == set(Weekday)
    assert fields.day_range(first) == {fields.DAYS[first]}


def test_weekend() -> None:
    """sat-mon passes the end of the week."""
    assert fields.day_range("sat-mon") == {Weekday.SATURDAY, Weekday.SUNDAY, Weekday.MONDAY}


@given(st.ip_addresses(), st.integers(0, 128))
def test_corrected_cidr(address: Any, length: int) -> None:
    """The network that an error about host bits names is the right one, and is accepted."""
    length = min(length, address.max_prefixlen)
    try:
        assert fields.cidr(f"{address}/{length}").prefixlen == length
    except PydanticCustomError as error:
        meant = str(error).rpartition("`")[0].rpartition("`")[2]
        assert fields.cidr(meant) == ip_network(meant)
        if error.type == Code.HOST_BITS:
            assert address in ip_network(meant)


@pytest.mark.parametrize(
    ("store", "identifier"),
    [("google-play", "com.zhiliaoapp.musically"), ("apple", "835599320"), ("microsoft", "9NH2GPH4JZS4"),
     ("amazon", "B00GVCJU8C"), ("galaxy-store", "com.ss.android.ugc.trill"), ("huawei", "C100315379"),
     ("apkmirror", "tiktok-pte-ltd/tik-tok"), ("apkpure", "com.zhiliaoapp.musically")],
)  # fmt: skip
def test_store_identifiers(store: str, identifier: str) -> None:
    """Real identifiers are accepted, for each store there is; the same with a blank in it is not."""
    assert patterns.store_id(store)(identifier) == identifier
    with pytest.raises(PydanticCustomError):
        patterns.store_id(store)(identifier + " x")


def test_every_store_has_an_example() -> None:
    """A store that is added gets a way to check its identifiers."""
    for store in STORES:
        assert patterns.store_id(store)(patterns.STORE_EXAMPLES[store])


@pytest.mark.parametrize("written", ["[/", "https://[::1", "//]"])
def test_brackets_that_hold_no_address(written: str) -> None:
    """What Python can't take apart as a URL is a wrong pattern all the same."""
    for validate in (patterns.suffix, patterns.exact):
        with pytest.raises(PydanticCustomError, match="host name"):
            validate(written)


@pytest.mark.parametrize("validate", _VALIDATORS)
@given(
    written=st.none() | st.text(max_size=30) | st.lists(st.text(), max_size=1) | st.dictionaries(st.text(), st.text())
)
def test_any_text(validate: Callable[[Any], Any], written: Any) -> None:
    """Whatever stands there, it is a value or an error with a code of ours: never another exception."""
    code = None
    try:
        validate(written)
    except PydanticCustomError as error:
        code = error.type
    assert code is None or code in Code


@given(st.dates(min_value=Date(1900, 1, 1).to_stdlib(), max_value=Date(3000, 12, 31).to_stdlib()))
def test_dates_round_trip(day: Any) -> None:
    """Every day in range is read as itself."""
    assert fields.date(day.isoformat()).to_stdlib() == day


def test_names_are_canonical() -> None:
    """Patterns are kept in the spelling in which names are looked up."""
    assert patterns.suffix("TikTok.com.") == "tiktok.com"
    assert patterns.exact("bücher.example") == "xn--bcher-kva.example"
    assert patterns.label("TikTok") == "tiktok"
