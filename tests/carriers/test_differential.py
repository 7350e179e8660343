"""The same connections through every carrier: what clients get, and what the log says, must be the same."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from labs.carriers import Kind, Lab, Way
from labs.gate_lab import until
from labs.hello_builder import hello_for
from labs.proxy_lab import ALLOWED
from labs.raw_client import RawClient
from labs.records import Records
from tokgate.evasion.hello import hello, records

COUNT = 120
DECEPTIVE = "clips.example.org.example.net"
KEPT = ("verdict", "mode", "reason", "phase", "service", "rule", "network", "ban", "response", "visibility", "names")


def cases() -> Iterator[tuple[str, str, int]]:
    """What is spoken, the name shown, and the size of the first pieces: banned, allowed and deceptive names."""
    rng = random.Random(2023)
    for number in range(COUNT):
        v = f"v{number}"
        names = (
            *(f"{v}.clips.example.org", f"{v.upper()}.Clips.Example.Org", f"{v}.clips.example.org."),
            *(f"{v}.notclips.example.org", f"{v}.{DECEPTIVE}", f"{v}.example.org", "", "a..example"),
        )
        (kind,) = rng.choices(("tls", "http", "hello", "bytes"), (40, 25, 25, 10))
        yield kind, rng.choice(names), rng.choice((1, 7, 100, 1 << 16))


def outcome(lab: Lab, client: RawClient, kind: str, name: str, size: int) -> str:
    greeting = hello_for(name) if name else records(hello())
    said = {
        "hello": greeting,
        "tls": greeting,
        "http": f"GET /x HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode(),
        "bytes": b"\x00\x01binary",
    }[kind]
    try:
        if kind == "tls" and ".." not in name:
            client.tls(lab.authority.client(), name or None)
            return f"served {client.get(ALLOWED).body!r}"
        pieces = [said[at : at + size] for at in range(0, len(said), size)]
        client.send(*pieces[:20], b"".join(pieces[20:]))
        if kind == "http":
            return str(client.reply().status)
        client.end()
        return client.to_end()[:1].hex()
    except OSError as error:
        return f"{type(error).__name__} {getattr(error, 'reason', '')}"


def run(lab: Lab, way: Way, kind: Kind) -> tuple[list[str], list[Any]]:
    """All cases through one carrier: what came of them, and what the log says of them, in no particular order."""
    lab.kind, lab.records = kind, Records(lambda record: record)
    echo, plain = lab.origin(), lab.web(tls=False)
    secure = lab.web(
        "*.example.org", "*.clips.example.org", "*.notclips.example.org", "*.clips.example.org.example.net"
    )
    ports = {"tls": secure.port, "hello": echo.port, "http": plain.port, "bytes": echo.port}
    lab.start()
    got = []
    for spoken, name, size in cases():
        with lab.reach(way, ports[spoken]) as client:
            got.append(outcome(lab, client, spoken, name, size))
    assert until(lab.carrier.idle)
    told = [[r["event"]["action"], *(r["tokgate"].get(key) for key in KEPT)] for r in lab.records.all]
    lab.close()
    return got, sorted(told, key=str)


@pytest.mark.parametrize("lab", [Kind.MITMPROXY], indirect=True)
@pytest.mark.parametrize("way", [Way.REDIRECTED, Way.CONNECT])
def test_carriers_agree(lab: Lab, way: Way) -> None:
    """Neither clients nor the log see by what they are carried."""
    expected, log = run(lab, way, Kind.MITMPROXY)
    assert sum("UNRECOGNIZED_NAME" in o or o in ("15", "451") for o in expected) > COUNT // 5, "nothing was refused"
    assert sum("served" in o or o in ("16", "200") for o in expected) > COUNT // 5, "nothing was served"
    got, told = run(lab, way, Kind.OPENER)
    assert [(case, e, g) for case, e, g in zip(cases(), expected, got, strict=True) if e != g] == []
    assert told == log
    got, _ = run(lab, way, Kind.GATE)
    differing = [(case, e, g) for case, e, g in zip(cases(), expected, got, strict=True) if e != g]
    assert {case[0] for case, _, _ in differing} == {"http"}  # which a gate alone reads to nobody
