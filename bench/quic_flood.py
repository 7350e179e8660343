"""A flood of QUIC's first packets: what it costs in memory and in the kernel's set, and what another client notices.

Run as root as `.venv/bin/python bench/quic_flood.py [--seconds S]`: some two minutes. Needs what `quic.py` needs. For
each attack a new `tokgate run --gateway` has two gates, and flow after flow begins, each from another port, as fast as
that goes at a `nice` of 19 more; a client of the same network opens one page after another over HTTP/3.

passing  hellos with an allowed name, each followed by a short header, on which the kernel gets the flow
banned   hellos with a banned name
halves   packets of hellos that never end, each of which makes a gate keep 60,000 octets

From one address, and (`-crowd`) from 150. `--full` begins as many flows of as many clients in one gate's tables,
without sockets, as there may be, and a quarter more, and prints what memory they take.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "addons"))

from labs import builders
from labs.clients import http3
from labs.gateway import KERNEL_TOO, Gateway, office_policy
from labs.netns import Lab, sweep, wait_until
from labs.origin import ALLOWED, BANNED, Origin
from labs.quic_lab import QuicGate, client
from labs.quic_packets import QuicClient, initial
from labs.records import Records
from tokgate.gate.quic.flow_table import QuicLimits

SINK: Final = "203.0.113.30"
"""Where flows go: nothing is answered there."""
SHORT: Final = b"\x40" + bytes(40)
LAST_OCTET: Final = b"\x06" + struct.pack("!IB", 0x80000000 | 60_000, 1) + b"x"
"""A CRYPTO frame that claims to be the end of a hello of 60,000 octets."""
SENT: Final = {
    "passing": lambda: [QuicClient(ALLOWED).flight[0], SHORT],
    "banned": lambda: [QuicClient(BANNED).flight[0]],
    "halves": lambda: [initial(LAST_OCTET)],
}
CROWD: Final = [f"192.0.2.{number}" for number in range(100, 250)]


@dataclass(frozen=True, slots=True)
class Cost:
    """What an attack cost: MiB of gates' resident memory at the most, elements in the set, and what gates counted."""

    mib: float
    elements: int
    at_limit: int
    begun: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S", help="for each measurement (default: 8)")
    parser.add_argument("--only", nargs="+", metavar="ATTACK", help="which (default: all)")
    parser.add_argument("--full", action="store_true", help="a gate's tables at their limits")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        flood(options.attack)
    if options.full:
        return full()
    sweep()
    lab = Lab(os.getpid())
    with contextlib.ExitStack() as stack:
        stack.callback(lab.down)
        lab.up()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "origin").mkdir()
        origin = stack.enter_context(Origin(lab.origin, folder / "origin"))
        lab.origin.run("ip", "addr", "add", f"{SINK}/24", "dev", "eth0")
        stack.enter_context(lab.origin.inside(sink))
        for address in CROWD:
            lab.client.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        print(f"{'attack':15}{'p50 ms':>8}{'p99 ms':>8}{'fail':>6}{'MiB':>8}{'set':>8}{'at limit':>10}{'begun':>10}")
        for number, attack in enumerate(options.only or ("none", *SENT, *(f"{kind}-crowd" for kind in SENT))):
            made = folder / str(number)
            made.mkdir()
            with Gateway(
                lab.gateway,
                made,
                policy=office_policy(),
                mode=KERNEL_TOO,
                options=("--workers", "2"),
                check=Path.exists,
            ) as gateway:
                http3(lab.client, origin, ALLOWED, 4)  # what is made at the first time
                took, failed, cost = beside(lab, origin, gateway, attack, options.seconds)
            tail = statistics.quantiles(took, n=100)[98] if len(took) > 1 else float("nan")
            print(
                f"{attack:15}{statistics.median(took):8.1f}{tail:8.1f}{failed:6}{cost.mib:8.1f}{cost.elements:8}"
                f"{cost.at_limit:10}{cost.begun:10}",
                flush=True,
            )
    return 0


