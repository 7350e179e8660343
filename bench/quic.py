"""HTTP/3 through gates beside the same gateway without them, in one run.

Run as root as `.venv/bin/python bench/quic.py`. A network under a ban goes through two gates; one under none is
forwarded by the kernel alone. Needs what the end-to-end tests need: iproute2, nftables, nginx and a curl with HTTP/3.

new      from curl's start of a connection to the end of a small page, p50 over alternating connections
paced    the same with a hello that fills two datagrams. curl sends the second when the first was answered, or a while
         later; a gate answers nothing before the hello is whole. Browsers send both at once.
first    from a client's first datagram to the first of an answer, with a server that only echoes; p50
per s    such beginnings a second, 32 at a time, each from a port and with keys of its own, of eight clients: one alone
         meets its limit
bulk     megabytes a second of a large download, the median of alternating ones

Exit codes: 0 both bars are met, 1 not so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import select
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "addons"))

from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion

from labs.clients import http3
from labs.gateway import Gateway, office_policy
from labs.netns import Lab, Namespace, sweep
from labs.origin import ALLOWED, Origin
from labs.quic_packets import QuicClient
from tokgate.wire.quic import Opening, initials

ECHO: Final = "203.0.113.30"
CLIENTS: Final = "192.0.2"
GUESTS: Final = "198.51.100"
AT_ONCE: Final = 8
AT_A_TIME: Final = 32
PATIENCE: Final = 2.0
BULK: Final = 256 << 20
BULK_BAR: Final = 0.95
"""Of the throughput without gates."""
NEW_BAR: Final = 1.5
"""Milliseconds over no gate, p50."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared, and what was measured of it."""

    name: str
    namespace: Namespace
    network: str
    new: list[float]
    paced: list[float]
    first: list[float]
    rates: list[float]
    bulk: list[float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new", type=int, default=200, metavar="N", help="connections of curl a side (default: 200)")
    parser.add_argument("--flows", type=int, default=4000, metavar="N", help="beginnings a side (default: 4000)")
    parser.add_argument("--bulk", type=int, default=7, metavar="N", help="downloads a side (default: 7)")
    options = parser.parse_args()
    sweep()
    lab = Lab(os.getpid())
    with contextlib.ExitStack() as stack:
        stack.callback(lab.down)
        lab.up()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "origin").mkdir()
        origin = stack.enter_context(Origin(lab.origin, folder / "origin"))
        (folder / "origin" / "large").write_bytes(bytes(BULK))
        lab.origin.run("ip", "addr", "add", f"{ECHO}/24", "dev", "eth0")
        for namespace, network in ((lab.client, CLIENTS), (lab.guest, GUESTS)):
            for number in range(AT_ONCE):
                namespace.run("ip", "addr", "add", f"{network}.{100 + number}/24", "dev", "eth0")
        stack.enter_context(echoing(lab.origin))
        (folder / "gateway").mkdir()
        running = {"mode": "gate:tproxy", "options": ("--workers", "2"), "check": Path.exists}
        stack.enter_context(Gateway(lab.gateway, folder / "gateway", policy=office_policy(), **running))  # type: ignore[arg-type]
        sides = (
            Side("no gate", lab.guest, GUESTS, [], [], [], [], []),
            Side("gates", lab.client, CLIENTS, [], [], [], [], []),
        )
        measure(sides, origin, options)
    return report(*sides)


