"""Software that can't be shown a page, told from software that was only interrupted: by what its connections end in."""

from typing import Final

from tokgate.proxy.visit import Visit

STRIKES: Final = 3
"""Connections in a row that end without a request, after which it is no accident."""
MAX_KNOWN: Final = 4096
_INTERRUPTED: Final = ("The client disconnected", "connection closed early")
"""How mitmproxy begins its words for a handshake that ended without a reason given."""

type _Who = tuple[str, bytes]


class Reluctance:
    """Counts connections that were opened to show a warning and ended without a request.

    Some clients reject a certificate with an alert, others (apps that know which one to expect) by closing.
    """

    def __init__(self) -> None:
        self._strikes: Final[dict[_Who, int]] = {}

    def rejected(self, visit: Visit, error: str | None) -> bool:
        """A handshake failed: whether that, or how often it did, says that the certificate isn't accepted."""
        if error is not None and not error.startswith(_INTERRUPTED):
            return True
        return self.left(visit)

    def left(self, visit: Visit) -> bool:
        """A client went without a request: whether it did so too often."""
        if visit.software is None:
            return False
        who = (visit.client.ip, visit.software)
        count = self._strikes.pop(who, 0) + 1
        if count >= STRIKES:
            return True
        if len(self._strikes) >= MAX_KNOWN:
            del self._strikes[next(iter(self._strikes))]
        self._strikes[who] = count
        return False

    def spoke(self, visit: Visit) -> None:
        """A request came: the certificate was accepted."""
        if visit.software is not None:
            self._strikes.pop((visit.client.ip, visit.software), None)
