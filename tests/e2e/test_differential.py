"""The same five hundred connections through each carrier: what clients get, and what the log says, must be the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_gateway import CARRIERS, EXPLICIT, Gateway, Record, office_policy
from lab_netns import Lab
from lab_origin import ALLOWED, Origin

sys.path.insert(0, str(Path(__file__).parents[1] / "wire"))

import hello_builder

COUNT = 500
FRONTS = {name: EXPLICIT[name] for name in CARRIERS}

type Case = tuple[str, str, int]
"""What is spoken, the name shown, and the size of the pieces in which the first bytes are sent."""


def cases() -> Iterator[Case]:
    """Banned, allowed and deceptive names in many spellings, over TLS and HTTP, whole and in pieces."""
    rng = random.Random(2023)
    for number in range(COUNT):
        names = (
            f"v{number}.tiktok.com",
            f"V{number}.TikTok.Com",
            f"v{number}.tiktok.com.",
            f"v{number}.nottiktok.com",
            f"v{number}.tiktok.com.example.org",
            f"v{number}.example.org",
            "",
            "a..tiktok.com",
        )
        kind = rng.choices(("tls", "http", "hello", "bytes"), (60, 20, 15, 5))[0]
        yield kind, rng.choice(names), rng.choice((1, 7, 100, 1460, 1 << 16))


def _send(sock: socket.socket, data: bytes, size: int) -> None:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in [*pieces[:20], b"".join(pieces[20:])]:
        sock.sendall(piece)


def _read(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(65536):
        data += piece
    return bytes(data)


def _tls(sock: socket.socket, name: str) -> str:
    """A handshake without checks: whose certificate it is, and what is served."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with context.wrap_socket(sock, server_hostname=name or None) as secure:
            shown = hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()[:12]
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nConnection: close\r\n\r\n".encode())
            body = _read(secure).partition(b"\r\n\r\n")[2]  # type: ignore[arg-type]
        return f"served {shown} {hashlib.sha256(body).hexdigest()[:12]}"
    except ssl.SSLError as error:
        return f"tls {error.reason}"


def outcome(connect: Callable[[], socket.socket], case: Case) -> str:
    """What a client gets."""
    kind, name, size = case
    try:
        with connect() as sock:
            sock.settimeout(60)
            if kind == "tls" and ".." not in name:
                return _tls(sock, name)
            if kind == "http":
                _send(sock, f"GET /x HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode(), size)
                head = _read(sock).split(b"\r\n")[0]
                return head.decode("latin-1")
            if kind == "bytes":
                _send(sock, b"\x00\x01binary", size)
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
                return f"answer {len(_read(sock)) > 0}"
            hello = hello_builder.hello_for(name) if name else hello_builder.hello()
            _send(sock, hello, size)
            return f"first {sock.recv(7).hex()[:2]}"
    except ConnectionResetError:
        return "reset"
    except (ConnectionError, TimeoutError) as error:
        return type(error).__name__


KEPT = ("verdict", "mode", "reason", "phase", "service", "rule", "network", "ban", "response", "visibility")


def told(records: list[Record]) -> list[str]:
    """What the log says of traffic, without what differs from run to run, in order of names."""
    lines = []
    for record in records:
        if record["event"]["dataset"] == "tokgate.block":
            own = {key: record["tokgate"].get(key) for key in KEPT}
            names = record["tokgate"].get("names", {})
            lines.append(json.dumps([record["event"]["action"], names, own], sort_keys=True))
    return sorted(lines)


@pytest.fixture
def run_cases(lab: Lab, any_gateway: Callable[..., Gateway], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run all cases through each of several carriers."""

    def run(carriers: dict[str, dict[str, Any]], connect: Callable[[], socket.socket]) -> dict[str, Any]:
        policy = office_policy()
        policy["networks"]["office"]["cidrs"].append("127.0.0.0/8")
        results: dict[str, Any] = {}
        for name, options in carriers.items():
            folder = tmp_path / name
            folder.mkdir()
            with any_gateway(folder, policy=policy, **options) as gateway:
                got = [outcome(connect, case) for case in cases()]
            results[name] = (got, told(gateway.records()))
        return results

    return run


def _same(results: dict[str, Any]) -> None:
    expected, log = results["mitmproxy"]
    assert sum(o.startswith(("tls", "first 15", "HTTP/1.1 451")) for o in expected) > COUNT // 5, "nothing was refused"
    assert sum(o.startswith("served") for o in expected) > COUNT // 10, "nothing was served"
    for carrier, (got, told_by_it) in results.items():
        differing = [(c, e, g) for c, e, g in zip(cases(), expected, got, strict=True) if e != g]
        assert differing == [], carrier
        assert told_by_it == log, carrier


def test_redirected(lab: Lab, origin: Origin, run_cases: Callable[..., dict[str, Any]]) -> None:
    """Redirected clients see no difference between the carriers, and neither does the log."""
    ports = {"tls": 443, "http": 80, "hello": 443, "bytes": 443}
    order = iter([ports[kind] for _ in CARRIERS for kind, _, _ in cases()])
    _same(run_cases(CARRIERS, lambda: lab.client.connect(Lab.ALLOWED[4], next(order), 20)))


def test_explicit(lab: Lab, origin: Origin, run_cases: Callable[..., dict[str, Any]]) -> None:
    """The same by CONNECT to a bare address."""
    ports = {"tls": 443, "http": 80, "hello": 443, "bytes": 443}
    order = iter([ports[kind] for _ in FRONTS for kind, _, _ in cases()])

    def connect() -> socket.socket:
        sock = lab.gateway.connect("127.0.0.1", 8080, 20)
        target = f"{Lab.ALLOWED[4]}:{next(order)}"
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += sock.recv(1)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return sock

    _same(run_cases(FRONTS, connect))
