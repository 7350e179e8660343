"""Two gateways, one ClickHouse (deploy/ha): the logs that they wrote, by the ways that the documents name."""

import json
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from labs.logs import refusal
from labs.samples import NOON
from labs.siem import clickhouse_statements, needs_chdb, statements
from tokgate.blocklog.records.record import Observer, new_event_id
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.writer import LogWriter
from tokgate.cli.main import main

if TYPE_CHECKING:
    from labs.clickhouse import ClickHouse

SIEM: Final = Path(__file__).parents[2] / "deploy/siem"
CLIPS: Final = {"gw1.example.org": 3, "gw2.example.org": 5}
"""How many names each refuses."""
PATH: Final = "/var/log/tokgate/block.ndjson"
"""The log's name, on both."""
PER_GATEWAY: Final = "SELECT gateway, sum(events) FROM tokgate.events FINAL WHERE traffic GROUP BY 1 ORDER BY 1"
ARRIVED: Final = (
    "SELECT gateway, chain, min(first), max(last), sum(records), sum(missing), sum(contradicting) "
    "FROM tokgate.arrival GROUP BY ALL ORDER BY 1, 2"
)

pytestmark = needs_chdb


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What two gateways have written, each a machine by its name."""
    return {name: _refused(tmp_path_factory.mktemp("gateway"), name, count) for name, count in CLIPS.items()}


def _refused(folder: Path, name: str, count: int) -> Path:
    """The log of a gateway of this name that has refused so many names."""
    log = folder / "block.ndjson"
    writer = LogWriter(log, Observer(hostname=name, version="test"), LogOptions())
    writer.start()
    for _ in range(count):
        record = refusal()
        record["event"]["id"], record["observer"]["hostname"] = new_event_id(NOON), name
        assert writer.put(record)
    assert writer.close(60)
    return log


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator["ClickHouse"]:
    from labs.clickhouse import ClickHouse

    with closing(ClickHouse(tmp_path / "clickhouse")) as database:
        yield database


def ship(clickhouse: "ClickHouse", lines: Sequence[str]) -> None:
    """Insert a batch as Fluent Bit is told to; Vector's transform makes the same two fields."""
    outputs = yaml.safe_load((SIEM / "fluent-bit/fluent-bit.yaml").read_text())["pipeline"]["outputs"]
    (uri,) = (output["uri"] for output in outputs if output["name"] == "http")
    address = clickhouse.address
    body = "".join(json.dumps({"line": line, "file": PATH}) + "\n" for line in lines)
    credentials = b64encode(f"{address.user}:{address.password}".encode()).decode()
    request = Request(
        f"http://{address.host}:{address.port}{uri}", body.encode(), {"Authorization": f"Basic {credentials}"}
    )
    with urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def rows(clickhouse: "ClickHouse", sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in clickhouse.answer(sql).rows]


def expected(logs: dict[str, Path]) -> list[tuple[Any, ...]]:
    """What `ARRIVED` answers when all lines of these files are there once: a chain a gateway, from its first number."""
    found = []
    for name, log in logs.items():
        records = [json.loads(line) for line in log.read_text().splitlines()]
        (chain,) = {record["tokgate"]["chain"] for record in records}
        assert {record["observer"]["hostname"] for record in records} == {name}
        found.append((name, chain, 1, len(records), len(records), 0, 0))
    return found


def test_batches_sent_again(logs: dict[str, Path], clickhouse: "ClickHouse") -> None:
    """Both gateways' batches, in turns, one of them twice: each table has what each gateway wrote, once."""
    batches = [
        lines[start::2] for start in range(2) for lines in (log.read_text().splitlines() for log in logs.values())
    ]
    for batch in (*batches, batches[0]):
        ship(clickhouse, batch)
    assert rows(clickhouse, ARRIVED) == expected(logs)
    assert rows(clickhouse, PER_GATEWAY) == [*CLIPS.items()]
    counted = "SELECT gateway, sum(events) FROM tokgate.hourly GROUP BY 1 ORDER BY 1"
    assert rows(clickhouse, counted) == [*CLIPS.items()]
    assert rows(clickhouse, "SELECT sum(events) FROM tokgate.daily") == [(sum(CLIPS.values()),)]
    assert rows(clickhouse, "SELECT sum(twice) FROM tokgate.arrival") == [(0,)]
    assert rows(clickhouse, "SELECT count() FROM tokgate.unreadable") == [(0,)]


