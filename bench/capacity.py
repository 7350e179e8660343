"""What a connection costs a gateway, and what so many people need by that: `python bench/capacity.py`.

Starts tokgate with one gate on loopback, opens tunnels through it that are idle, then some whose client takes nothing
of what its server sends, which is the most that a connection holds; reads memory, descriptors and kernel memory from
/proc; and prints a table, of which docs/operation.md has the row for 10,000. What a person does is no measurement but a
parameter: `--open`, `--busy`, `--new`, which your own metrics know.
"""

import argparse
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "addons")]

from labs.running_lab import Running, children, until  # noqa: E402

PEOPLE: Final = (1_000, 10_000, 100_000)
PER_CLIENT: Final = 2_000
"""Tunnels from one address of 127.0.0.0/8: half of what a gate allows."""
PORTS: Final = 28_232
"""net.ipv4.ip_local_port_range as Linux has it: 32768 to 60999."""
TIME_WAIT: Final = 60
"""Seconds for which Linux keeps a port to the same destination (TCP_TIMEWAIT_LEN, net/tcp.h)."""
GATE_HOLDS: Final = 50_000
"""settings.limits.connections"""
CONNECTION: Final = 146e-6
GIB: Final = 0.411
"""Seconds of a core for a new connection that comes alone, and for a GiB of one stream (bench/RESULTS.md)."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a gate and the kernel hold: KiB of the gate's own, descriptors, KiB of sockets' buffers, KiB of slabs."""

    own: float
    descriptors: int
    buffers: float
    slabs: float

    @classmethod
    def now(cls, pid: int) -> "Usage":
        """Read from /proc."""
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        own = sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_Clean", "Private_Dirty")))
        (tcp,) = [line.split() for line in Path("/proc/net/sockstat").read_text().splitlines() if line[:4] == "TCP:"]
        memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        pages = int(tcp[tcp.index("mem") + 1])
        slabs = float(memory["Slab"].split()[0])
        return cls(own, len(list(Path(f"/proc/{pid}/fd").iterdir())), pages * 4.0, slabs)

    def each(self, before: "Usage", count: int) -> "Usage":
        """What each of `count` has added. Of kernel memory half: the other half is the clients' and the server's."""
        return Usage(
            (self.own - before.own) / count,
            round((self.descriptors - before.descriptors) / count),
            (self.buffers - before.buffers) / count / 2,
            (self.slabs - before.slabs) / count / 2,
        )


class Server:
    """Accepts, and sends without end to whoever asks for it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.held.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    @staticmethod
    def _serve(client: socket.socket) -> None:
        try:
            if client.recv(64)[1:] == b"all":
                while True:
                    client.sendall(bytes(1 << 16))
        except OSError:
            return


def tunnels(running: Running, server: Server, count: int, said: bytes) -> Iterator[socket.socket]:
    """So many tunnels through the gate, over each of which something was said."""
    port = server.listener.getsockname()[1]
    request = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    for number in range(count):
        client = socket.create_connection(("127.0.0.1", running.port), 30, (f"127.0.{1 + number // PER_CLIENT}.1", 0))
        client.sendall(request)
        answer = client.recv(4096)
        if b" 200 " not in answer:
            raise RuntimeError(f"no tunnel: {answer!r}")
        client.sendall(b"\0" + said)
        yield client


def measure(idle: int, unread: int) -> tuple[Usage, Usage, Usage]:
    """A gate without connections, what each idle one adds, and each whose client doesn't read."""
    policy = {"version": 1, "networks": {"here": {"cidrs": ["127.0.0.0/8"]}}}
    with tempfile.TemporaryDirectory(prefix="tokgate-capacity-") as name, ExitStack() as open_:
        running = Running(Path(name), workers=1, policy=policy)
        until("it carries", running.passes)
        (gate,) = [pid for pid in children(running.process.pid) if _is_gate(pid)]
        server = Server()
        empty = _settled(gate)
        for client in tunnels(running, server, idle, b"x"):
            open_.enter_context(client)
        full = _settled(gate)
        for client in tunnels(running, server, unread, b"all"):
            open_.enter_context(client)
        stuffed = _settled(gate)
        open_.close()
        for each in server.held:
            each.close()
        running.close()
    return empty, full.each(empty, idle), stuffed.each(full, unread)


def _is_gate(pid: int) -> bool:
    links = (str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
    opener = b"opener_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return not opener and any("eventpoll" in link for link in links)


def _settled(gate: int) -> Usage:
    """As soon as nothing is on its way any more."""
    before = Usage.now(gate)
    while True:
        time.sleep(2)
        now = Usage.now(gate)
        if now.descriptors == before.descriptors and abs(now.buffers - before.buffers) <= before.buffers / 100 + 64:
            return now
        before = now


def table(idle: Usage, unread: Usage, *, open_: float, busy: float, new: float, mbit: float) -> Iterable[str]:
    """The rows for each number of people."""
    kernel = max(idle.slabs, 0.0) + max(idle.buffers, 0.0)
    named = ("people", "connections", "new a second", "gates' memory", "kernel's memory", "descriptors", "ports")
    yield f"| {' | '.join((*named, 'gates', 'cores'))} |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for people in PEOPLE:
        connections, full, rate = people * open_, people * busy, people * new
        own = (connections * idle.own + full * max(unread.own, 0.0)) / 1024
        held = (connections * kernel + full * max(unread.buffers + unread.slabs, 0.0)) / 1024
        descriptors = connections * idle.descriptors + full * max(unread.descriptors - idle.descriptors, 0)
        ports = connections + rate * TIME_WAIT
        gates = -(-connections // GATE_HOLDS)
        cores = rate * CONNECTION + people * mbit * 1e6 / 8 / 2**30 * GIB
        yield (
            f"| {people:,} | {connections:,.0f} | {rate:,.0f} | {own:,.0f} MiB | {held:,.0f} MiB | "
            f"{descriptors:,.0f} | "
            f"{ports:,.0f}: {max(1, -(-ports // PORTS)):.0f} address{'' if ports <= PORTS else 'es'} if all go to one "
            f"server | {gates:.0f} or more | {cores:.1f} |"
        )


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=6_000, help="idle tunnels (default: 6000)")
    parser.add_argument("--unread", type=int, default=200, help="tunnels whose client doesn't read (default: 200)")
    parser.add_argument("--open", type=float, default=30, help="connections that a person has open (default: 30)")
    parser.add_argument("--busy", type=float, default=0.2, help="of these, full to the brim (default: 0.2)")
    parser.add_argument("--new", type=float, default=0.2, help="new connections of a person a second (default: 0.2)")
    parser.add_argument("--mbit", type=float, default=1, help="Mbit/s of a person, when all are busy (default: 1)")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    empty, idle, unread = measure(args.idle, args.unread)
    print(f"a gate without connections: {empty.own / 1024:.1f} MiB of its own, {empty.descriptors} descriptors")
    for what, each in (("idle", idle), ("unread", unread)):
        print(
            f"each {what} connection: {each.own:.2f} KiB in the gate, {each.descriptors} descriptors, "
            f"{each.buffers:.1f} KiB of buffers and {each.slabs:.1f} KiB of slabs in the kernel"
        )
    for line in table(idle, unread, open_=args.open, busy=args.busy, new=args.new, mbit=args.mbit):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
