"""The vitals of a tokgate that has seen everything, without running one."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from labs import builders
from tokgate.config.loader import Loaded
from tokgate.config.reload.holder import PolicyHolder, Reloaded
from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Visibility
from tokgate.runtime.instance import Reloads
from tokgate.service.metrics import sample as vitals
from tokgate.service.status import state_of, worker_of
from tokgate.traffic.counters import AT_LIMIT, ERROR, Counters

NOW = builders.at("2023-04-01T12:00:00Z")
LOG = {
    "written": 7,
    "dropped": 2,
    "gap": 1,
    "errors": 3,
    "queued": 4,
    "rotations": 5,
    "foreign": 3,
    "tampered": None,
    "last_error": "OSError: No space left on device",
    "failing_since": NOW.timestamp() - 30,
}

REPORT = {"descriptors": [20, 1000], "accounts": ""}
DEATHS = vitals.Deaths(("gate", "opener", "collector"), {"gate-0": 2, "gate-1": 1}, {"gate-0": 1})
GATEWAY: dict[str, Any] = {
    "ok": False,
    "problems": ["chain forward is missing"],
    "differences": {"table": ["chain forward is missing"], "routes": []},
    "restored": {"count": 3},
    "refused": {"quic": 7, "unknown_clients": 0},
    "canary": {"ok": True, "at": "2023-03-10T08:00:07Z", "problems": []},
}
HEALTHY: dict[str, Any] = {"writer": LOG | {"failing_since": None}}


def measured(
    folder: Path,
    *,
    error: str | None = None,
    faults: Sequence[str] = (),
    deaths: vitals.Deaths = DEATHS,
    gateway: dict[str, Any] | None = None,
    **changed: Any,
) -> vitals.Vitals:
    """A tokgate that has seen everything; `error` is that of the newest policy, `faults` are those of processes."""
    ban = builders.ban(expires=builders.at("2023-04-11T12:00:00Z"))
    snapshot = builders.snapshot(ban)
    holder = PolicyHolder(
        folder, snapshot, Loaded(snapshot.policy, (), (), ()), loaded_at=NOW.subtract(hours=1), seen={}
    )
    holder.last_error, holder.failing_since = error, NOW
    counters = Counters()
    counters.count("office", Visibility.SNI, Verdict.ALLOW)
    counters.count(None, Visibility.NONE, Verdict.BLOCK)
    for _ in range(2):
        counters.add(ERROR, "gate")
    counters.put(AT_LIMIT, 9)
    workers = [
        worker_of("gate-0", 1, 1.0, "x", {"connections": 5, **REPORT}),
        worker_of("gate-1", 2, 1.0, "x", {"connections": 6}),
        worker_of("gate-0", 3, 9.0, "w", {"connections": 1}, retired=True),
        worker_of("collector-0", 4, 9.0, None, {"log": {}}),
        worker_of("opener-0", 5, 9.0, "x", {"connections": 2}, silent=4.0),
    ]
    reloads = Reloads()
    reloads.note(Reloaded(True, snapshot, (), NOW, snapshot.version))
    reloads.note(Reloaded(False, snapshot, (), NOW, snapshot.version))
    instance: Any = SimpleNamespace(
        version="1.2.3",
        log=folder / "block.ndjson",
        started=NOW.subtract(hours=2),
        counts=counters.shared.read,
        reloads=reloads,
        holder=holder,
        now=lambda: NOW,
        gateway=lambda: gateway,
        restart_needed=tuple,
    )
    state = state_of(instance, workers, faults=faults)
    made = vitals.vitals_of(instance, state, log=LOG, confdir=folder, deaths=deaths)
    return json.loads(json.dumps(made)) | changed  # type: ignore[no-any-return]