def test_an_insert_that_failed_half_way(logs: dict[str, Path], clickhouse: "ClickHouse") -> None:
    """The shipper sends it again: what was there is not counted twice, and what was missing is."""
    lines = logs["gw2.example.org"].read_text().splitlines()
    (view,) = (each for each in clickhouse_statements() if "tokgate.events_to_hourly" in each)
    clickhouse.do("DROP VIEW tokgate.events_to_hourly")
    clickhouse.do(view.replace('count() AS "records"', 'count() + throwIf(true) AS "records"'))
    with pytest.raises(HTTPError):
        ship(clickhouse, lines)
    clickhouse.do("DROP VIEW tokgate.events_to_hourly")
    clickhouse.do(view)
    assert rows(clickhouse, "SELECT sum(records) FROM tokgate.arrival") == [(len(lines),)]
    assert rows(clickhouse, "SELECT count() FROM tokgate.hourly") == [(0,)]
    ship(clickhouse, lines)
    assert rows(clickhouse, "SELECT sum(records), sum(twice) FROM tokgate.arrival") == [(len(lines), 0)]
    assert rows(clickhouse, "SELECT sum(events) FROM tokgate.hourly") == [(CLIPS["gw2.example.org"],)]
    assert rows(clickhouse, "SELECT sum(events) FROM tokgate.daily") == [(CLIPS["gw2.example.org"],)]


def test_a_file_loaded_after_it_was_shipped(
    logs: dict[str, Path], clickhouse: "ClickHouse", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By README's own command, over lines that are there in other batches: still once, for questions and summaries.

    `arrival` counts the rows that FINAL leaves out, and merges take out.
    """
    for log in logs.values():
        ship(clickhouse, log.read_text().splitlines()[1:])
    (command,) = re.findall(r'--query "(INSERT .*)"$', (SIEM / "clickhouse/README.md").read_text(), re.MULTILINE)
    for log in logs.values():
        monkeypatch.chdir(log.parent)
        clickhouse.do(command)
    assert rows(clickhouse, ARRIVED) == expected(logs)
    assert rows(clickhouse, PER_GATEWAY) == [*CLIPS.items()]
    twice = "SELECT sum(twice), sum(records) FROM tokgate.arrival"
    ((again, records),) = rows(clickhouse, twice)
    assert again == records - len(logs)
    clickhouse.do("OPTIMIZE TABLE tokgate.events FINAL")
    assert rows(clickhouse, twice) == [(0, records)]
    monkeypatch.setenv("TOKGATE_CLICKHOUSE_PASSWORD", clickhouse.address.password)
    address = clickhouse.address
    url = f"http://{address.user}@{address.host}:{address.port}"
    assert main(["log", "summary", "--clickhouse", url, "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    assert main(["log", "summary", "--log", *map(str, logs.values()), "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert there["events"] == here["events"]


def test_machines_of_one_name(logs: dict[str, Path], clickhouse: "ClickHouse") -> None:
    """Where somebody has cloned a machine with its name, chains still tell the two logs apart."""
    for log in logs.values():
        ship(clickhouse, log.read_text().replace("gw2.example.org", "gw1.example.org").splitlines())
    wanted = [("gw1.example.org", *row[1:]) for row in expected(logs)]
    assert rows(clickhouse, ARRIVED) == sorted(wanted)
    assert Counter(row[0] for row in rows(clickhouse, ARRIVED)) == {"gw1.example.org": 2}


def test_lines_of_one_gateway_that_were_lost(logs: dict[str, Path], clickhouse: "ClickHouse") -> None:
    """The question in README about what did not arrive names that gateway, and one of two contents."""
    for name, log in logs.items():
        lines = log.read_text().splitlines()
        ship(clickhouse, lines[:2] + lines[3:] if name == "gw2.example.org" else lines)
    assert rows(clickhouse, "SELECT sum(contradicting) FROM tokgate.arrival") == [(0,)]
    changed = json.loads(logs["gw1.example.org"].read_text().splitlines()[1])
    changed["event"]["hash"] = "0" * 64
    ship(clickhouse, [json.dumps(changed)])
    blocks = re.findall(r"```sql\n(.*?)```", (SIEM / "clickhouse/README.md").read_text(), re.DOTALL)
    (asked,) = (each for block in blocks for each in statements(block.rstrip() + "\n") if "tokgate.arrival" in each)
    asked = asked.replace("SELECT *", "SELECT gateway, missing, contradicting")
    asked = asked.replace("day = yesterday() AND ", "").rstrip(";")
    assert sorted(rows(clickhouse, asked)) == [("gw1.example.org", 0, 1), ("gw2.example.org", 1, 0)]
