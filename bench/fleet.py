"""What a fleet's logs take: bytes an event in each form, lines a second into ClickHouse, time of each question.

    python bench/fleet.py [--gateways 4] [--events 200000] [--copies 40] [--rounds 5] [--folder /tmp] [--json FILE]

Writes the days of a few gateways (day.py), packs them in every way, loads them into ClickHouse in this process (chdb)
as a shipper would, and asks what analysts ask: of these days, and of `--copies` days like them. Then it projects.
Needs `make setup-clickhouse`, some 4 GB of disk, and a quarter of an hour. Rates are by CPU time, which other work on
the machine changes least; times of questions are medians on the clock, and the least of the rounds beside them.
"""

import argparse
import gzip
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "addons"))

import chdb
import duckdb
from backports import zstd
from chdb.session import Session
from day import Gateway, Traffic

from tokgate.blocklog.paths import with_rotated

ROOT: Final = Path(__file__).resolve().parent.parent
GATEWAYS: Final = 200
EVENTS_A_DAY: Final = 1_000_000_000
CLIENT, NAME, BAN = "10.0.0.1", "www.tiktok.com", "offices-2026"

QUESTIONS: Final = {
    "who was refused most, one day": (
        "SELECT client, sum(events) AS n FROM tokgate.events WHERE ban = '{ban}' AND verdict = 'block' "
        "AND time >= '{day} 00:00:00' AND time < '{next} 00:00:00' GROUP BY 1 ORDER BY n DESC LIMIT 10"
    ),
    "everything of one client, one day": (
        "SELECT * FROM tokgate.events WHERE client = '{client}' "
        "AND time >= '{day} 00:00:00' AND time < '{next} 00:00:00' ORDER BY time"
    ),
    "everything of one client, all days": (
        "SELECT toDate(time), target, verdict, sum(events) FROM tokgate.events WHERE client = '{client}' GROUP BY ALL"
    ),
    "one record by its id": "SELECT * FROM tokgate.events WHERE event_id = '{id}'",
    "events by hour and phase, all days (hourly)": (
        "SELECT hour, phase, sum(events), uniqMerge(clients) FROM tokgate.hourly GROUP BY ALL ORDER BY 1, 2"
    ),
    "repeated offenders, all days (daily)": (
        "SELECT client, uniqExact(day) AS days, sum(events) AS n FROM tokgate.daily WHERE verdict = 'block' "
        "GROUP BY 1 ORDER BY days DESC, n DESC LIMIT 20"
    ),
    "the same from the records, all days": (
        "SELECT client, uniqExact(toDate(time)) AS days, sum(events) AS n FROM tokgate.events WHERE verdict = 'block' "
        "GROUP BY 1 ORDER BY days DESC, n DESC LIMIT 20"
    ),
    "did everything arrive, one day (arrival)": (
        "SELECT sum(missing), sum(twice) FROM tokgate.arrival WHERE day = '{day}'"
    ),
    "policy in force on each gateway": "SELECT gateway, policy, heard FROM tokgate.gateways",
}  # fmt: skip


@dataclass(slots=True)
class Measured:
    """What came out."""

    records: int = 0
    events: int = 0
    bytes: dict[str, float] = field(default_factory=dict)
    """Bytes a record, by form."""
    rates: dict[str, float] = field(default_factory=dict)
    """Records a second of CPU time, which other work on the machine changes least."""
    questions: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    """Seconds on the clock, median and least, by how many rows the table had."""


