"""How one decision grows with the policy: `python -m comparison.scaling` prints the figures as JSON.

A program of its own, so that a policy of a million names leaves the bench's memory with it.
"""

import gc
import json
import statistics
import subprocess
import sys
from typing import Final

from comparison.load import LoadError
from comparison.measurements import Bench, Metrics
from comparison.peers import Proxy
from comparison.settings import BENCH

_BANS: Final = 10
_SIZES: Final = {
    "base": (10, 10),
    "names": (1_000_000, 10),
    "networks": (10, 100_000),
    "both": (1_000_000, 100_000),
}
_REPETITIONS: Final = 7
_QUERIES: Final = 20_000
_DEADLINE: Final = 600


def measure() -> dict[str, float]:
    """Median microseconds per decision for each size; repetitions are interleaved."""
    from decide import measure as time_decisions
    from decide import policy, queries

    from tokgate.policy.snapshot import compile_policy

    stated = {name: policy(names, networks, _BANS) for name, (names, networks) in _SIZES.items()}
    prepared = {name: (compile_policy(given), queries(given, _QUERIES)) for name, given in stated.items()}
    gc.freeze()
    taken: dict[str, list[float]] = {name: [] for name in _SIZES}
    for _ in range(_REPETITIONS):
        for name, (snapshot, asked) in prepared.items():
            taken[name].append(time_decisions(snapshot, asked)[0])
    return {f"{name}_us": statistics.median(values) for name, values in taken.items()}


def decision_scaling(bench: Bench, proxy: Proxy) -> Metrics:
    """The same, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "comparison.scaling"],
        cwd=BENCH,
        capture_output=True,
        text=True,
        timeout=_DEADLINE,
        check=False,
    )
    if done.returncode:
        raise LoadError(f"deciding: {done.stderr.strip()[-300:]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    print(json.dumps(measure()))
