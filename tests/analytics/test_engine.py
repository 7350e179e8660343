"""The view `events`: closed to everything but the log, filters that are values only, columns that are documented."""

import json
import signal
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from labs.appending import AppenderRuns, append
from labs.builders import at
from labs.logs import WriteLog, refusal
from tokgate.analytics import engine
from tokgate.analytics.engine import LogDatabase
from tokgate.analytics.index import Index
from tokgate.analytics.sql import LogError
from tokgate.blocklog.paths import with_rotated
from tokgate.blocklog.read.reader import Filter, client_filter
from tokgate.blocklog.records.chain import link, stated_head
from tokgate.blocklog.records.record import encode
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.policy.observation import Stage

HOSTILE = "x' OR 1=1; DROP VIEW events; --"


@pytest.fixture
def log(write_log: WriteLog) -> Path:
    return write_log([refusal(), refusal("192.0.2.8", "2023-03-10T12:00:00Z")])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/dev/stdin')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_ndjson('https://example.org/x')",
        "COPY (SELECT 1) TO '{log}'",
        "COPY events TO '{folder}/copy.csv'",
        "SELECT 1; DROP VIEW events",
        "INSERT INTO events VALUES (1)",
        "ATTACH '{folder}/new.db'",
        "EXPORT DATABASE '{folder}/all'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "PRAGMA enable_profiling",
        "CREATE TABLE mine AS SELECT 1",
        "SELECT * FROM enable_logging()",
        "SELECT * FROM secret_of_this_program",
        "SELEC",
        "",
    ],
)
def test_a_query_reaches_nothing_but_the_log(log: Path, tmp_path: Path, sql: str) -> None:
    """No other file, no network, no change of settings, nothing written; the log stays as it is."""
    secret_of_this_program = [1]  # DuckDB would find a Python variable by its name, if it were let
    before, files = log.read_bytes(), set(tmp_path.iterdir())
    with LogDatabase([log]) as database, pytest.raises(LogError):
        list(database.answer_query(sql.format(log=log, folder=tmp_path)).rows)
    assert secret_of_this_program == [1]
    assert log.read_bytes() == before
    assert set(tmp_path.iterdir()) == files


CLIENTS = ("192.0.2.7", "192.0.2.8", "2001:db8:1::7", "2001:db8:1:ffff::", "2001:db8:2::1")
SHOWN = ("p689-abcdefghijklmnop", "withheld", "192.0.2.0/24", "2001:db8:1::/48")
MOMENT = "2023-03-10T12:00:00Z"
RECORDS = [
    *(refusal() | {"source": {"ip": client}} for client in CLIENTS),
    *(refusal() | {"source": {"address": client}} for client in SHOWN),
    refusal(moment=MOMENT, stage=Stage.DNS) | {"user": {"name": "alice"}},
]
ASKED = (
    *("192.0.2.7", "192.0.2.0/24", "192.0.2.0/28", "192.0.0.0/16", "0.0.0.0/0", "::/0", "2001:db8::/32"),
    *("2001:db8:1::/48", "2001:db8:1:1::/64", "2001:db8:1::7", "p689-abcdefghijklmnop", "p690-abcdefghijklmnop"),
    "withheld",
)
WORDS = {"user": "alice", "name": "example.org", "ban": "ban", "network": "office", "verdict": "block"}
FILTERS = [
    *({"client": client_filter(text)} for text in ASKED),
    *({"since": at(MOMENT).add(seconds=late)} for late in (0, 1)),
    *({"until": at(MOMENT).add(seconds=late)} for late in (0, 1)),
    *({"name": name} for name in ("org", "ample.org", "www.clips.example.org")),
    {"action": "dns-query-blocked"},
    *({field: value} for field, word in WORDS.items() for value in (word, HOSTILE)),
]


