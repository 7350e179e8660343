"""Recognises clients that reject the page's certificate, by how their connections end."""

from typing import Final

from tokgate.mitm.client_connection import ClientConnection

STRIKES: Final = 3
"""Connections in a row that end without a request, after which it is no accident."""
MAX_KNOWN: Final = 4096
_INTERRUPTED: Final = ("The client disconnected", "connection closed early")
"""How mitmproxy begins its words for a handshake that ended without a reason given."""

type _Who = tuple[str, bytes]


class CertificateRejections:
    """Counts connections that were opened to show a warning and ended without a request.

    Some clients reject a certificate with an alert, others (apps that know which one to expect) by closing.
    """

    def __init__(self) -> None:
        self._strikes: Final[dict[_Who, int]] = {}

    def rejected(self, connection: ClientConnection, error: str | None) -> bool:
        """A handshake failed: whether that, or how often it did, says that the certificate isn't accepted."""
        if error is not None and not error.startswith(_INTERRUPTED):
            return True
        return self.left(connection)

    def left(self, connection: ClientConnection) -> bool:
        """A client went without a request: whether it did so too often."""
        if connection.software is None:
            return False
        who = (connection.client.ip, connection.software)
        count = self._strikes.pop(who, 0) + 1
        if count >= STRIKES:
            return True
        if len(self._strikes) >= MAX_KNOWN:
            del self._strikes[next(iter(self._strikes))]
        self._strikes[who] = count
        return False

    def spoke(self, connection: ClientConnection) -> None:
        """A request came: the certificate was accepted."""
        if connection.software is not None:
            self._strikes.pop((connection.client.ip, connection.software), None)
