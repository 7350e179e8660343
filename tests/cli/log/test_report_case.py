"""`tokgate log case`: all about one client, or about one event, and nothing about others."""

import json
from pathlib import Path

import pytest

from labs.command_line import Command
from labs.logs import refusal, unreadable, write

EVENT = "01862000-0000-7000-8000-00000000000a"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    records = []
    for number, hour in enumerate(("08", "11", "12")):
        record = refusal("192.0.2.7", f"2023-03-10T{hour}:00:05Z")
        record["event"]["id"] = f"01862000-0000-7000-8000-00000000000{'9ab'[number]}"
        record["event"]["sequence"] = 40 + number
        record["message"] = f"attempt {number}"
        records.append(record)
    records.append(refusal("192.0.2.99", "2023-03-10T11:30:00Z"))
    path = tmp_path / "block.ndjson"
    write(path, records)
    return path


def test_twenty_clients_of_whom_three_tried(log: Path, tokgate: Command) -> None:
    """What could not be read accuses nobody: reports, summaries and counts by verdict name the three alone."""
    clients = [f"192.0.2.{number}" for number in range(130, 150)]
    moments = [f"2023-03-{day}T11:00:00Z" for day in (13, 14, 15, 16)]
    records = [unreadable(client, moment) for moment in moments for client in clients]
    write(log, [*records, *(refusal(client, moment) for moment in moments for client in clients[:3])])
    period = ("--from", "2023-03-10", "--to", "2023-03-20")
    assert tokgate("log", "report", *period, "-o", "report.html").code == 0
    page = Path("report.html").read_text("utf-8")
    assert {client for client in clients if client in page} == set(clients[:3])
    told = json.loads(tokgate("log", "summary", "--json").out)
    assert (told["events"], {row["client"] for row in told["tables"]["client"]["rows"]}) == (12, set(clients[:3]))
    blocked = tokgate("log", "query", "--verdict", "block", "--json").out.splitlines()
    unread = tokgate("log", "query", "--action", "unreadable-refused", "--json").out.splitlines()
    assert (len(blocked), len(unread)) == (12, 80)
    assert "Council" in "".join(blocked)
    assert "Council" not in "".join(unread)
    assert tokgate("log", "case", "--client", clients[9], "-o", "case.html").code == 0
    assert "Council" not in Path("case.html").read_text("utf-8"), "there is no case against the others"


def test_a_client(log: Path, tokgate: Command) -> None:
    """Every record of the client, with its id, and no word of anybody else."""
    assert tokgate("log", "case", "--client", "192.0.2.7", "-o", "case.html", "--why", "HR-17").code == 0
    page = Path("case.html").read_text("utf-8")
    assert "<title>Case file: 192.0.2.7, 2023-03-10 00:00 – 2023-03-11 00:00 UTC</title>" in page
    assert '<p class="kind">Case file: 192.0.2.7</p>' in page
    for said in ("attempt 0", "attempt 1", "attempt 2", EVENT, "The bans", "Integrity of the log"):
        assert said in page
    assert "2023-03-10 11:00:05</td>" in page
    assert f"<code>{EVENT}</code>, record 41</td>" in page
    assert "192.0.2.99" not in page
    assert "HR-17" in log.with_name("block.access.ndjson").read_text("utf-8")


def test_an_event(log: Path, tokgate: Command) -> None:
    """The event and what its client did an hour before and after."""
    assert tokgate("log", "case", "--event", EVENT, "-o", "case.html").code == 0
    page = Path("case.html").read_text("utf-8")
    assert f"<title>Case file: {EVENT}, 192.0.2.7, 2023-03-10 10:00 – 2023-03-10 12:00 UTC</title>" in page
    assert "attempt 1" in page
    assert "attempt 0" not in page
    assert "192.0.2.99" not in page


@pytest.mark.parametrize(
    ("options", "code"), [((), 2), (("--event", "01862000-0000-7000-8000-00000000000f"), 1)], ids=["nobody", "unknown"]
)
def test_no_case(log: Path, tokgate: Command, options: tuple[str, ...], code: int) -> None:
    """Without a client or event there is no case, and nothing is written."""
    assert tokgate("log", "case", *options, "-o", "case.html").code == code
    assert not Path("case.html").exists()
