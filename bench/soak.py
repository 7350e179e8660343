"""Connections of every kind, with processes killed at random, and what is left afterwards: `python bench/soak.py`.

Starts tokgate with three gates and an opener on loopback, opens tunnels through it that end in every way (whole, in
bulk, reset by either side, cut in the hello, refused by gate or opener), kills gates and the opener, and at the end
prints how many descriptors, pipes and processes remain, which should be none but those that a fresh process has, and
pooled pipes. One gate is never killed, and the opener not in the second half: what they leak would show.

With `--seconds` it runs that long, kills nobody but a gate now and then, and measures each process's memory and
descriptors and the log's size all the while. After the first fifth, in which openers get more than their part and
caches fill, each has to stay level:
a slope that two halves of the time agree on fails the run (see `soak_slopes.py`).
"""

import argparse
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "addons"), str(ROOT / "bench")]

from soak_slopes import WARMING, Measured, judged  # noqa: E402

from labs import hello_builder  # noqa: E402
from tokgate.gate.relay import MAX_POOLED  # noqa: E402

POLICY = """\
version: 1
services: {clips: {names: {suffix: [clips.example.org]}}}
networks: {here: {cidrs: [127.0.0.0/8]}}
bans: {ban: {title: Clips, services: [clips], networks: [here], starts: 2023-03-10T00:00}}
"""
ALLOWED = hello_builder.hello_for("www.example.net")
BANNED = hello_builder.hello_for("www.clips.example.org")
WHOLE, BULK = 1200, 1 << 20


class Kind(Enum):
    """What a client does; the value is how often, in a hundred."""

    READS = 60
    HALF_CLOSES = 4
    """Ends its side before it reads."""
    BY_SOCKS = 6
    """Reads through SOCKS 5."""
    BANNED = 14
    CUT_SHORT = 10
    RESETS = 5
    OPENED = 1
    """Asks for what an opener refuses."""


OFTEN = 40
"""How often it asks an opener while caches fill: an opener's memory is level after some ten thousand requests."""
RESET = struct.pack("ii", 1, 0)


def origin(server: socket.socket) -> None:
    """Answer each connection with 1,200 octets or a mebibyte, and break some off."""
    number = 0
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        number += 1
        client.settimeout(5)
        try:
            client.recv(65536)
            if number % 7 == 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            else:
                client.sendall(bytes(BULK if number % 11 == 0 else WHOLE))
        except OSError:
            pass
        client.close()


def tunnels(sock: socket.socket, target: int, *, socks: bool) -> bool:
    """Whether the proxy builds a tunnel. Raises OSError."""
    if socks:
        sock.sendall(b"\5\1\0\5\1\0\1\x7f\0\0\1" + target.to_bytes(2))
        return b"".join(sock.recv(1) for _ in range(12)).startswith(b"\5\0\5\0")
    sock.sendall(f"CONNECT 127.0.0.1:{target} HTTP/1.1\r\nHost: 127.0.0.1:{target}\r\n\r\n".encode())
    return sock.recv(4096).startswith(b"HTTP/1.1 200")


def visit(proxy: tuple[str, int], target: int, kind: Kind) -> str:
    """One connection; how it ended."""
    try:
        with socket.create_connection(proxy, 5) as sock:
            sock.settimeout(5)
            if kind is Kind.OPENED:
                sock.sendall(b"CONNECT www.clips.example.org:443 HTTP/1.1\r\nHost: www.clips.example.org\r\n\r\n")
                return "refused by an opener" if sock.recv(4096).startswith(b"HTTP/1.1 403") else "ended early"
            if not tunnels(sock, target, socks=kind is Kind.BY_SOCKS):
                return "no tunnel"
            if kind is Kind.BANNED:
                sock.sendall(BANNED)
                answer = sock.recv(16)
                return "refused" if answer[:1] == b"\x15" else "not refused" if answer else "ended early"
            if kind is Kind.CUT_SHORT:
                sock.sendall(ALLOWED[:90])
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return "cut short"
            sock.sendall(ALLOWED)
            if kind is Kind.RESETS:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return "reset"
            if kind is Kind.HALF_CLOSES:
                sock.shutdown(socket.SHUT_WR)
            size = 0
            while piece := sock.recv(65536):
                size += len(piece)
            return "whole" if size == WHOLE else "bulk" if size == BULK else "ended early"
    except ConnectionResetError:
        return "reset by the other side"
    except OSError as error:
        return type(error).__name__


def children(pid: int) -> list[int]:
    """The processes under the supervisor, in the order of their start."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_opener(pid: int) -> bool:
    """Whether a process is an opener: it has a command line of its own."""
    try:
        return b"tokgate.service.opener_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def gates(pid: int) -> list[int]:
    """The children that are gates: forks of the supervisor that poll."""
    return [child for child in children(pid) if not is_opener(child) and descriptors(child)["eventpoll"]]


def openers(pid: int) -> list[int]:
    """The children that are openers."""
    return [child for child in children(pid) if is_opener(child)]


def descriptors(pid: int) -> Counter[str]:
    """A process's descriptors by kind."""
    kinds: Counter[str] = Counter()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            kinds["eventpoll" if "eventpoll" in target else target.partition(":")[0]] += 1
    except OSError:
        pass
    return kinds


