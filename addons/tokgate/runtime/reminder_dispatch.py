"""Sends reminders to webhooks and programs, in a process of its own for each. Nothing here waits."""

import contextlib
import json
import logging
import os
import sys
import tempfile
from typing import Any, Final

from tokgate.blocklog.records.record import Record
from tokgate.blocklog.records.sentence import wall_time
from tokgate.policy.analysis.reminders import Reminder
from tokgate.policy.settings import Notify
from tokgate.policy.values.visible_text import readable
from tokgate.runtime.interpreter import module_command, module_environment

logger = logging.getLogger(__name__)


def letter(record: Record, reminder: Reminder) -> dict[str, Any]:
    """The JSON object that a webhook or program gets. `text` is a full sentence, which chat services show."""
    ban, notice = reminder.track.ban, reminder.notice
    said = {
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
    return {key: readable(value) if isinstance(value, str) else value for key, value in said.items()}


class ReminderSender:
    """Starts a process (`reminder_delivery`) for each delivery. Uses neither threads nor an event loop."""

    def __init__(self, *, reaps: bool) -> None:
        """Unless `reaps`, the caller waits for all child processes."""
        self._reaps: Final = reaps
        self._children: set[int] = set()

    def send(self, notify: Notify, said: dict[str, Any]) -> None:
        """Start the deliveries that `notify` states. Never raises: errors are logged."""
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
        """Wait for processes that have ended. They log their own failures."""
        for child in tuple(self._children):
            ended = child
            with contextlib.suppress(ChildProcessError):  # already waited for
                ended, _ = os.waitpid(child, os.WNOHANG)
            if ended:
                self._children.discard(child)


def _start(order: bytes) -> int:
    """Start a delivery. The order goes through standard input: URLs may hold secrets, and arguments are public.

    `posix_spawn`, since a supervisor forks and waits for children itself, which `subprocess` would interfere with.
    """
    with tempfile.TemporaryFile() as stream:
        stream.write(order)
        stream.seek(0)
        return os.posix_spawn(
            sys.executable,
            module_command("tokgate.runtime.reminder_delivery"),
            module_environment(),
            file_actions=[(os.POSIX_SPAWN_DUP2, stream.fileno(), 0)],
            setpgroup=0,  # signals from the terminal are not for it
        )
