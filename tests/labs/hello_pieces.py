"""A ClientHello that comes in pieces."""

from tokgate.wire.client_hello import ClientHello
from tokgate.wire.hello_reader import HelloReader


class HelloPieces:
    """What has come of it, and its reader."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._reader = HelloReader(self.received)

    def feed(self, data: bytes) -> ClientHello | None:
        """Take the next piece."""
        self.received.extend(data)
        return self._reader.read()
