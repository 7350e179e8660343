"""Other systems' formats: right to the letter, also with text that tries to break out of its field."""

import csv
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from py_ocsf_models.objects.dns_query import DNSQuery
from py_ocsf_models.objects.metadata import Metadata
from py_ocsf_models.objects.policy import Policy
from py_ocsf_models.objects.url import URL

from labs.command_line import Command
from labs.logs import WriteLog, refusal, repeats
from labs.samples import SNAPSHOT, stamp
from labs.waiting import DEADLINE
from tokgate.analytics.columns import COLUMNS
from tokgate.analytics.export.formats import ocsf_event
from tokgate.blocklog.records.lifecycle import started
from tokgate.policy.observation import Stage


@pytest.fixture
def log(write_log: WriteLog) -> Path:
    """One record of each kind."""
    return write_log(
        [
            refusal(),
            refusal(stage=Stage.HTTP, moment="2023-03-10T11:01:00Z"),
            refusal(stage=Stage.DNS, moment="2023-03-10T11:02:00Z"),
            repeats(41, "2023-03-10T11:03:00Z", "2023-03-10T11:03:59Z"),
            started(stamp(), 1, SNAPSHOT.policy),
        ]
    )


def exported(tokgate: Command, log: Path, form: str) -> list[str]:
    """The lines of an export to stdout."""
    outcome = tokgate("log", "export", "--log", str(log), "--format", form)
    assert outcome.code == 0
    return outcome.out.splitlines()


def test_csv_has_every_column_and_every_record(tokgate: Command, log: Path, tmp_path: Path) -> None:
    """A header, RFC 4180, instants in UTC, and a file that is private like the log."""
    target = tmp_path / "out.csv"
    assert tokgate("log", "export", "--log", str(log), "--format", "csv", "-o", str(target)).code == 0
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8"), newline="")))
    assert list(rows[0]) == [column.name for column in COLUMNS]
    assert [row["events"] for row in rows] == ["1", "1", "1", "41", "1"]
    assert rows[0]["time"] == "2023-03-10T11:00:00.000000Z"
    assert rows[0]["traffic"] == "true"
    assert target.stat().st_mode & 0o007 == 0


def test_csv_gives_a_spreadsheet_nothing_to_run(tokgate: Command, write_log: WriteLog) -> None:
    """Text from clients that looks like a formula is text."""
    record = refusal(stage=Stage.HTTP)
    record["user_agent"]["original"] = '=HYPERLINK("https://example.org")'
    rows = list(csv.DictReader(exported(tokgate, write_log([record]), "csv")))
    assert rows[0]["user_agent"] == '\'=HYPERLINK("https://example.org")'


def test_parquet_holds_the_view(tokgate: Command, log: Path, tmp_path: Path) -> None:
    """The same columns and rows, readable by anything that reads Parquet."""
    target = tmp_path / "it's.parquet"
    assert tokgate("log", "export", "--log", str(log), "--format", "parquet", "-o", str(target)).code == 0
    with duckdb.connect() as connection:
        found = connection.execute("SELECT count(*), sum(events) FROM read_parquet(?)", [str(target)]).fetchone()
        names = [row[0] for row in connection.execute("DESCRIBE FROM read_parquet(?)", [str(target)]).fetchall()]
    assert found == (5, 45)
    assert names == [column.name for column in COLUMNS]
    assert tokgate("log", "export", "--log", str(log), "--format", "parquet").code == 2


def test_an_export_never_overwrites_the_log(tokgate: Command, log: Path) -> None:
    """By whatever name it is called."""
    before = log.read_bytes()
    other = log.with_name("link.csv")
    other.symlink_to(log)
    assert tokgate("log", "export", "--log", str(log), "--format", "csv", "-o", str(other)).code == 2
    assert log.read_bytes() == before


def test_an_export_takes_no_device_away(tokgate: Command, log: Path, tmp_path: Path) -> None:
    """What is no file is written to and stays what it is; a link goes on leading to its file."""
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        assert tokgate("log", "export", "--log", str(log), "--format", "csv", "-o", str(pipe)).code == 0
        assert read.result(DEADLINE).startswith(b"time,action,")
    assert pipe.is_fifo()
    link, led_to = tmp_path / "link.csv", tmp_path / "led-to.csv"
    link.symlink_to(led_to)
    assert tokgate("log", "export", "--log", str(log), "--format", "csv", "-o", str(link)).code == 0
    assert (link.is_symlink(), led_to.is_file()) == (True, True)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("form", ["csv", "ocsf", "parquet"])
