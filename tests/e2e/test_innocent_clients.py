"""Mixed traffic of twenty clients, of whom three try the banned service: what is said of the others."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labs.gateway import CARRIERS, Gateway, Record, office_policy
from labs.netns import Lab, wait_until
from labs.origin import ALLOWED, BANNED, Origin
from labs.other_ports import curl

CLIENTS = [f"192.0.2.{number}" for number in range(101, 121)]
TRIED = CLIENTS[2::7]
OTHERS = [each for each in CLIENTS if each not in TRIED]
TEXT = b"GET / is what I am writing\r\n\r\n"
"""No request, and some server might take it for one."""
HALF_A_HELLO = bytes.fromhex("16030100050100000100")


@pytest.fixture
def clients(lab: Lab) -> Iterator[None]:
    """The addresses of the clients."""
    for each in CLIENTS:
        lab.client.run("ip", "address", "add", f"{each}/24", "dev", "eth0")
    yield
    for each in CLIENTS:
        lab.client.run("ip", "address", "del", f"{each}/24", "dev", "eth0")


def says(lab: Lab, client: str, port: int, words: bytes) -> None:
    """Say something to the allowed server, and hear whatever comes."""
    with contextlib.suppress(OSError), lab.client.connect(Lab.ALLOWED[4], port, 20, source=(client, 0)) as connection:
        connection.sendall(words)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1 << 16)


def test_nobody_is_accused_who_tried_nothing(
    lab: Lab, origin: Origin, clients: None, any_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """The others stand in the log for what could not be read alone, without ban, name or address asked for."""
    with any_gateway(tmp_path, policy=office_policy(), **CARRIERS["gates"]) as gateway:
        wait_until("an opener answers", lambda: curl(lab.guest, origin, f"http://{ALLOWED}:80/", 4)[1][-3:] == "200")
        for number, client in enumerate(CLIENTS):
            for url in (f"https://{ALLOWED}:443/", f"http://{ALLOWED}:80/"):
                assert curl(lab.client, origin, url, 4, "--interface", client)[1][-3:] == "200"
            says(lab, client, 80, TEXT)
            if number % 2:
                says(lab, client, 443, HALF_A_HELLO + bytes([number]))
            if client in TRIED:
                assert curl(lab.client, origin, f"https://{BANNED}:443/", 4, "--interface", client)[0] == 35
        wait_until("the last refusal", lambda: _refused(gateway.records()) == set(TRIED))
        summary = gateway.asked("log", "summary", "--log", gateway.log, "--why", "a test", "--json").stdout
        report = tmp_path / "report.html"
        gateway.asked("log", "report", "--log", gateway.log, "--output", report, "--why", "a test", "--no-verify")
    named = Counter(
        (record["event"]["action"], client)
        for record in gateway.records()
        for client in CLIENTS
        if f'"{client}"' in json.dumps(record)
    )
    assert {action for action, client in named if client in OTHERS} == {"unreadable-refused"}
    assert {client for action, client in named if action != "unreadable-refused"} == set(TRIED)
    for record in gateway.records():
        if record["event"]["action"] == "unreadable-refused":
            assert "rule" not in record
            assert not any(name in json.dumps(record) for name in (ALLOWED, BANNED, Lab.ALLOWED[4], "office-ban"))
    assert [each for each in CLIENTS if f'"{each}"' in summary] == TRIED
    text = report.read_text()
    assert [each for each in CLIENTS if each in text] == TRIED


def _refused(records: list[Record]) -> set[str]:
    return {each["source"]["ip"] for each in records if each["event"]["action"] == "tls-handshake-refused"}
