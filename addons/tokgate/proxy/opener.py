"""An opener's process: mitmproxy for connections that a gate hands over, writing its records to the collector.

Started by the supervisor with one argument, a JSON object. Later policies it notices by itself; what concerns the whole
of tokgate (policies loaded, phases changed) the supervisor records.
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
from typing import Final

from whenever import Instant

from tokgate.blocklog.channel import RecordSender
from tokgate.blocklog.document import Record
from tokgate.blocklog.health import Health
from tokgate.blocklog.stamp import Observer
from tokgate.config.loader import Loaded
from tokgate.config.reload import PolicyHolder
from tokgate.gate.tally import Tally
from tokgate.gate.warned import WarnedClients
from tokgate.policy.snapshot import Policy, compile_policy
from tokgate.proxy import launcher
from tokgate.proxy.adoption import GateInstance
from tokgate.proxy.desk import Reporter

FLUSH_EVERY: Final = 0.5
"""Seconds between two attempts to send what the collector did not take at once."""


class ForwardedLog:
    """Stands where the log's writer stands in a single process."""

    def __init__(self, sock: socket.socket, observer: Observer) -> None:
        """`sock` is the channel's writing end."""
        self.path: Final = Path("the collector")
        self._sender: Final = RecordSender(sock, observer)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Nothing to open."""

    def put(self, record: Record) -> bool:
        """Send, or keep for a moment."""
        if self._task is None:
            with contextlib.suppress(RuntimeError):  # before the loop runs
                self._task = asyncio.get_running_loop().create_task(self._flush())
        return self._sender.put(record)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            self._sender.flush()

    def reopen(self) -> None:
        """The collector's business."""

    def health(self) -> Health:
        """As far as it is known here."""
        return Health(
            path=self.path,
            written=self._sender.sent,
            dropped=self._sender.dropped,
            gap=0,
            errors=0,
            queued=0,
            rotations=0,
            last_error=None,
            failing_since=None,
        )

    def close(self, deadline: float) -> bool:
        """Send what is left; `deadline` is the collector's to keep."""
        if self._task is not None:
            self._task.cancel()
        return self._sender.flush()


async def serve(given: dict[str, object]) -> int:
    """Run as the supervisor says."""
    GateInstance.handovers = socket.socket(fileno=int(str(given["handovers"])))
    records = socket.socket(fileno=int(str(given["records"])))
    reports = socket.socket(fileno=int(str(given["reports"])))
    lifeline = int(str(given["lifeline"]))
    warned = WarnedClients(int(str(given["warned"])))
    options = launcher.RunOptions(
        modes=("gate",),
        policies=Path(str(given["policies"])),
        confdir=Path(str(given["confdir"])),
        drain=float(str(given["drain"])),
        implementer=str(given["implementer"]),
        worker=str(given["name"]),
        log_for=lambda path, observer, _: ForwardedLog(records, observer),
        until=lifeline,
        warned_for=lambda path, now: warned,
        policy_for=partial(_policy_in_force, int(str(given["policy"]))),
        desk_for=lambda tokgate, _: Reporter(reports, tokgate),
        tally=Tally(int(str(given["tally"]))),
    )
    return await launcher.run(options, say=lambda line: None)


def _policy_in_force(descriptor: int, path: Path, now: Instant) -> PolicyHolder:
    """Begin with the policy that the supervisor has in force: the files may be wrong at this moment.

    What is read is our own supervisor's pickle, in memory that nobody else has. The files count as not seen, so that
    watching begins with a look at them.
    """
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        policy: Policy = pickle.load(file)
    loaded = Loaded(policy, (), (), ())
    return PolicyHolder(path, compile_policy(policy), loaded, loaded_at=now, seen={})


def main() -> int:
    """Entry point of the process."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="tokgate: %(levelname)s: %(message)s")
    given = json.loads(sys.argv[1])
    os.nice(given["nice"])  # not before all is imported: whoever waits for a page waits for that
    return asyncio.run(serve(given))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to do, and threads of libraries might wait for each other
