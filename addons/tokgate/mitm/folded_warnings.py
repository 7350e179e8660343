"""Folds what mitmproxy warns of on stderr: a client that repeats itself fills nothing, nor do octets shown in hex."""

import logging
import time
from collections.abc import Callable
from typing import Final

FOLDED_FOR: Final = 60.0
"""Seconds in which warnings that begin alike, about one client, are one line."""
_BEGINNING: Final = 50
"""Characters by which they are told apart: behind them come names of hosts, and octets."""
_LONGEST: Final = 400
_MOST: Final = 1024
"""Kinds of warnings that are remembered, of all clients."""


class FoldedWarnings(logging.Filter):
    """Passes one of such warnings on, with how many there were since the last."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic: Final = monotonic
        self._told: Final[dict[tuple[str, str], tuple[float, int]]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be shown; one about no client is always."""
        client = getattr(record, "client", None)
        if not client:
            return True
        message, now = record.getMessage(), self._monotonic()
        kind = client[0], message[:_BEGINNING]
        since, folded = self._told.pop(kind, (-FOLDED_FOR, 0))
        if now - since < FOLDED_FOR:
            self._told[kind] = since, folded + 1
            return False
        if len(self._told) >= _MOST:
            del self._told[next(iter(self._told))]
        self._told[kind] = now, 0
        more = f" ({folded} more like it since the last)" if folded else ""
        record.msg, record.args = f"{message[:_LONGEST]} [client {client[0]}]{more}", ()
        return True
