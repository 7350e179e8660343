"""Can one client hurt another? A victim's time with and without an attacker, attack by attack.

Run as `.venv/bin/python bench/abuse.py`: some two minutes, on loopback. `subnet` takes root, and is left out without.
Clients are told apart by their addresses in 127.0.0.0/8. Exit codes: 0 all within the bar, 1 not so, 2 usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import resource
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "addons"))

BAR = 2.0
NOISE = 0.005
"""Seconds by which the victim's time may always differ: on a busy machine it does by itself."""
ATTACKER, VICTIM = "127.0.9.{}", "127.0.1.1"
SUBNET = "fd00:9::"
"""Of 64 bits."""
NEVER_ANSWERED = ".silent.example.net"
POLICY = {
    "version": 1,
    "services": {"clips": {"names": {"suffix": ["clips.example.org"]}}},
    "networks": {"here": {"cidrs": ["127.0.0.0/8"]}},
    "bans": {
        "ban": {
            "title": "Clips",
            "services": ["clips"],
            "networks": ["here"],
            "starts": "2023-03-10T00:00",
            "response": "page",
        }
    },
}
LIMITS = {"connections": 500, "per_client": 50}
"""Of the gate that is attacked from a subnet, where they are to be reached within seconds."""
type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Ports:
    """Where the gate and the origin listen."""

    gate: int
    origin: int


async def dial(ports: Ports, source: str) -> Streams:
    """Connect to the gate from an address of this machine."""
    return await asyncio.open_connection("::1" if ":" in source else "127.0.0.1", ports.gate, local_addr=(source, 0))


def connect(host: str, port: int, more: bytes = b"") -> bytes:
    """A CONNECT request, without its end if there is `more`."""
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}\r\n".encode() + (more or b"\r\n")


# -- attacks: each runs until it is killed


async def keep(count: int, begin: Callable[[int], Awaitable[Streams]], drip: bytes = b"") -> None:
    """Hold connections open, and open those anew that were ended; `drip` is sent in each of them again and again."""
    held: dict[int, Streams] = {}
    for turn in itertools.count():
        for number in range(count):
            if number in held and not held[number][0].at_eof() and not held[number][1].is_closing():
                held[number][1].write(drip)
                continue
            with contextlib.suppress(OSError):
                if number in held:
                    held.pop(number)[1].close()
                held[number] = await begin(number)
        if turn == 0:
            print("ready", flush=True)
        await asyncio.sleep(0.002 if drip else 1.0)


async def again(count: int, once: Callable[[int], Awaitable[None]]) -> None:
    """Do something again and again, `count` at a time."""

    async def one(number: int) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(20):
                    await once(number)
            number += count

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    print("ready", flush=True)
    await asyncio.gather(*tasks)


