"""Swaps a policy of ten names for one of a million while connections run: how long did the slowest one wait?"""

import shutil
import signal
import time
from pathlib import Path
from string import Template
from typing import Final

from comparison.load import LoadError
from comparison.measurements import Bench, Metrics
from comparison.peers import Proxy
from comparison.settings import SMALL

NAMES: Final = 1_000_000
_PER_FILE: Final = 250_000
_CONNECTIONS: Final = 8
_BASELINE: Final = 10.0
_DEADLINE: Final = 240.0
_PROBES: Final = 32
"""Probes that must all be refused before the reload counts as done: enough to meet every gate process."""


def reload_under_load(bench: Bench, proxy: Proxy) -> Metrics:
    """The slowest connection without and with the reload, and how long the reload took."""
    with bench.start(proxy.peer) as fresh:
        assert fresh.service is not None
        service = fresh.service
        write_policy(fresh.policies / "ten.yaml", "few", 10)
        service.signal(signal.SIGHUP)
        fresh.intercept()
        _await_refusal(bench, fresh, "n9.few.example.org", 30)
        large = bench.folder / "large-policy"
        shutil.rmtree(large, ignore_errors=True)
        large.mkdir()
        for part in range(NAMES // _PER_FILE):
            write_policy(large / f"many{part}.yaml", f"many{part}", _PER_FILE)
        resting = bench.load.small(_CONNECTIONS, _BASELINE).finish()
        with bench.load.small(_CONNECTIONS, _DEADLINE + 60) as running:
            time.sleep(1)
            began = time.monotonic()
            # One rename, so that no reload ever sees half of it.
            large.rename(fresh.policies / "large")
            service.signal(signal.SIGHUP)
            _await_refusal(bench, fresh, f"n{_PER_FILE - 1}.many{NAMES // _PER_FILE - 1}.example.org", _DEADLINE)
            took = time.monotonic() - began
            time.sleep(2)
            figures = running.stop()
    if figures.err:
        raise LoadError(f"{figures.err} connections failed during the reload: {dict(figures.errors)}")
    return {
        "max_ms": max(figures.max_ms, figures.oldest_ms),
        "p99_ms": figures.p99_ms,
        "over_20_ms": float(figures.over_threshold),
        "connections": float(figures.ok),
        "rest_max_ms": resting.max_ms,
        "rest_p99_ms": resting.p99_ms,
        "took_s": took,
    }


_POLICY: Final = Template("""\
version: 1
services:
  $name:
    title: Names to load
    names:
      suffix:
$suffixes
bans:
  $name:
    title: Names to load
    authority: The bench
    basis: So that there is something to load
    contact: servicedesk@example.org
    services: [$name]
    networks: [clients]
    starts: 2024-01-01T00:00
    action: block
    response: refuse
""")


def write_policy(path: Path, name: str, count: int) -> None:
    """A file that bans n0 to n<count - 1> below `name`.example.org."""
    suffixes = "\n".join(f"        - n{number}.{name}.example.org" for number in range(count))
    path.write_text(_POLICY.substitute(name=name, suffixes=suffixes))


def _await_refusal(bench: Bench, proxy: Proxy, name: str, seconds: float) -> None:
    """Wait until every gate refuses a name."""
    assert proxy.service is not None
    deadline = time.monotonic() + seconds
    while bench.load.refused(1, 10, _PROBES, name, SMALL).finish().ok < _PROBES:
        if not proxy.service.alive():
            raise LoadError(f"the proxy ended: {proxy.service.last_words()}")
        if time.monotonic() > deadline:
            raise LoadError(f"{name} is still not refused after {seconds:g} s: {proxy.service.last_words()}")
        time.sleep(0.1)