def test_an_export_says_what_is_not_in_it(tokgate: Command, log: Path, tmp_path: Path, form: str) -> None:
    """Lines that hold no record, with their places."""
    with log.open("ab") as stream:
        stream.write(b"not json\n")
    outcome = tokgate("log", "export", "--log", str(log), "--format", form, "-o", str(tmp_path / "out"))
    assert outcome.code == 0
    assert f"tokgate: {log}:6: not a record" in outcome.err


def test_ocsf_events(tokgate: Command, log: Path) -> None:
    """Each kind in its class, with the security control's words; that records about tokgate are left out is told."""
    outcome = tokgate("log", "export", "--log", str(log), "--format", "ocsf")
    assert "1 records about tokgate itself are not in it" in outcome.err
    tls, http, dns, again = (json.loads(line) for line in outcome.out.splitlines())
    assert [event["class_uid"] for event in (tls, http, dns, again)] == [4001, 4002, 4003, 4001]
    for event in (tls, http, dns, again):
        check_ocsf(event)
    assert (tls["activity_name"], http["activity_name"], dns["activity_name"]) == ("Refuse", "Get", "Response")
    assert tls["dst_endpoint"] == {
        "hostname": "www.clips.example.org", "domain": "example.org", "ip": "203.0.113.5", "port": 443,
        "svc_name": "clips",
    }  # fmt: skip
    assert http["http_request"]["url"]["url_string"] == "https://www.clips.example.org/watch"
    assert http["http_response"] == {"code": 451}
    assert (dns["query"]["hostname"], dns["rcode_id"], dns["rcode"]) == ("www.clips.example.org", 3, "NXDomain")
    assert {event["connection_info"]["direction_id"] for event in (tls, http, dns, again)} == {2}  # outbound
    carried = [
        (event["connection_info"]["protocol_name"], event["connection_info"]["protocol_num"]) for event in (tls, dns)
    ]
    assert carried == [("tcp", 6), ("udp", 17)]
    assert (again["count"], again["end_time"] - again["start_time"]) == (41, 59_000)


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        ({"name": "www.example.org", "destination_port": 443}, "www.example.org:443"),
        ({"destination_ip": "2001:db8::5", "destination_port": 443}, "[2001:db8::5]:443"),
        ({"name": "www.example.org"}, "www.example.org"),
        ({"name": "www.example.org", "url_scheme": "http", "url_path": "/a"}, "http://www.example.org/a"),
        ({"destination_ip": "192.0.2.5", "url_scheme": "https"}, "https://192.0.2.5/"),
        ({}, None),
    ],
)
def test_ocsf_urls(seen: dict[str, Any], text: str | None) -> None:
    """Also of a refused CONNECT, which has no scheme: without `url_string` a lake rejects the event."""
    event = ocsf_event({"traffic": True, "method": "CONNECT", "time": datetime(2026, 1, 2), **seen})
    assert event is not None
    assert event["http_request"].get("url", {}).get("url_string") == text


def check_ocsf(event: dict[str, Any]) -> None:
    """What the classes and the profile ask of every event, and the objects that py-ocsf-models knows."""
    Metadata.model_validate(event["metadata"], extra="forbid")
    Policy.model_validate(event["policy"], extra="forbid")
    if "query" in event:
        DNSQuery.model_validate(event["query"])
    if "http_request" in event:
        assert URL.model_validate(event["http_request"]["url"], extra="forbid").url_string
    assert event["category_uid"] == 4
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["metadata"]["version"] == "1.8.0"
    assert event["metadata"]["profiles"] == ["security_control"]
    assert event["metadata"]["product"]["vendor_name"] == "tokgate"
    assert (event["action_id"], event["disposition_id"]) == (2, 2)
    assert event["severity_id"] in range(1, 7)
    assert event["time"] > 1_600_000_000_000
    assert event["firewall_rule"]["uid"] == "ban"
    assert event["src_endpoint"]["ip"] == "192.0.2.7"


@pytest.mark.parametrize(("verdict", "action", "disposition"), [("monitor", 3, 17), ("warn", 3, 19), ("allow", 1, 1)])
def test_ocsf_says_what_was_done(
    tokgate: Command, write_log: WriteLog, verdict: str, action: int, disposition: int
) -> None:
    """What passed is not called denied."""
    record = refusal()
    record["tokgate"]["verdict"] = verdict
    (event,) = (json.loads(line) for line in exported(tokgate, write_log([record]), "ocsf"))
    assert (event["action_id"], event["disposition_id"]) == (action, disposition)
