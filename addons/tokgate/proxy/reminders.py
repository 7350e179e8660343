"""Carries reminders out of the process: what they say, and the programs that deliver them. Nothing here waits."""

import contextlib
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.document import Record
from tokgate.blocklog.wording import wall_time
from tokgate.policy.bans import Notify
from tokgate.policy.reminders import Reminder

logger = logging.getLogger(__name__)

_IMPORT_ROOT: Final = Path(__file__).parents[2]
"""Where the package is, for an interpreter that was not told: mitmproxy puts a script's folder on its own path only."""


def letter(record: Record, reminder: Reminder) -> dict[str, Any]:
    """What a webhook or a program gets. `text` alone says it all, and is what chat services show."""
    ban, notice = reminder.track.ban, reminder.notice
    return {
        "event": record["event"]["action"],
        "id": record["event"]["id"],
        "at": record["@timestamp"],
        "text": record["message"],
        "ban": ban.name,
        "title": ban.title,
        "authority": ban.authority,
        "basis": ban.basis,
        "reference": ban.reference,
        "contact": ban.contact,
        "networks": list(reminder.track.networks),
        "ends": record["tokgate"]["until"],
        "local": wall_time(notice.ends, notice.zone),
        "before": notice.before,
        "on_expiry": ban.on_expiry.value,
        "gateway": record["observer"]["hostname"],
        "policy": record["tokgate"]["policy"]["version"],
    }


class Courier:
    """Starts a process for each delivery (`tokgate.proxy.notify`) and forgets it. Neither threads nor an event loop."""

    def __init__(self, *, reaps: bool) -> None:
        """Without `reaps` somebody else waits for all children of this process."""
        self._reaps: Final = reaps
        self._children: set[int] = set()

    def send(self, notify: Notify, said: dict[str, Any]) -> None:
        """Have it delivered wherever `notify` says; never raises."""
        if notify.webhook is None and not notify.command:
            return
        order = {"webhook": notify.webhook, "command": list(notify.command), "letter": said}
        try:
            child = _start(json.dumps(order, ensure_ascii=False).encode())
        except OSError as error:
            logger.error("the reminder of the end of ban %s can't be sent: %s", said["ban"], error)
            return
        if self._reaps:
            self._children.add(child)

    def reap(self) -> None:
        """Let go of what has ended; failures were told on standard error by whoever failed."""
        for child in tuple(self._children):
            ended = child
            with contextlib.suppress(ChildProcessError):  # somebody waited for it
                ended, _ = os.waitpid(child, os.WNOHANG)
            if ended:
                self._children.discard(child)


def _start(order: bytes) -> int:
    """The order goes by standard input: addresses may hold secrets, which arguments would show to everybody.

    `posix_spawn`, since a supervisor forks and waits for children by itself, where `subprocess` would step in.
    """
    path = os.pathsep.join(filter(None, (str(_IMPORT_ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile() as stream:
        stream.write(order)
        stream.seek(0)
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "tokgate.proxy.notify"],
            os.environ | {"PYTHONPATH": path},
            file_actions=[(os.POSIX_SPAWN_DUP2, stream.fileno(), 0)],
            setpgroup=0,  # what a terminal sends is not for it
        )
