"""Connections of every kind, with gates killed at random, and what is left afterwards: `python bench/soak.py`.

Starts tokgate with two gates on loopback, opens tunnels through it that end in every way (whole, reset by either side,
cut in the hello, refused), kills a gate every few seconds, and at the end prints how many descriptors, pipes and
processes remain, which should be none but those that a fresh gate has.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/wire")]

import hello_builder  # noqa: E402

POLICY = """\
version: 1
services: {clips: {names: {suffix: [clips.example.org]}}}
networks: {here: {cidrs: [127.0.0.0/8]}}
bans: {ban: {title: Clips, services: [clips], networks: [here], starts: 2023-03-10T00:00}}
"""
ALLOWED = hello_builder.hello_for("www.example.net")
BANNED = hello_builder.hello_for("www.clips.example.org")
RESET = struct.pack("ii", 1, 0)


def origin(server: socket.socket) -> None:
    """Answer each connection with 1,200 octets, and break some off."""
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
                client.sendall(bytes(1200))
        except OSError:
            pass
        client.close()


def visit(proxy: tuple[str, int], target: int, kind: int) -> str:
    """One connection; how it ended."""
    try:
        with socket.create_connection(proxy, 5) as sock:
            sock.settimeout(5)
            sock.sendall(f"CONNECT 127.0.0.1:{target} HTTP/1.1\r\nHost: 127.0.0.1:{target}\r\n\r\n".encode())
            if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                return "no tunnel"
            if kind == 1:
                sock.sendall(BANNED)
                answer = sock.recv(16)
                return "refused" if answer[:1] == b"\x15" else "not refused" if answer else "ended early"
            if kind == 2:
                sock.sendall(ALLOWED[:90])
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return "cut short"
            sock.sendall(ALLOWED)
            if kind == 3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return "reset"
            size = 0
            while piece := sock.recv(65536):
                size += len(piece)
            return "whole" if size == 1200 else "ended early"
    except ConnectionResetError:
        return "reset by the other side"
    except OSError as error:
        return type(error).__name__


def gates(pid: int) -> list[int]:
    """The processes that are gates: children with the supervisor's own command line, which listen."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if descriptors(int(child))["epoll"]]


def descriptors(pid: int) -> Counter[str]:
    """A process's descriptors by kind."""
    kinds: Counter[str] = Counter()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            kinds["epoll" if "eventpoll" in target else target.partition(":")[0]] += 1
        if "opener" in Path(f"/proc/{pid}/cmdline").read_text():
            kinds["epoll"] = 0
    except OSError:
        pass
    return kinds


def main() -> int:
    """Run, and print what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="connections (default: 100000)")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--kill-every", type=float, default=2.0, metavar="SECONDS")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokgate-soak-") as name:
        folder = Path(name)
        (folder / "policy.yaml").write_text(POLICY)
        command = [sys.executable, "-m", "tokgate", "run", "--mode", "gate:explicit@127.0.0.1:0", "--workers", "2"]
        command += ["--policies", str(folder / "policy.yaml"), "--log", str(folder / "block.ndjson")]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "addons")}
        with (folder / "narration").open("wb") as output:
            tokgate = subprocess.Popen([*command, "--confdir", name, "--drain", "3"], stderr=output, env=environment)
        port = None
        while port is None:
            time.sleep(0.1)
            port = re.search(r"explicit clients on 127\.0\.0\.1:([0-9]+)", (folder / "narration").read_text())
        proxy = ("127.0.0.1", int(port[1]))
        time.sleep(2)
        before = [descriptors(pid) for pid in gates(tokgate.pid)]
        server = socket.create_server(("127.0.0.1", 0), backlog=4096)
        for _ in range(4):
            threading.Thread(target=origin, args=(server,), daemon=True).start()
        outcomes: Counter[str] = Counter()
        remaining, lock = [args.count], threading.Lock()

        def client(seed: int) -> None:
            rng = random.Random(seed)
            while True:
                with lock:
                    if remaining[0] <= 0:
                        return
                    remaining[0] -= 1
                ended = visit(proxy, server.getsockname()[1], rng.choices((0, 1, 2, 3), (70, 15, 10, 5))[0])
                with lock:
                    outcomes[ended] += 1

        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(args.threads)]
        started, kills, rng = time.monotonic(), 0, random.Random(1)
        for thread in threads:
            thread.start()
        next_kill = time.monotonic() + args.kill_every
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.1)
            if time.monotonic() >= next_kill:
                running = gates(tokgate.pid)
                if running:
                    os.kill(rng.choice(running), signal.SIGKILL)
                    kills += 1
                next_kill = time.monotonic() + args.kill_every
                sys.stderr.write(f"\r{args.count - remaining[0]:,} connections, {kills} gates killed ")
                sys.stderr.flush()
        seconds = time.monotonic() - started
        sys.stderr.write("\n")
        time.sleep(4)  # refused clients are listened to for two more seconds
        after = [descriptors(pid) for pid in gates(tokgate.pid)]
        family = [int(p) for p in Path(f"/proc/{tokgate.pid}/task/{tokgate.pid}/children").read_text().split()]
        tokgate.terminate()
        code = tokgate.wait(20)
        left = [pid for pid in family if Path(f"/proc/{pid}").exists()]
        print(f"{args.count:,} connections in {seconds:.0f} s, {kills} gates killed: {dict(outcomes.most_common())}")
        print(f"descriptors of each gate before: {[dict(each) for each in before]}")
        print(f"descriptors of each gate after:  {[dict(each) for each in after]}")
        print(f"exit code {code}; processes left: {len(left)}")
        clean = not left and code == 0 and max(a["socket"] for a in after) <= max(b["socket"] for b in before)
        return 0 if clean and "not refused" not in outcomes else 1


if __name__ == "__main__":
    sys.exit(main())
