"""How long the review of a large log takes: writes one, then asks it.

    python bench/reviewing.py [--events 10000000] [--clients 5000] [--folder /tmp] [--keep] [--page]

Records are tokgate's own, unfolded: every event is a line of some 2.1 kB, so ten million need 21 GB for the time being.
Ids, connections and hashes are random, as they are to whatever packs them; the hashes form no chain, which would take
longer to make than all that is measured.
CPU time is what the machine's other work can't change; wall time is on whatever cores are free.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "addons"))

from whenever import Instant

from tokgate.analytics.index import Index
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.record import Stamp, encode, this_observer
from tokgate.blocklog.records.traffic import traffic_record
from tokgate.config.loader import load
from tokgate.policy.decide import Sighting, decide_signals
from tokgate.policy.decision import Signal
from tokgate.policy.observation import DnsSeen, Endpoint, Observation, Stage, TlsSeen, Transport, Visibility
from tokgate.policy.snapshot import Snapshot, compile_policy
from tokgate.webui import queries
from tokgate.webui.log_query import LogQuery

START = Instant.from_utc(2026, 1, 1)
PER_FILE = 35_000
"""Lines of a rotated file: some 64 MiB."""
CLIENT, HOST, STAMPED = "10.127.127.127", "bench-placeholder.tiktok.com", "2026-01-01T00:00:00.000000Z"
ID: Final = "01862000-0000-7000-8000-000000000001"
CONNECTION: Final = "6f1e0d5c4b3a"
NAMES = ("www", "api16-normal", "v16-webapp", "log", "mon", "m", "vm", "webcast", "im-ws", "p16-sign", "ads", "lf16")


def templates(snapshot: Snapshot) -> list[bytes]:
    """A record of each frequent kind, to be filled in: building ten million would take longer than reading them."""
    tls = TlsSeen(alpn=("h2", "http/1.1"), ja4="t13d1516h2_8daaf6152771_02713d6af862")
    kinds = (
        (Stage.TLS, Signal.SNI, Visibility.SNI, Transport.TCP, {"tls": tls}),
        (Stage.QUIC, Signal.QUIC_SNI, Visibility.QUIC_SNI, Transport.UDP, {"tls": tls}),
        (
            Stage.DNS,
            Signal.DNS_NAME,
            Visibility.DNS,
            Transport.UDP,
            {"dns": DnsSeen(id=7, type="HTTPS", response_code="NXDOMAIN")},
        ),
    )
    lines = []
    for stage, signal, visibility, transport, extra in kinds:
        seen = Observation(
            client=Endpoint(CLIENT, 51234), destination=Endpoint("203.0.113.5", 443), stage=stage,
            visibility=visibility, transport=transport, names=(Sighting(signal, HOST),),
            connection=None if stage is Stage.DNS else CONNECTION, **extra,
        )  # fmt: skip
        judgement = decide_signals(snapshot, CLIENT, seen.names, START)
        record = traffic_record(Stamp(ID, START, this_observer()), seen, judgement, snapshot)
        if record is None:
            raise SystemExit("the policy blocks nothing here: the bench needs the shipped policies")
        lines.append(encode(link(Head(str(uuid4())), record)[0]))
    return lines


def _holes(line: bytes) -> bytes:
    """What differs from record to record, taken out of a line."""
    stated = json.loads(line)["event"]
    for what, hole in ((STAMPED, "T"), (CLIENT, "C"), (HOST, "N"), (ID, "I"), (CONNECTION, "K"), (stated["hash"], "H")):
        line = line.replace(what.encode(), f"\0{hole}".encode())
    return line.replace(b'"sequence":1', b'"sequence":\0S')


def write_log(folder: Path, events: int, clients: int, snapshot: Snapshot) -> None:
    """Files as rotation leaves them."""
    rng = random.Random(7)
    lines = templates(snapshot)
    parts = [_holes(line) for line in lines]
    addresses = [f"10.{32 + n // 65536}.{n // 256 % 256}.{n % 256}".encode() for n in range(clients)]
    for number, first in enumerate(range(0, events, PER_FILE)):
        path = folder / f"block-2026{number // 28 + 1:02}{number % 28 + 1:02}T000000.000000Z.ndjson"
        with path.open("wb") as stream:
            for event in range(first, min(first + PER_FILE, events)):
                at = START.add(seconds=event * 31_536_000 // events).format_iso(unit="microsecond").encode()
                name = f"{rng.choice(NAMES)}.tiktok.com".encode()
                client = addresses[int(rng.paretovariate(1.1) * 3) % clients]
                text = f"{rng.getrandbits(128):032x}".encode()
                event_id = b"-".join((text[:8], text[8:12], b"7" + text[13:16], b"8" + text[17:20], text[20:]))
                line = rng.choice(parts).replace(b"\0T", at).replace(b"\0C", client).replace(b"\0N", name)
                line = line.replace(b"\0I", event_id).replace(b"\0K", f"{rng.getrandbits(48):012x}".encode())
                line = line.replace(b"\0H", f"{rng.getrandbits(256):064x}".encode())
                stream.write(line.replace(b"\0S", str(event + 1).encode()))


def measured(what: str, *arguments: str) -> None:
    """Run a command and say what it took."""
    env = os.environ | {"PYTHONPATH": sys.path[0]}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "tokgate", "log", *arguments], check=True, stdout=subprocess.DEVNULL, env=env)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{what:<42} {wall:8.1f} s wall  {cpu:8.1f} s CPU  peak {after.ru_maxrss / 1024:6.0f} MiB so far", flush=True)


def timed(what: str, *steps: Callable[[], object]) -> None:
    """Run steps in this process and say what they took."""
    cpu, started = time.process_time(), time.perf_counter()
    for step in steps:
        step()
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<42} {wall:8.2f} s wall  {cpu:8.2f} s CPU  peak {peak:6.0f} MiB so far", flush=True)


def measure_page(log: Path) -> None:
    """What somebody waits for at `tokgate review`, without the server around it."""
    client = LogQuery().with_filter("client", "10.32.0.7")
    march = LogQuery().during(Instant.from_utc(2026, 3, 1), Instant.from_utc(2026, 4, 1))
    with closing(Index([log])) as index:
        timed("page: read for two seconds", lambda: index.catch_up(2))
        timed("page: read the rest", lambda: index.catch_up(3600))
        for name, query in (("all", LogQuery()), ("one client", client), ("a month", march)):
            timed(f"page: overview, {name}", partial(queries.overview, index, query))
            timed(f"page: lines, {name}", partial(queries.lines, index, query))
        ((event,),) = index.ask("SELECT CAST(event_id AS VARCHAR) FROM lines LIMIT 1 OFFSET 1000")
        timed("page: one event's line", lambda: index.line(event))


def main() -> None:
    """Write, measure, remove."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--clients", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--keep", action="store_true", help="leave the log where it is")
    parser.add_argument("--page", action="store_true", help="also what `tokgate review` takes")
    args = parser.parse_args()
    policy = load(Path(__file__).parent.parent / "policies", START).policy
    if policy is None:
        raise SystemExit("the shipped policies have errors")
    folder = Path(tempfile.mkdtemp(prefix="tokgate-bench-review-", dir=args.folder))
    try:
        write_log(folder, args.events, args.clients, compile_policy(policy))
        files = sorted(folder.iterdir())
        size = sum(path.stat().st_size for path in files)
        print(f"{args.events:,} events in {len(files)} files, {size / 2**30:.1f} GiB", flush=True)
        log = str(folder / "block.ndjson")
        measured("summary of NDJSON", "summary", "--json", "--log", log)
        measured("summary of one client", "summary", "--json", "--client", "10.32.0.7", "--log", log)
        measured(
            "query: top clients, SQL",
            "query",
            "--json",
            "--sql",
            "SELECT client, sum(events) FROM events GROUP BY 1",
            "--log",
            log,
        )
        if args.page:
            measure_page(Path(log))
    finally:
        if not args.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
