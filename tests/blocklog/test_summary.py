"""Counting: every table adds up to the events, exactly, whatever the log holds and however small the tables are."""

import json
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blocklog.samples import SNAPSHOT, judged, seen, stamp
from builders import at
from tokgate.blocklog.folding import Repeats
from tokgate.blocklog.lifecycle import log_gap, started
from tokgate.blocklog.line import encode
from tokgate.blocklog.observation import Endpoint, Stage
from tokgate.blocklog.reader import Junk, Line
from tokgate.blocklog.records import repeats_record, traffic_record
from tokgate.blocklog.summary import By, Summariser, summarise


def line(record: dict[str, Any]) -> Line:
    """A record as the reader gives it."""
    raw = encode(record)
    return Line("block.ndjson", 1, json.loads(raw), raw)


def refusal(client: str, stage: Stage = Stage.TLS, moment: str = "2023-03-10T11:00:00.123456Z") -> Line:
    """A refused attempt."""
    observation = seen(stage, client=Endpoint(client))
    record = traffic_record(stamp(moment), observation, judged(observation, moment), SNAPSHOT)
    assert record is not None
    return line(record)


def test_who_what_when_and_why() -> None:
    """One row answers all four, with the first and the last time whatever the order in the log."""
    summary = summarise(
        [
            refusal("192.0.2.7", moment="2023-03-10T12:00:00Z"),
            refusal("192.0.2.7", Stage.DNS, moment="2023-03-10T11:00:00Z"),
            refusal("192.0.2.8", moment="2023-03-10T11:30:00Z"),
            line(started(stamp(), 1, SNAPSHOT.policy)),
            line(log_gap(stamp(), 5, stamp().at, stamp().at)),
            Junk("block.ndjson", 9, 3, "torn"),
        ]
    )
    assert (summary.records, summary.events, summary.junk, summary.dropped) == (5, 3, 1, 5)
    assert (summary.first, summary.last) == ("2023-03-10T11:00:00.000000Z", "2023-03-10T12:00:00.000000Z")
    top = summary.tables[By.ATTEMPT].rows[0]
    assert top.key == ("192.0.2.7", "example.org", "ban", "office")
    assert (top.count, top.first, top.last) == (2, summary.first, summary.last)
    assert {row.key[0]: row.count for row in summary.tables[By.SIGNAL].rows} == {"sni": 2, "dns-name": 1}
    assert {row.key[0]: row.count for row in summary.tables[By.ACTION].rows} == {
        "tls-handshake-refused": 2,
        "dns-query-blocked": 1,
    }


def test_an_empty_log_has_an_empty_summary() -> None:
    """Nothing read is nothing counted."""
    summary = summarise([])
    assert (summary.events, summary.first, summary.last) == (0, None, None)
    assert all(table.total == 0 for table in summary.tables.values())


def test_a_full_table_counts_the_rest_together() -> None:
    """Keys beyond the bound aren't told apart, but none of their events is lost; known keys stay exact."""
    lines = [refusal(f"192.0.2.{n}") for n in (10, 11, 12, 10, 13, 12, 10)]
    table = summarise(lines, max_keys=2).tables[By.CLIENT]
    assert [(row.key, row.count) for row in table.rows] == [(("192.0.2.10",), 3), (("192.0.2.11",), 1)]
    assert (table.other, table.keys, table.total) == (3, 2, 7)


words = st.sampled_from(["a", "b", "c", "", None])
traffic = st.sampled_from(["tls-handshake-refused", "dns-query-blocked", "would-block", "exemption-used"])
about_us = st.sampled_from(["started", "policy-loaded", "log-continued", "unheard-of", 7, None])


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Records in the shape of ours, with anything missing or bent."""
    tokgate = {key: draw(words) for key in ("ban", "service", "network", "signal", "reason", "verdict")}
    return {
        "@timestamp": draw(st.sampled_from(["2023-03-10T11:00:00.000000Z", "2023-03-11T11:00:00.000000Z", 5])),
        "event": {"action": draw(traffic | about_us)},
        "source": draw(st.none() | st.fixed_dictionaries({"ip": words})),
        "destination": {"registered_domain": draw(words), "domain": draw(words)},
        "tokgate": draw(st.none() | st.just(tokgate)),
    }


@given(st.lists(records()), st.integers(1, 5), st.none() | st.integers(0, 4))
def test_every_table_adds_up(given_records: list[dict[str, Any]], max_keys: int, top: int | None) -> None:
    """For any log, bound and cut: each table's rows and `other` are the events, and rows are exact."""
    counting = Summariser(max_keys)
    for record in given_records:
        counting.add(line(record))
    summary = counting.summary(top)
    actions = Counter(record["event"]["action"] for record in given_records)
    events = sum(
        count
        for action, count in actions.items()
        if action in ("tls-handshake-refused", "dns-query-blocked", "would-block", "exemption-used")
    )
    assert summary.records == len(given_records)
    assert summary.events == events
    for table in summary.tables.values():
        assert table.total == events
        assert len(table.rows) <= min(table.keys, max_keys if top is None else top)
        assert list(table.rows) == sorted(table.rows, key=lambda row: (-row.count, row.key))
    for row in summary.tables[By.ACTION].rows:
        assert row.count == actions[row.key[0]]
        assert row.first <= row.last


def test_repeats_count_as_what_they_stand_for() -> None:
    """A record of repeats adds its count and its time span to every table."""
    first = refusal("192.0.2.7", moment="2023-03-10T11:00:00Z")
    observation = seen(client=Endpoint("192.0.2.7"))
    repeats = Repeats(99, at("2023-03-10T11:00:01Z"), at("2023-03-10T11:00:59Z"), first.record["event"]["id"])
    again = repeats_record(stamp("2023-03-10T11:00:59Z", 2), observation, judged(observation), SNAPSHOT, repeats)
    assert again is not None
    summary = summarise([first, line(again)])
    assert (summary.records, summary.events) == (2, 100)
    assert all(table.total == 100 for table in summary.tables.values())
    (row,) = summary.tables[By.ATTEMPT].rows
    assert (row.count, row.first, row.last) == (100, "2023-03-10T11:00:00.000000Z", "2023-03-10T11:00:59.000000Z")
