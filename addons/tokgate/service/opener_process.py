"""The process of an opener: mitmproxy for connections that a gate hands over. Its records go to the collector.

The supervisor starts it with one argument, a JSON object. It reads changed policies itself. Records about the whole of
tokgate (policies loaded, phases changed) are the supervisor's.
"""

import asyncio
import contextlib
import json
import logging
import os
import pickle
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.records.record import Observer, Record
from tokgate.blocklog.write.channel import RecordSender
from tokgate.blocklog.write.writer import WriterHealth
from tokgate.config.loader import Loaded
from tokgate.config.reload.holder import HeldStore, PolicyHolder
from tokgate.mitm.addon import Tokgate
from tokgate.mitm.gate_mode import GateInstance
from tokgate.policy.snapshot import Policy, compile_policy
from tokgate.service.children import end_with_supervisor
from tokgate.service.mitmproxy_addons import Reporter
from tokgate.service.mitmproxy_process import RunOptions, serve
from tokgate.traffic.counters import Counters, SharedCounters
from tokgate.traffic.warning_state import WarnedClients

FIRST_TO_GO: Final = 500
"""The opener's oom_score_adj; see proc_pid_oom_score_adj(5). Raising it needs no privilege."""
FLUSH_EVERY: Final = 0.5
"""Seconds between two attempts to send what the collector did not take at once."""


class ForwardedLog:
    """Has the interface of `LogWriter` and sends records to the collector."""

    def __init__(self, sock: socket.socket, observer: Observer, backlog: int | None = None) -> None:
        """`sock` is the sending end of the collector's channel, `backlog` the memory for what it doesn't take."""
        self.path: Final = Path("the collector")
        self._sender: Final = RecordSender(sock, observer, backlog=backlog)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Does nothing: the socket is open already."""

    def put(self, record: Record) -> bool:
        """Send a record, or queue it while the channel is full; False if it was dropped."""
        if self._task is None:
            with contextlib.suppress(RuntimeError):  # before the loop runs
                self._task = asyncio.get_running_loop().create_task(self._flush())
        return self._sender.put(record)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            self._sender.flush()

    def health(self) -> WriterHealth:
        """The counts of this process; those of the file are known to the collector only."""
        return WriterHealth(path=self.path, written=self._sender.sent, dropped=self._sender.dropped)

    def close(self, deadline: float) -> bool:
        """Send what is queued; False if some of it could not be sent. `deadline` is not used."""
        if self._task is not None:
            self._task.cancel()
        return self._sender.flush()


async def run(given: dict[str, Any]) -> int:
    """Run mitmproxy with the options and descriptors that the supervisor passed; returns the exit code."""
    GateInstance.handovers, records, reports = (
        socket.socket(fileno=given[name]) for name in ("handovers", "records", "reports")
    )
    warned = WarnedClients(given["warned"])
    options = RunOptions(
        modes=("gate",),
        policies=Path(given["policies"]),
        log=Path(given["log"]),
        confdir=Path(given["confdir"]),
        drain=given["drain"],
        mark=given["mark"],
    )
    tokgate = Tokgate(
        worker=given["name"],
        log_for=lambda path, observer, _: ForwardedLog(records, observer, given["backlog"]),
        warned_for=lambda path, now: warned,
        policy_for=partial(_policy_in_force, given["policy"]),
        counters=Counters(SharedCounters(given["counters"])),
    )
    reporter = Reporter(reports, tokgate)
    return await serve(options, tokgate, (reporter,), until=given["lifeline"], say=lambda line: None)


def _policy_in_force(descriptor: int, path: Path, now: Instant, held: HeldStore) -> PolicyHolder:
    """The supervisor's policy in force: the files may hold an invalid one at this moment.

    The pickle comes from our own supervisor, in memory that no other process has. The files count as unseen, so that
    watching them begins with a check.
    """
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        policy: Policy = pickle.load(file)
    loaded = Loaded(policy, (), (), ())
    return PolicyHolder(path, compile_policy(policy), loaded, loaded_at=now, seen={}, held=held, follows=True)


def main() -> int:
    """Entry point: parse the argument, run, return the exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="tokgate: %(levelname)s: %(message)s")
    given = json.loads(sys.argv[1])
    end_with_supervisor(given["lifeline"], given["drain"])  # again: exec took the handlers away
    os.nice(given["nice"])  # after the imports, which the first page waits for
    with contextlib.suppress(OSError):  # where memory runs out, an opener goes first: gates carry everybody
        Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO))
    return asyncio.run(run(given))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # skip the interpreter's shutdown: threads of libraries might deadlock in it