async def attack(name: str, ports: Ports) -> None:
    """Carry out an attack."""
    said = {
        "octets": b"GET / HTTP/1.1" + b"x" * 60_000,
        "connect-head": connect("localhost", ports.origin, b"X: " + b"x" * 60_000),
        "keep-alive": b"GET http://www.clips.example.org/ HTTP/1.1\r\nHost: www.clips.example.org\r\n\r\n",
        "heads": b"GET http://www.example.org/ HTTP/1.1\r\nX: " + b"x" * 250_000,
        "subnet": connect("127.0.0.1", ports.origin),
        "hellos": connect("127.0.0.1", ports.origin) + b"\x16\x03\x01\x40\x00\x01\x00\xf0\x00\x03\x03" + bytes(16_000),
    }
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100
    counts = {"octets": 100, "connect-head": 100, "keep-alive": min(10_000, most), "heads": 1000, "hellos": 1000}
    counts |= {"subnet": 4 * LIMITS["connections"]}

    said["slow-bodies"] = (
        b"POST http://www.clips.example.org/ HTTP/1.1\r\nHost: www.clips.example.org\r\nContent-Length: 60000\r\n\r\n"
    )
    counts["slow-bodies"] = 500

    async def say(number: int) -> Streams:
        source = f"{SUBNET}{number + 1:x}" if name == "subnet" else ATTACKER.format(1)
        reader, writer = await dial(ports, source)
        writer.write(said[name])
        return reader, writer

    async def unresolved(number: int) -> None:
        reader, writer = await dial(ports, ATTACKER.format(number % 16 + 1))
        writer.write(connect(f"n{number}{NEVER_ANSWERED}", 443))
        await reader.read(100)
        writer.close()

    async def banned(number: int) -> None:
        reader, writer = await dial(ports, ATTACKER.format(1))
        writer.write(
            f"GET http://n{number}.clips.example.org/ HTTP/1.1\r\nHost: n{number}.clips.example.org\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def page(_: int) -> None:
        reader, writer = await dial(ports, ATTACKER.format(1))
        writer.write(connect("www.clips.example.org", 443))
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(unverified(), server_hostname="www.clips.example.org")
        writer.write(b"GET / HTTP/1.1\r\nHost: www.clips.example.org\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    nameless = hello(None)

    async def probe(number: int) -> None:
        reader, writer = await dial(ports, ATTACKER.format(1))
        writer.write(connect(f"127.0.{number >> 8 & 255}.{number & 255}", ports.origin))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(nameless)
        await reader.read(100)
        writer.close()

    if name in said:
        await keep(counts[name], say, b"x" if name in ("octets", "connect-head", "slow-bodies") else b"")
    else:
        repeated: dict[str, tuple[Callable[[int], Awaitable[None]], int]] = {
            "unresolved": (unresolved, 320),
            "banned-names": (banned, 32),
            "pages": (page, 64),
            "probes": (probe, 64),
            **{each: (partial(flood, each, ports), 6) for each in FLOODS},
        }
        once, count = repeated[name]
        await again(count, once)


async def flood(name: str, ports: Ports, _: int) -> None:
    """One connection of HTTP/2 that sends what costs work and brings nothing."""
    reader, writer = await dial(ports, ATTACKER.format(1))
    writer.write(connect("www.clips.example.org", 80))
    await reader.readuntil(b"\r\n\r\n")
    for piece in frames(name):
        writer.write(piece)
        await writer.drain()
    await reader.read(1 << 20)
    writer.close()


ATTACKS = {
    "octets": ("tunnel", "100 requests of 60 kB without an end, then octet by octet"),
    "connect-head": ("tunnel", "100 CONNECT heads of 60 kB, then octet by octet"),
    "hellos": ("tunnel", "1,000 unfinished hellos in tunnels"),
    "unresolved": ("tunnel", "320 names at a time that nobody answers, from 16 addresses"),
    "probes": (
        "tunnel",
        "64 hellos without a name at a time, each to another destination that is asked for its certificate",
    ),
    "subnet": ("tunnel", "2,000 tunnels, each from an IPv6 address of its own in one /64, at a gate that takes 500"),
    "keep-alive": ("page", "10,000 idle keep-alive connections to an opener, or as many as `ulimit -Hn` allows"),
    "heads": ("page", "1,000 heads of 250 kB without an end"),
    "pages": ("page", "64 page handshakes at a time"),
    "banned-names": ("page", "32 requests at a time, each for another banned name"),
    "slow-bodies": ("page", "500 requests with a body that comes octet by octet"),
    "resets": ("page", "6 connections of HTTP/2 at a time, 20,000 streams each that are reset at once"),
    "resets-apart": ("page", "the same, 100 streams begun in one segment and reset in the next"),
    "pings": ("page", "6 connections of HTTP/2 at a time, 20,000 PING frames each"),
    "settings": ("page", "the same with SETTINGS"),
    "empty-data": ("page", "the same with DATA without an octet"),
    "trees": ("page", "the same with PRIORITY, each stream depending on the one before"),
    "continuations": ("page", "the same with CONTINUATION, of a head that never ends"),
    "pipelined": ("page", "6 connections of HTTP/1 at a time, 20,000 requests each that wait for no answer"),
}
FLOODS = ("resets", "resets-apart", "pings", "settings", "empty-data", "trees", "continuations", "pipelined")


def frames(name: str) -> Iterator[bytes]:
    """What a connection sends, in pieces: of HTTP/2 but in one attack."""
    if name == "pipelined":
        for _ in range(20):
            yield b"GET / HTTP/1.1\r\nHost: www.clips.example.org\r\n\r\n" * 1000
        return
    encoder, size = Encoder(), 20_000

    def head(stream: int, *flags: str) -> bytes:
        fields = [(":method", "GET"), (":authority", "www.clips.example.org"), (":scheme", "http"), (":path", "/")]
        frame = HeadersFrame(stream, encoder.encode(fields))
        frame.flags |= set(flags)
        return frame.serialize()

    def reset(stream: int) -> bytes:
        return RstStreamFrame(stream, error_code=8).serialize()

    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
    if name in ("resets", "resets-apart"):
        at_once = 1 if name == "resets" else 100
        for first in range(1, 2 * size, 2 * at_once):
            streams = range(first, first + 2 * at_once, 2)
            yield b"".join(head(each, "END_HEADERS", "END_STREAM") for each in streams)
            yield b"".join(map(reset, streams))
        return
    yield head(1) if name == "continuations" else head(1, "END_HEADERS")
    frame: Callable[[int], Frame] = {
        "pings": lambda _: PingFrame(0, bytes(8)),
        "settings": lambda _: SettingsFrame(0),
        "empty-data": lambda _: DataFrame(1, b""),
        "trees": lambda number: PriorityFrame(2 * number + 3, depends_on=2 * number + 1),
        "continuations": lambda _: ContinuationFrame(1, b""),
    }[name]
    for number in range(0, size, 1000):
        yield b"".join(frame(each).serialize() for each in range(number, number + 1000))


def unverified() -> ssl.SSLContext:
    """Whoever shows the page is trusted."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


# -- the victim


def hello(name: str | None = "www.example.org") -> bytes:
    """What an ordinary client says in its tunnel; without a name if there is none."""
    outgoing = ssl.MemoryBIO()
    client = unverified().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def victim_once(kind: str, ports: Ports, first: bytes) -> None:
    """One tunnel that carries a hello and its echo, or one refused request with its page. Raises OSError."""
    with socket.create_connection(("127.0.0.1", ports.gate), 20, source_address=(VICTIM, 0)) as sock:
        if kind == "page":
            sock.sendall(b"GET http://www.clips.example.org/ HTTP/1.0\r\nHost: www.clips.example.org\r\n\r\n")
            if not sock.recv(65536).startswith(b"HTTP/1.1 4"):  # 451 or 403, by the basis of the ban
                raise OSError("no page")
            return
        sock.sendall(connect("localhost", ports.origin))
        if b" 200 " not in sock.recv(4096):
            raise OSError("no tunnel")
        sock.sendall(first)
        if not sock.recv(4096):
            raise OSError("no echo")


def measure(kind: str, ports: Ports, seconds: float) -> tuple[list[float], int]:
    """The victim's times, in seconds, and how often it failed. A failure counts as ten seconds."""
    first, times, failed, end = hello(), [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            victim_once(kind, ports, first)
            times.append(time.monotonic() - began)
        except OSError:
            failed += 1
            times.append(10.0)
        time.sleep(0.005)
    return times, failed


def quantiles(times: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    return statistics.median(times), sorted(times)[int(len(times) * 0.99)]


# -- what is attacked


def serve() -> None:
    """Be tokgate, where some names are asked of servers that don't answer: in bench's own process for that."""
    from tokgate.gate import background
    from tokgate.traffic.counters import DnsError

    look_up = background.addresses_of

    def slow(host: str) -> tuple[str, ...] | DnsError:
        if host.endswith(NEVER_ANSWERED):
            time.sleep(10)
            return DnsError.UNANSWERED
        return look_up(host)

    background.addresses_of = slow
    from tokgate.cli.main import main as tokgate

    sys.exit(tokgate(sys.argv[2:]))


@contextlib.contextmanager
def running(folder: Path, *, limited: bool) -> Iterator[tuple[Ports, subprocess.Popen[bytes]]]:
    """Run tokgate with one gate and one opener, and an origin that echoes. `limited`: to `LIMITS`, on IPv6 as well."""
    (folder / "policies").mkdir()
    policy = POLICY | {"settings": {"missing_sni": "check-certificate"} | ({"limits": LIMITS} if limited else {})}
    (folder / "policies/policy.yaml").write_text(json.dumps(policy))
    origin = socket.create_server(("", 0), backlog=512)

    def echo(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(65536):
                client.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(origin.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    command = [sys.executable, str(Path(__file__)), "--serve", "run"]
    for place in ("127.0.0.1:18080", "[::1]:18080") if limited else ("127.0.0.1:0",):
        command += ["--mode", f"gate:explicit@{place}"]
    command += [
        "--workers",
        "1",
        "--policies",
        "policies",
        "--log",
        "block.ndjson",
        "--confdir",
        "keys",
        "--drain",
        "1",
    ]
    narration = folder / "narration"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "addons")}
    with narration.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stderr=output, env=environment)
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"on 127\.0\.0\.1:([0-9]+)", narration.read_text())):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"tokgate did not start: {narration.read_text()}")
            time.sleep(0.05)
        yield Ports(int(found[1]), origin.getsockname()[1]), process
    finally:
        process.terminate()
        process.wait(30)
        origin.close()