def main() -> int:  # noqa: C901, PLR0915  (one run, in its order)
    """Run, and print what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="connections (default: 100000)")
    parser.add_argument("--seconds", type=float, help="run that long instead, and judge slopes")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--kill-every", type=float, default=2.0, metavar="SECONDS")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokgate-soak-") as name:
        folder = Path(name)
        (folder / "policy.yaml").write_text(POLICY)
        command = [sys.executable, "-m", "tokgate", "run", "--mode", "gate:explicit@127.0.0.1:0", "--workers", "3"]
        command += ["--openers", "1"]
        command += ["--policies", str(folder / "policy.yaml"), "--log", str(folder / "block.ndjson")]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "addons")}
        with (folder / "narration").open("wb") as output:
            tokgate = subprocess.Popen([*command, "--confdir", name, "--drain", "3"], stderr=output, env=environment)
        port = None
        while port is None:
            time.sleep(0.1)
            port = re.search(r"explicit clients on 127\.0\.0\.1:([0-9]+)", (folder / "narration").read_text())
        proxy = ("127.0.0.1", int(port[1]))
        while visit(proxy, 0, Kind.OPENED) != "refused by an opener":
            time.sleep(0.1)
        spared, opener = gates(tokgate.pid)[0], openers(tokgate.pid)[0]
        before: list[Counter[str]] = []
        while before != (before := [descriptors(pid) for pid in (spared, opener)]):
            time.sleep(2)  # an opener goes on opening for a moment: it begins to watch the policy's files
        server = socket.create_server(("127.0.0.1", 0), backlog=4096)
        for _ in range(4):
            threading.Thread(target=origin, args=(server,), daemon=True).start()
        outcomes: Counter[str] = Counter()
        remaining, lock = [args.count], threading.Lock()
        until = None if args.seconds is None else time.monotonic() + args.seconds
        measured = Measured()

        def client(seed: int) -> None:
            rng = random.Random(seed)
            while True:
                with lock:
                    if remaining[0] <= 0 if until is None else time.monotonic() >= until:
                        return
                    remaining[0] -= 1
                warms = until is not None and time.monotonic() < until - (1 - WARMING) * args.seconds
                often = [OFTEN if kind is Kind.OPENED and warms else kind.value for kind in Kind]
                (kind,) = rng.choices(tuple(Kind), often)
                ended = visit(proxy, server.getsockname()[1], kind)
                with lock:
                    outcomes[ended] += 1

        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(args.threads)]
        started, kills, rng = time.monotonic(), 0, random.Random(1)
        for thread in threads:
            thread.start()
        kill_every = args.kill_every if until is None else 10 * args.kill_every
        next_kill = time.monotonic() + kill_every
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.1)
            if until is not None:
                with lock:
                    done = sum(outcomes.values())
                measured.look({"supervisor": tokgate.pid, "spared gate": spared, "opener": opener}, folder, done)
            if time.monotonic() >= next_kill:
                early = until is None and remaining[0] > args.count / 2
                running = gates(tokgate.pid) + openers(tokgate.pid) * early
                mortal = [pid for pid in running if pid != spared]
                if mortal:
                    os.kill(rng.choice(mortal), signal.SIGKILL)
                    kills += 1
                next_kill = time.monotonic() + kill_every
                sys.stderr.write(f"\r{args.count - remaining[0]:,} connections, {kills} processes killed ")
                sys.stderr.flush()
        seconds = time.monotonic() - started
        sys.stderr.write("\n")
        time.sleep(4)  # refused clients are listened to for two more seconds
        family = children(tokgate.pid)
        after = [descriptors(pid) for pid in (spared, *openers(tokgate.pid))]
        tokgate.terminate()
        code = tokgate.wait(20)
        left = [pid for pid in family if Path(f"/proc/{pid}").exists()]
        print(
            f"{sum(outcomes.values()):,} connections in {seconds:.0f} s, {kills} kills: {dict(outcomes.most_common())}"
        )
        leaked = Counter[str]()
        for who, then, now in zip(("spared gate", "opener"), before, after, strict=True):
            print(f"descriptors of the {who} before: {dict(then)}")
            print(f"descriptors of the {who} after:  {dict(now)}")
            leaked += now - then
        pooled = leaked.pop("pipe", 0)
        print(f"exit code {code}; processes left: {len(left)}; pooled pipes: {pooled // 2}; leaked: {dict(leaked)}")
        grows = judged(measured, print)
        clean = not grows and not left and code == 0 and not leaked and pooled <= 2 * MAX_POOLED
        return 0 if clean and "not refused" not in outcomes else 1


if __name__ == "__main__":
    sys.exit(main())