def main() -> None:
    """Write, measure, print, remove."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", type=int, default=4)
    parser.add_argument("--events", type=int, default=200_000, help="attempts a gateway (default: 200,000)")
    parser.add_argument("--clients", type=int, default=1_000, help="clients a gateway (default: 1,000)")
    parser.add_argument("--copies", type=int, default=40, help="days like it for the questions (default: 40)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tokgate-bench-fleet-", dir=options.folder))
    try:
        found = measure(folder, options)
    finally:
        shutil.rmtree(folder)
    setting = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "chdb": chdb.__version__,
        "clickhouse": chdb.engine_version,
        "duckdb": duckdb.__version__,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
    }
    show(found, setting)
    if options.json:
        figures = {"setting": setting, "records": found.records, "events": found.events, "bytes": found.bytes}
        figures |= {"rates": found.rates, "questions": found.questions}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, options: argparse.Namespace) -> Measured:
    """All of it, one after the other: two measurements at once would measure each other."""
    found, files = Measured(), []
    say("writing the days")
    started = used()
    for number in range(options.gateways):
        log = folder / f"gw{number}" / "block.ndjson"
        traffic = Traffic(events=options.events, clients=options.clients, gateway=number)
        Gateway(traffic).write(log)
        files += with_rotated(log)
    found.records = sum(1 for path in files for _ in path.open("rb"))
    found.rates["made up, judged, folded, chained and written"] = found.records / (used() - started)
    pack(found, files, options.rounds)
    verify(found, files, options.rounds)
    load_and_ask(found, folder, files, options)
    return found


def pack(found: Measured, files: list[Path], rounds: int) -> None:
    """The files as they are shipped and kept."""
    say("packing")
    whole = sum(path.stat().st_size for path in files)
    found.bytes["NDJSON"] = whole / found.records
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gzip -6": lambda data: gzip.compress(data, 6),
        "zstd -3": lambda data: zstd.compress(data, 3),
        "zstd -19": lambda data: zstd.compress(data, 19),
    }
    for name, squeeze in packers.items():
        chosen = files if name != "zstd -19" else files[:1]
        size, records = 0, 0
        for path in chosen:
            data = path.read_bytes()
            size += len(squeeze(data))
            records += data.count(b"\n")
        found.bytes[name] = size / records
        sample = files[0].read_bytes()[: 4 << 20]
        seconds = processor(partial(squeeze, sample), rounds if name != "zstd -19" else 1)
        found.rates[name] = sample.count(b"\n") / seconds


def verify(found: Measured, files: list[Path], rounds: int) -> None:
    """`tokgate log verify` of one gateway's day."""
    say("verifying")
    log = files[0].parent / "block.ndjson"
    chain = with_rotated(log)
    records = sum(1 for path in chain for _ in path.open("rb"))
    key = log.with_suffix(".pub")
    seconds = processor(lambda: tokgate("log", "verify", "--key", str(key), *map(str, chain)), rounds)
    found.rates["tokgate log verify"] = records / seconds


def load_and_ask(found: Measured, folder: Path, files: list[Path], options: argparse.Namespace) -> None:
    """ClickHouse: from lines to answers."""
    session = Session(str(folder / "clickhouse"))
    try:
        script = (ROOT / "deploy/siem/clickhouse/schema.sql").read_text(encoding="utf-8")
        for statement in script.rstrip().removesuffix(";").split(";\n"):
            session.query(statement)
        say("loading into ClickHouse")
        started = used()
        for path in files:
            source = f"file('{path}', LineAsString, 'line String')"
            session.query(f"INSERT INTO tokgate.lines SELECT line, _file FROM {source}")
        found.rates["lines into ClickHouse, all tables"] = found.records / (used() - started)
        found.events = int(one(session, "SELECT sum(events) FROM tokgate.events WHERE traffic")[0])
        for table in ("events", "hourly", "daily"):
            session.query(f"OPTIMIZE TABLE tokgate.{table} FINAL")
        for table, name in (
            ("events", "ClickHouse: records"),
            ("hourly", "ClickHouse: by hour"),
            ("daily", "ClickHouse: by day"),
        ):
            found.bytes[name] = size_of(session, table) / found.records
        for column, size in columns_by_size(session)[:6]:
            found.bytes[f"  of which {column}"] = size / found.records
        ask(found, session, options.rounds)
        say(f"making {options.copies} days of it")
        multiply(session, options.copies)
        ask(found, session, options.rounds)
    finally:
        session.close()


def multiply(session: Session, copies: int) -> None:
    """The same day again, before it: with ids, hashes and chains of its own, which are what doesn't pack."""
    names = [
        name
        for (name,) in rows(session, "SELECT name FROM system.columns WHERE database = 'tokgate' AND table = 'events'")
    ]
    for number in range(1, copies):
        changed = {
            "time": f"e.time - INTERVAL {number} DAY",
            "first_time": f"e.first_time - INTERVAL {number} DAY",
            "last_time": f"e.last_time - INTERVAL {number} DAY",
            "event_id": "generateUUIDv4()",
            "hash": f"lower(hex(SHA256(concat(e.hash, '{number}'))))",
            "chain": f"concat(e.chain, '-{number}')",
        }
        values = ", ".join(f"{changed.get(name, f'e.{quoted(name)}')} AS {quoted(name)}" for name in names)
        inner = f"SELECT {values} FROM tokgate.events AS e WHERE toDate(e.time) = '2026-11-24'"
        session.query(f"INSERT INTO tokgate.events ({', '.join(map(quoted, names))}) {inner}")
    session.query("OPTIMIZE TABLE tokgate.hourly FINAL")
    session.query("OPTIMIZE TABLE tokgate.daily FINAL")