def resident(process: subprocess.Popen[bytes]) -> int:
    """The resident memory of a process's children, in MiB."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    pages = [int(Path(f"/proc/{child}/statm").read_text().split()[1]) for child in children]
    return sum(pages) * resource.getpagesize() >> 20


def try_one(name: str, seconds: float) -> bool:
    """Measure one attack and print its line; whether it is within the bar."""
    kind, limited = ATTACKS[name][0], name == "subnet"
    with (
        tempfile.TemporaryDirectory(prefix="tokgate-abuse-") as path,
        running(Path(path), limited=limited) as (ports, process),
    ):
        log = Path(path) / "block.ndjson"
        measure(kind, ports, 1.0)  # what is made at the first time
        before, _ = measure(kind, ports, seconds)
        memory = resident(process)
        command = [sys.executable, str(Path(__file__)), "--attack", name, str(ports.gate), str(ports.origin)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as attacker:
            try:
                assert attacker.stdout is not None
                attacker.stdout.readline()
                size, began = log.stat().st_size if log.exists() else 0, time.monotonic()
                during, failed = measure(kind, ports, seconds)
                grown = (log.stat().st_size - size if log.exists() else 0) / (time.monotonic() - began) / 1024
                memory = resident(process) - memory
            finally:
                attacker.send_signal(signal.SIGKILL)
        alone, beside = quantiles(before), quantiles(during)
    within = all(b <= max(BAR * a, a + NOISE) for a, b in zip(alone, beside, strict=True)) and not failed
    figures = "  ".join(f"{1000 * a:7.1f} {1000 * b:7.1f} {b / a:5.1f}" for a, b in zip(alone, beside, strict=True))
    print(f"{name:13} {kind:7} {figures}  {failed:4} {memory:6} {grown:8.0f}  {'' if within else 'over the bar'}")
    return within


def try_subnet(seconds: float) -> bool:
    """`try_one` where all of a /64 is this machine's: in a network namespace, which takes root."""
    if os.geteuid():
        print("subnet        left out: it takes root")
        return True
    child = os.fork()
    if not child:
        os.unshare(os.CLONE_NEWNET)
        route = f"ip -6 route add local {SUBNET}/64 dev lo"
        for command in ("ip link set lo up", route, "sysctl -qw net.ipv6.ip_nonlocal_bind=1"):
            subprocess.run(command.split(), check=True)
        within = try_one("subnet", seconds)
        sys.stdout.flush()
        os._exit(not within)
    return os.waitpid(child, 0)[1] == 0


def main() -> int:
    """Run the attacks that are asked for, and print a table."""
    if sys.argv[1:2] == ["--serve"]:
        serve()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if sys.argv[1:2] == ["--attack"]:
        os.nice(19)  # an attacker's own processor is elsewhere
        asyncio.run(attack(sys.argv[2], Ports(int(sys.argv[3]), int(sys.argv[4]))))
    listing = "\n".join(f"  {name:13} {text}" for name, (_, text) in ATTACKS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"attacks:\n{listing}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help="which (default: all)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for each measurement (default: 5)")
    args = parser.parse_args()
    if unknown := set(args.attacks) - ATTACKS.keys():
        parser.error(f"no such attack: {', '.join(sorted(unknown))}")
    print("the victim's time in ms, alone and beside the attacker; its failures; MiB and KiB/s of log that are added")
    head = f"{'p50':>7} {'beside':>7} {'x':>5}  {'p99':>7} {'beside':>7} {'x':>5}"
    print(f"{'attack':13} {'victim':7} {head}  fail    MiB    KiB/s", flush=True)
    within = [
        try_subnet(args.seconds) if name == "subnet" else try_one(name, args.seconds)
        for name in args.attacks or ATTACKS
    ]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
