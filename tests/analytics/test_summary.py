"""Counting: every table adds up to the events, exactly, whatever the log holds, and however it is packed."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labs.logs import WriteLog, refusal, repeats, write
from labs.samples import SNAPSHOT, stamp
from tokgate.analytics.engine import LogDatabase
from tokgate.analytics.summary import KEY, By, Summarised, TableOutput, summarise
from tokgate.blocklog.records.lifecycle import started
from tokgate.blocklog.records.record import value_at
from tokgate.policy.observation import Stage


def summary_of(*paths: Path, top: int | None = None) -> Summarised:
    with LogDatabase(paths) as database:
        return summarise(database, top=top)[0]


def total(table: TableOutput) -> int:
    """All events, also of the keys that are cut off."""
    return sum(int(row["count"] or 0) for row in table["rows"]) + table["other"]


def test_an_empty_log_has_an_empty_summary(write_log: WriteLog) -> None:
    summary = summary_of(write_log([]))
    assert [summary[key] for key in ("records", "events", "first", "last")] == [0, 0, None, None]
    assert all(total(table) == 0 for table in summary["tables"].values())


def test_repeats_count_as_what_they_stand_for(write_log: WriteLog) -> None:
    """A record of repeats adds its count and its time span to every table, whatever else is told; in any order."""
    records = [
        repeats(99, "2023-03-10T11:00:01Z", "2023-03-10T11:00:59Z"),
        refusal(moment="2023-03-10T11:00:30Z"),
        refusal(moment="2023-03-10T10:00:00Z", stage=Stage.DNS),
        started(stamp("2023-03-10T09:00:00Z"), 1, SNAPSHOT.policy),
    ]
    summary = summary_of(write_log(records))
    assert (summary["records"], summary["events"]) == (4, 101)
    assert all(total(table) == 101 for table in summary["tables"].values())
    signals = {row["signal"]: (row["count"], row["first"]) for row in summary["tables"][By.SIGNAL]["rows"]}
    assert signals == {"sni": (100, "2023-03-10T11:00:01.000000Z"), "dns-name": (1, "2023-03-10T10:00:00.000000Z")}
    assert summary["tables"][By.ATTEMPT]["rows"] == [
        {
            "client": "192.0.2.7", "name": "example.org", "ban": "ban", "network": "office",
            "count": 101, "first": "2023-03-10T10:00:00.000000Z", "last": "2023-03-10T11:00:59.000000Z",
        }
    ]  # fmt: skip
    assert (summary["first"], summary["last"]) == ("2023-03-10T10:00:00.000000Z", "2023-03-10T11:00:59.000000Z")


@pytest.mark.parametrize(
    "name", ["block.ndjson", "block.ndjson.gz", "block.ndjson.zst", "a [1]*.ndjson", "it's.ndjson"]
)
def test_any_file_is_read(write_log: WriteLog, name: str) -> None:
    """However it is packed, and whatever its name holds."""
    assert summary_of(write_log([refusal()] * 3, name))["events"] == 3


def test_the_rest_of_a_damaged_file_is_told(write_log: WriteLog) -> None:
    """What can be unpacked is counted, and the place where that ends is named."""
    path = write_log([refusal(f"192.0.2.{n % 250}") for n in range(2000)], "block.ndjson.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with LogDatabase([path]) as database:
        summary, _ = summarise(database)
        assert database.damage[0].file == str(path)
        assert "can't be read" in database.damage[0].problem
    assert 0 < summary["events"] < 2000
    assert summary["unreadable"] >= 1


words = st.sampled_from(["a", "b", "c", None])
actions = st.sampled_from(["tls-handshake-refused", "would-block", "exemption-used", "started", "unheard-of", None])
moments = st.sampled_from(["2023-03-10T11:00:00.000000Z", "2023-03-11T11:00:00.000000Z", "no time"])


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Records in the shape of ours, with anything missing or bent."""
    own: dict[str, Any] = {key: draw(words) for key in ("ban", "service", "network", "signal", "reason", "verdict")}
    own["repeats"] = draw(st.none() | st.fixed_dictionaries({"count": st.integers(-1, 5)}))
    return {
        "@timestamp": draw(moments),
        "event": {"action": draw(actions)},
        "source": draw(st.none() | st.fixed_dictionaries({"ip": words})),
        "destination": {"registered_domain": draw(words), "domain": draw(words)},
        "tokgate": draw(st.none() | st.just(own)),
    }


def stands_for(record: dict[str, Any]) -> int:
    """How many events, by the book."""
    count = value_at(record, "tokgate", "repeats", "count")
    return count if isinstance(count, int) and count >= 1 else 1


@settings(max_examples=40)
@given(st.lists(records(), max_size=20), st.none() | st.integers(0, 4))
def test_every_table_adds_up(given_records: list[dict[str, Any]], top: int | None) -> None:
    """For any log and cut: each table's rows and `other` are the events."""
    traffic = ("tls-handshake-refused", "would-block", "exemption-used")
    expected = Counter[str]()
    for record in given_records:
        if record["event"]["action"] in traffic:
            expected[record["event"]["action"]] += stands_for(record)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block-20230311T000000.000000Z.ndjson"
        write(path, given_records)
        summary = summary_of(path, top=top)
    assert summary["records"] == len(given_records)
    assert summary["events"] == expected.total()
    for name, table in summary["tables"].items():
        assert total(table) == summary["events"]
        assert len(table["rows"]) <= table["keys"]
        order = [(-int(row["count"] or 0), *(row[part] for part in KEY[By(name)])) for row in table["rows"]]
        assert order == sorted(order)
    for row in summary["tables"][By.ACTION]["rows"]:
        assert row["count"] == expected[str(row["action"])]
