"""How long one decision takes, and how that grows with the policy: `python bench/decide.py [--quick]`.

Prints microseconds per decision (median and 99th percentile of single calls, each timed alone, so that the timer's own
cost is inside) for policies of growing size; half of the names asked for belong to a banned service.
"""

import argparse
import random
import statistics
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "addons"))

from whenever import Instant, ItemizedDelta, PlainDateTime

from tokgate.policy.bans import Ban
from tokgate.policy.decide import decide
from tokgate.policy.networks import Network
from tokgate.policy.services import NamePattern, PatternKind, Service
from tokgate.policy.settings import Settings
from tokgate.policy.snapshot import Policy, Snapshot, compile_policy

AT = Instant.from_utc(2023, 5, 1)


def policy(names: int, networks: int, bans: int) -> Policy:
    """`bans` services and bans share `names` suffixes and `networks` networks of 10.0.0.0/8 among them."""
    per_service, per_ban = names // bans, networks // bans
    prefix = 32 if networks > 65536 else 24
    services = {
        f"s{i}": Service(
            f"s{i}",
            f"service {i}",
            tuple(NamePattern(PatternKind.SUFFIX, f"n{j}.s{i}.example.org") for j in range(per_service)),
        )
        for i in range(bans)
    }
    size = 2 ** (32 - prefix)
    stated = {
        f"n{i}": Network(f"n{i}", (IPv4Network(((10 << 24) + i * size, prefix)),), "Europe/Brussels")
        for i in range(networks)
    }
    banned = {
        f"b{i}": Ban(
            name=f"b{i}",
            title=f"ban {i}",
            services=(f"s{i}",),
            networks=tuple(f"n{k}" for k in range(i * per_ban, (i + 1) * per_ban)),
            starts=PlainDateTime(2023, 3, 10),
            duration=ItemizedDelta(months=6),
        )
        for i in range(bans)
    }
    return Policy(services=services, networks=stated, bans=banned, exemptions={}, settings=Settings(), version="bench")


def queries(stated: Policy, count: int) -> list[tuple[str, str]]:
    """Clients in and around the networks, names half banned and half not; no two alike on purpose."""
    rng = random.Random(7)
    networks, services = list(stated.networks.values()), list(stated.services.values())
    asked = []
    for number in range(count):
        client = str(networks[rng.randrange(len(networks))].cidrs[0].network_address)
        host = f"www{number}.example{rng.randrange(1000)}.net"
        if number % 2:
            service = services[rng.randrange(len(services))]
            host = f"v{number}.{service.patterns[rng.randrange(len(service.patterns))].value}"
        asked.append((client, host))
    return asked


def measure(snapshot: Snapshot, asked: list[tuple[str, str]]) -> tuple[float, float]:
    """Median and 99th percentile in microseconds, after one pass to warm up."""
    for client, host in asked:
        decide(snapshot, client, host, AT)
    taken = []
    for client, host in asked:
        start = time.perf_counter_ns()
        decide(snapshot, client, host, AT)
        taken.append((time.perf_counter_ns() - start) / 1000)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


def main() -> None:
    """Print one line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the largest policies")
    args = parser.parse_args()
    sizes = [(10, 10, 10), (1_000, 1_000, 100), (100_000, 10_000, 1_000)]
    if not args.quick:
        sizes += [(1_000_000, 10_000, 1_000), (1_000_000, 100_000, 1_000)]
    print(f"{'names':>9} {'networks':>9} {'bans':>6} {'compile s':>10} {'median µs':>10} {'p99 µs':>8}")
    for names, networks, bans in sizes:
        stated = policy(names, networks, bans)
        start = time.perf_counter()
        snapshot = compile_policy(stated)
        compiled = time.perf_counter() - start
        median, p99 = measure(snapshot, queries(stated, 20_000))
        print(f"{names:>9,} {networks:>9,} {bans:>6,} {compiled:>10.2f} {median:>10.2f} {p99:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
