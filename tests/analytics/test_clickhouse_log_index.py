"""The review page over ClickHouse: each of its questions has the answer that it has over the files."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from whenever import Instant

from labs.waiting import until
from tokgate.analytics.index import Index
from tokgate.blocklog.integrity.evidence import NoProof
from tokgate.webui import queries
from tokgate.webui.log_query import FACETS, About, LogQuery, View
from tokgate.webui.queries import Source

if TYPE_CHECKING:
    from labs.clickhouse import ClickHouse

pytestmark = pytest.mark.skipif(
    find_spec("chdb") is None and os.environ.get("TOKGATE_REQUIRE_E2E") != "1",
    reason="needs chdb, some 500 MB: make setup-clickhouse",
)
SINCE, UNTIL = Instant("2026-11-24T06:00:00Z"), Instant("2026-11-24T18:00:00Z")
QUERIES = {
    "all": LogQuery(),
    "about tokgate": LogQuery(about=About.TOKGATE),
    "a period in a zone": LogQuery(view=View(zone="Europe/Brussels"), since=SINCE, until=UNTIL),
    "a client and a name": LogQuery(filters=(("client", "10.0.0.0/9"), ("name", "tiktok.com"))),
    "left out": LogQuery(excluded=(("verdict", "block"), ("client", "10.0.0.1"), ("user", "nobody"))),
    "hostile": LogQuery(filters=(("client", "' OR 1=1 --"), ("ban", "\\' {x:String}"))),
}


@pytest.fixture(scope="module")
def here(days: list[Path]) -> Iterator[Index]:
    """The files."""
    with closing(Index(days)) as index:
        while index.catch_up(5).waiting:
            pass
        yield index


@pytest.fixture(scope="module")
def there(clickhouse: "ClickHouse") -> Iterator[Source]:
    """The server, with no wait for lines that are being inserted."""
    from tokgate.analytics import clickhouse_log as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEP_SECONDS", 0.001)
        patch.setattr(module, "SETTLED_SECONDS", 0)
        with closing(module.ClickHouseIndex(clickhouse.address)) as index:
            total = "SELECT count() FROM tokgate.events"
            until(
                "lines are old enough to be shown",
                lambda: index.ask("SELECT count(*) FROM lines WHERE readable") == [clickhouse.one(total)],
            )
            yield index


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_counts_are_the_same(here: Index, there: Source, query: LogQuery) -> None:
    """The overview with its chart, rankings and coverage."""
    assert queries.overview(there, query) == queries.overview(here, query)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_lines_are_the_same(here: Index, there: Source, query: LogQuery) -> None:
    """A page of lines, one sorted otherwise, the newest, and the download."""
    by_events = replace(query, view=replace(query.view, sort="-events"), page=2)
    assert queries.lines(there, query).total == queries.lines(here, query).total
    for ask in (_rows(query), _rows(by_events), lambda source: queries.newest(source, query, 20)):
        assert [row["events"] for row in ask(there)] == [row["events"] for row in ask(here)]
    assert sorted(queries.download(there, query), key=str) == sorted(queries.download(here, query), key=str)


def test_suggestions_are_the_same(here: Index, there: Source) -> None:
    """The values of each facet."""
    for facet in FACETS:
        assert queries.choices(there, facet) == queries.choices(here, facet)


def test_an_event(here: Index, there: Source) -> None:
    """Its record as far as columns hold it, its neighbours, and what belongs to it. There is no proof."""
    client = LogQuery(filters=(("client", "10.0.0.1"),))
    events = [row["event_id"] for row in queries.newest(here, client, 8)]
    alike = 0
    for event in events:
        known, found = here.line(event), there.line(event)
        assert known is not None
        assert found is not None
        assert _within(found.record, known.record) == []
        ids = {line.record["event"]["id"] for line in here.related(known)}
        assert {line.record["event"]["id"] for line in there.related(found)} >= ids
        alike += queries.neighbours(there, event) == queries.neighbours(here, event)
    assert alike == len(events) == 8
    assert there.line("01862000-0000-7000-8000-00000000ffff") is None
    assert there.line("no id") is None
    with pytest.raises(NoProof):
        there.prove(events[0])


def test_new_lines_come_once(there: Source) -> None:
    """A live page asks again from the number of the last line that it has: none is left out, none comes twice."""
    last, seen = 0, list[str]()
    while rows := queries.after(there, LogQuery(), last, 500):
        seen += [row["event_id"] for row in rows]
        last = rows[-1]["n"]
    assert queries.after(there, LogQuery(), queries.last_line(there), 500) == []
    assert len(seen) == len(set(seen)) == queries.lines(there, LogQuery()).total


def _rows(query: LogQuery) -> Callable[[Source], list[dict[str, Any]]]:
    return lambda source: list(queries.lines(source, query).rows)


def _within(part: object, whole: object, path: str = "") -> list[str]:
    """Where the first has something else than the second."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return [place for key, value in part.items() for place in _within(value, whole.get(key), f"{path}.{key}")]
    if path == ".source.address" and whole is None:  # a column that comes from one of two fields
        return []
    return [] if part == whole else [f"{path}: {part!r} {whole!r}"]