def beside(lab: Lab, origin: Origin, gateway: Gateway, attack: str, seconds: float) -> tuple[list[float], int, Cost]:
    """Milliseconds of each page that the victim got during an attack, its failures, and what the attack cost."""
    pids = [each["pid"] for each in workers(gateway)]
    before, most, took, failed = resident(pids), 0.0, [], 0
    output, begun = gateway.folder / "begun", 0
    with contextlib.ExitStack() as stack:
        if attack != "none":
            words = (sys.executable, Path(__file__).resolve(), "--attack", attack)
            attacker = stack.enter_context(lab.client.start(*words, output=output))
            stack.callback(attacker.terminate)
            wait_until("the attack begins", output.read_text)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            code, said = http3(lab.client, origin, ALLOWED, 4, "-o", "/dev/null", "-w", "%{time_total}")
            if code:
                failed += 1
            else:
                took.append(float(said) * 1000)
            most = max(most, resident(pids) - before)
        elements = in_set(lab)
    if attack != "none":
        begun = int(output.read_text().split()[-1])
    at_limit = sum(each["report"]["refused_at_limit"] for each in workers(gateway))
    return took, failed, Cost(most, elements, at_limit, begun)


def full() -> int:
    """Fill a gate's tables in processes of their own."""
    print(f"{'flows':9}{'begun':>8}{'passing':>9}{'undecided':>11}{'held MiB':>10}{'MiB':>8}")
    limits = QuicLimits()
    service, network = builders.service("clips", "suffix:tiktok.com"), builders.network("clients", "127.0.0.0/8")
    policy = builders.snapshot(builders.ban(networks=("clients",)), services=(service,), networks=(network,))
    for kind, most in (("passing", limits.flows), ("banned", limits.undecided), ("halves", limits.undecided)):
        for begun in (most, most * 5 // 4):
            if child := os.fork():
                os.waitpid(child, 0)
                continue
            records = Records(lambda record: record)
            gate = QuicGate(records, policy)
            before, datagrams = resident([os.getpid()]), SENT[kind]()
            for number in range(begun):
                gate.comes(*datagrams, key=client(number))
                for sent in (records.all, gate.sent.to_server, gate.sent.to_client, gate.sent.unreachable):
                    sent.clear()
            flows = gate.carrier.flows
            sizes = f"{len(flows.passing):9}{len(flows.undecided):11}{flows.held >> 20:10}"
            print(f"{kind:9}{begun:8}{sizes}{resident([os.getpid()]) - before:8.1f}", flush=True)
            os._exit(0)
    return 0


def workers(gateway: Gateway) -> list[dict[str, Any]]:
    """What `tokgate status` says of each gate."""
    done = gateway.namespace.run(*gateway.command("status", "--json"), env=gateway.environment, check=False)
    return [each for each in json.loads(done.stdout)["workers"] if each["name"].startswith("gate-")]


def resident(pids: Sequence[int]) -> float:
    """The resident memory of processes, in MiB."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * resource.getpagesize() / 2**20


def in_set(lab: Lab) -> int:
    """The flows of IPv4 that the kernel forwards."""
    listed = json.loads(lab.gateway.run("nft", "-j", "list", "set", "inet", "tokgate", "quic4").stdout)
    return sum(len(each["set"].get("elem", ())) for each in listed["nftables"] if "set" in each)


def sink() -> socket.socket:
    """A server that reads nothing."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((SINK, 443))
    return made


def flood(attack: str) -> None:
    """Begin flows until SIGTERM, then print how many began."""
    os.nice(19)  # an attacker's own processor is elsewhere
    kind, _, crowd = attack.partition("-")
    datagrams, begun, running = SENT[kind](), 0, [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())
    addresses = CROWD if crowd else CROWD[:1]
    places = cycle((address, port) for port in range(1024, 65536) for address in addresses)
    print("ready", flush=True)
    while running:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
            client.bind(next(places))
            client.connect((SINK, 443))
            for datagram in datagrams:
                client.send(datagram)
            begun += 1
    print(begun, flush=True)
    sys.exit()


if __name__ == "__main__":
    sys.exit(main())