def ask(found: Measured, session: Session, rounds: int) -> None:
    """Every question, several times."""
    (count,) = one(session, "SELECT count() FROM tokgate.events")
    say(f"asking {int(count):,} rows")
    (known,) = one(session, "SELECT any(event_id) FROM tokgate.events WHERE traffic AND toDate(time) = '2026-11-24'")
    filled = {"ban": BAN, "client": CLIENT, "day": "2026-11-24", "next": "2026-11-25", "id": known}
    for name, question in QUESTIONS.items():
        sql = question.format(**filled)
        seconds = clock(partial(session.query, sql, "Null"), rounds)
        found.questions.setdefault(name, {})[f"{int(count):,}"] = seconds


def show(found: Measured, setting: dict[str, Any]) -> None:
    """Print what docs/fleet.md has in its tables."""
    print(", ".join(f"{name} {value}" for name, value in setting.items()))
    fold = found.events / found.records
    print(f"\n{found.records:,} records that stand for {found.events:,} events: {fold:.2f} events a record\n")
    for name, size in found.bytes.items():
        print(f"| {name} | {size:,.1f} | {size / fold:,.1f} |")
    print()
    for name, rate in found.rates.items():
        print(f"| {name} | {rate:,.0f} |")
    print()
    for name, by_rows in found.questions.items():
        print(
            f"| {name} | "
            + " | ".join(f"{middle * 1000:,.0f} ({least * 1000:,.0f}) ms" for middle, least in by_rows.values())
            + " |"
        )
    print(f"\n{GATEWAYS} gateways, {EVENTS_A_DAY:,} events a day:")
    for label, ratio in (
        ("nothing folds", 1.0),
        (f"{fold:.2f} events a record, as here", fold),
        ("10 events a record", 10.0),
    ):
        records = EVENTS_A_DAY / ratio
        print(f"  {label}: {records / 86_400:,.0f} records/s in all, {records / 86_400 / GATEWAYS:,.0f} a gateway")
        for name in ("NDJSON", "zstd -3", "ClickHouse: records"):
            print(f"    {name}: {records * found.bytes[name] / 1e9:,.0f} GB a day")


def tokgate(*arguments: str) -> None:
    """Run a command; a finding is an error here."""
    env = os.environ | {"PYTHONPATH": str(ROOT / "addons")}
    done = subprocess.run([sys.executable, "-m", "tokgate", *arguments], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"tokgate {' '.join(arguments[:3])}: {done.stdout[-500:]}{done.stderr[-500:]}")


def clock(do: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Seconds that pass: the median, and the least."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        do()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), min(taken)


def processor(do: Callable[[], object], rounds: int) -> float:
    """Seconds of CPU time, of this process and of programs that it ran: the median."""
    taken = []
    for _ in range(rounds):
        started = used()
        do()
        taken.append(used() - started)
    return statistics.median(taken)


def used() -> float:
    """CPU time so far."""
    mine, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + others.ru_utime + others.ru_stime


def rows(session: Session, sql: str) -> list[list[Any]]:
    """An answer."""
    return [json.loads(line) for line in str(session.query(sql, "JSONCompactEachRow")).splitlines()]


def one(session: Session, sql: str) -> list[Any]:
    """The one row of an answer."""
    return rows(session, sql)[0]


def size_of(session: Session, table: str) -> int:
    """Bytes on the disk."""
    sql = f"SELECT sum(bytes_on_disk) FROM system.parts WHERE database = 'tokgate' AND table = '{table}' AND active"
    return int(one(session, sql)[0])


def columns_by_size(session: Session) -> list[tuple[str, int]]:
    """What takes most."""
    sql = (
        "SELECT column, sum(column_data_compressed_bytes) AS size FROM system.parts_columns WHERE database = 'tokgate' "
        "AND table = 'events' AND active GROUP BY 1 ORDER BY 2 DESC"
    )
    return [(str(name), int(size)) for name, size in rows(session, sql)]


def total(paths: Iterator[Path]) -> int:
    """Bytes of files."""
    return sum(path.stat().st_size for path in paths)


def quoted(name: str) -> str:
    """A column in SQL."""
    return f"`{name}`"


def say(what: str) -> None:
    """Where it is."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