@pytest.mark.parametrize("stated", FILTERS, ids=str)
def test_filters_accept_what_the_readers_do(write_log: WriteLog, stated: dict[str, Any]) -> None:
    """Names with those below them, addresses, prefixes and what stands for them; none of it is taken for SQL."""
    wanted = Filter(**stated)
    with LogDatabase([write_log(RECORDS)], wanted) as database:
        found = database.ask("SELECT count(*) FROM events")
    accepted = sum(wanted.accepts(record) for record in RECORDS)
    assert found == [(accepted,)]
    assert accepted == 0 or HOSTILE not in stated.values()


def test_only_a_log_that_met_unreadable_lines_is_read_again_for_them(log: Path, write_log: WriteLog) -> None:
    """After a clean answer the file could as well be gone."""
    torn = write_log([refusal(), b"torn\n", b"{\n", refusal()], "torn.ndjson")
    with LogDatabase([torn]) as database:
        assert database.ask("SELECT count(*) FROM events WHERE client IS NOT NULL") == [(2,)]
        assert database.unreadable_counts() == {str(torn): 2}
    with LogDatabase([log]) as database:
        assert database.ask("SELECT count(*) FROM events") == [(2,)]
        log.unlink()
        assert database.unreadable_counts() == {}


def test_nothing_is_left_behind(log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The temporary folder goes with the log database, also after an error."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with LogDatabase([log]) as database:
        assert database.ask("SELECT count(*) FROM events") == [(2,)]
        assert len(list(temporary.iterdir())) == 1
    assert list(temporary.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        LogDatabase([tmp_path / "nowhere.ndjson"])
    assert list(temporary.iterdir()) == []


def test_ctrl_c_ends_a_long_query_and_cleans_up(log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At once, not when DuckDB is done, and without a trace of its own."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    endless = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"
    with LogDatabase([log]) as database:
        (pressed := threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])).start()
        with pytest.raises(KeyboardInterrupt):
            database.ask(endless)
        pressed.join()
    assert list(temporary.iterdir()) == []


def told_of_ctrl_c(*_: object) -> None:
    """As DuckDB tells of it when it works on the main thread."""
    raise RuntimeError("Query interrupted")


def test_ctrl_c_is_heard_while_a_log_is_opened(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening hundreds of files takes a while; it is no defect of ours."""
    monkeypatch.setattr(engine, "_views", told_of_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        LogDatabase([log])


def test_another_error_is_no_ctrl_c() -> None:
    with pytest.raises(RuntimeError, match="another"), engine.interruptible():
        raise RuntimeError("another")


@pytest.mark.parametrize("rotated", [False, True])
def test_what_the_log_declares_as_others_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotated: bool
) -> None:
    """Forged records that fit and one of no chain accuse nobody in a report; a copied record counts as it is."""
    monkeypatch.setattr("tokgate.analytics.index._LOOK_AGAIN_SECONDS", 0.0)
    runs = AppenderRuns(tmp_path / "block.ndjson", options=LogOptions())
    run = runs.begin()
    append(run, refusal(), refusal("192.0.2.8"))
    runs.write(run, 0, attest=True)
    run.leave("closed")
    lines = runs.path.read_bytes().splitlines(keepends=True)
    head = stated_head(json.loads(lines[-1]))
    assert head is not None
    forged, _ = link(head, refusal("192.0.2.99"))
    runs.stray(encode(forged) + encode(refusal("192.0.2.98")) + lines[0])
    early = Index([runs.path])
    early.catch_up(5)
    assert early.ask("SELECT count(*) FROM lines WHERE client IN ('192.0.2.98', '192.0.2.99')") == [(2,)]
    if rotated:
        runs.path.rename(tmp_path / "block.ndjson.1")
    runs.run()
    with LogDatabase(with_rotated(runs.path)) as database:
        clients = [client for (client,) in database.ask("SELECT client FROM events WHERE traffic ORDER BY 1")]
    assert set(clients) == {"192.0.2.7", "192.0.2.8"}
    for index in (early, Index([runs.path])):
        with closing(index):
            while index.catch_up(5).waiting:
                pass
            clients = [client for (client,) in index.ask("SELECT client FROM lines WHERE traffic ORDER BY 1")]
            assert set(clients) == {"192.0.2.7", "192.0.2.8"}