def measure(sides: Sequence[Side], origin: Origin, options: argparse.Namespace) -> None:
    """Alternate between both, so that what else the machine does meets both."""
    for number in range(options.new):
        for side in sides:
            for taken, groups in ((side.new, "X25519"), (side.paced, "X25519MLKEM768")):
                asked = ("--curves", groups, "-o", "/dev/null", "-w", "%{time_total}")
                code, said = http3(side.namespace, origin, ALLOWED, 4, *asked)
                assert code == 0, f"{side.name}: connection {number} failed"
                taken.append(float(said) * 1000)
    batch = max(1, options.flows // 4)
    for _ in range(4):
        for side in sides:
            side.first.extend(side.namespace.inside(partial(one_by_one, made(200))))
            side.rates.append(side.namespace.inside(partial(many, made(batch), side.network)))
    for _ in range(options.bulk):
        for side in sides:
            code, said = http3(
                *(side.namespace, origin, ALLOWED, 4, "-o", "/dev/null", "-w", "%{speed_download}"), path="/large"
            )
            assert code == 0, f"{side.name}: a download failed"
            side.bulk.append(float(said) / 1e6)


def report(without: Side, through: Side) -> int:
    """Print what was measured, and which bars are met."""
    print(f"{'':10}{'new p50':>12}{'paced p50':>12}{'first p50':>12}{'new per s':>12}{'bulk':>14}")
    for side in (without, through):
        new, paced, first = map(statistics.median, (side.new, side.paced, side.first))
        rate, bulk = statistics.median(side.rates), statistics.median(side.bulk)
        print(f"{side.name:10}{new:9.2f} ms{paced:9.2f} ms{first:9.2f} ms{rate:12,.0f}{bulk:9.0f} MB/s")
    over = statistics.median(through.new) - statistics.median(without.new)
    share = statistics.median(through.bulk) / statistics.median(without.bulk)
    met = over <= NEW_BAR, share >= BULK_BAR
    for bar, said, ok in (
        (f"at most {NEW_BAR} ms over no gate, p50", f"{over:+.2f} ms", met[0]),
        (f"bulk at least {BULK_BAR} x no gate", f"{share:.2f} x", met[1]),
    ):
        print(f"{'met' if ok else 'NOT MET':8} {bar}: {said}")
    return 0 if all(met) else 1


@contextlib.contextmanager
def echoing(namespace: Namespace) -> Iterator[None]:
    """A server that answers each datagram with a short one, whatever it says."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.bind((ECHO, 443))
        return made

    server = namespace.inside(listen)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                _, client = server.recvfrom(2048)
                server.sendto(b"\x40answer", client)

    threading.Thread(target=serve, daemon=True).start()
    yield
    server.close()


def made(count: int) -> list[bytes]:
    """First datagrams, each with keys of its own."""
    opening = None
    for packet in initials(QuicClient(ALLOWED).flight[0]):
        opening = opening or Opening(packet)
        opening.reads(packet)
    assert opening is not None
    assert opening.hello is not None
    hello = opening.hello.message
    frame = b"\x06\x00" + struct.pack("!H", 0x4000 | len(hello)) + hello
    padded = frame.ljust(1155, b"\0")
    return [_first(padded) for _ in range(count)]


def _first(frames: bytes) -> bytes:
    pair, ids = CryptoPair(), (secrets.token_bytes(8), secrets.token_bytes(8))
    pair.setup_initial(ids[0], is_client=True, version=QuicProtocolVersion.VERSION_1)
    head = b"\xc3" + struct.pack("!I", 1) + b"".join(bytes((len(one),)) + one for one in ids)
    return bytes(pair.encrypt_packet(head + b"\0" + struct.pack("!HI", 0x4000 | 20 + len(frames), 0), frames, 0))


def _begun(flight: bytes, source: str = "0.0.0.0") -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind((source, 0))
    client.connect((ECHO, 443))
    client.send(flight)
    return client


def one_by_one(flights: Sequence[bytes]) -> list[float]:
    """Milliseconds to the first answer."""
    took = []
    for flight in flights:
        start = time.perf_counter()
        with _begun(flight) as client:
            client.settimeout(PATIENCE)
            client.recv(64)
        took.append((time.perf_counter() - start) * 1000)
    return took


def many(flights: Sequence[bytes], network: str) -> float:
    """Beginnings a second, so many at a time."""
    waiting: dict[int, socket.socket] = {}
    poll, left, answered = select.epoll(), iter(flights), 0
    sources = cycle(f"{network}.{100 + number}" for number in range(AT_ONCE))
    start = time.perf_counter()

    def fill() -> None:
        while len(waiting) < AT_A_TIME and (flight := next(left, None)) is not None:
            client = _begun(flight, next(sources))
            waiting[client.fileno()] = client
            poll.register(client.fileno(), select.EPOLLIN)

    fill()
    while waiting:
        ready = poll.poll(PATIENCE)
        if not ready:
            break
        for descriptor, _ in ready:
            waiting.pop(descriptor).close()
            answered += 1
        fill()
    took = time.perf_counter() - start - (PATIENCE if waiting else 0)
    assert answered >= 0.99 * len(flights), f"{len(flights) - answered} of {len(flights)} were lost"
    for client in waiting.values():
        client.close()
    poll.close()
    return answered / took


if __name__ == "__main__":
    sys.exit(main())
