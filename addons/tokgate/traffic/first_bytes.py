"""Classifies the first bytes of a TCP connection for the decision about them. Sans-IO; decides nothing."""

import re
from typing import Final

from tokgate.traffic.seen import FirstBytes, Hello, HttpStart, OtherBytes, ProxyConnect, Unreadable
from tokgate.wire.protocol_detection import Protocol, ProtocolDetector
from tokgate.wire.proxy_request import MAX_HEAD, ConnectReader, ConnectRequestError

_SEEN: Final[dict[Protocol, FirstBytes]] = {
    Protocol.LENIENT_TLS: Unreadable(),
    Protocol.HTTP1: HttpStart(),
    Protocol.HTTP2: HttpStart(http2=True),
    Protocol.LENIENT_HTTP: Unreadable(http=True),
    Protocol.UNKNOWN: OtherBytes(),
}

_ends_head = re.compile(rb"\n\r?\n").search  # as h11 takes it


class FirstBytesReader:
    """Reads until it is known what the bytes are, and keeps them: the only copy, however many pieces there are."""

    __slots__ = ("_bytes", "_looked_at", "openable")

    def __init__(self, *, openable: bool = True) -> None:
        """`openable`: no byte was passed on before, so that an opener can take the connection over."""
        self.openable: Final = openable
        self._bytes: Final = ProtocolDetector()
        self._looked_at: int | None = None
        """Of a CONNECT: the octets in which there is no end of its head."""

    @property
    def received(self) -> bytearray:
        """All bytes that were fed, in their order."""
        return self._bytes.received

    def feed(self, data: bytes | bytearray) -> FirstBytes | None:
        """What the bytes are, `data` being the next of them; None: more has to come. Not to be called after that."""
        if self._looked_at is not None:
            self.received.extend(data)
            return self._read_connect(self._looked_at)
        protocol = self._bytes.feed(data)
        start = self._bytes.request_start
        if protocol is Protocol.HTTP1 and self.received.startswith(b"CONNECT ", start):
            return self._read_connect(start)
        return None if protocol is None else self._seen(protocol)

    def ended(self) -> FirstBytes:
        """What the bytes are, where the client has ended its side before `feed` could tell."""
        return self._seen(self._bytes.ended()) if self._looked_at is None else Unreadable(http=True)

    def _read_connect(self, looked_at: int) -> FirstBytes | None:
        """A request to be connected, by a proxy that isn't this one. It is parsed once its head is whole."""
        start = self._bytes.request_start
        if not _ends_head(self.received, looked_at):
            self._looked_at = len(self.received) - 2
            return None if len(self.received) - start <= MAX_HEAD else Unreadable(http=True)
        try:
            asked = ConnectReader().feed(self.received[start:])
        except ConnectRequestError:
            return Unreadable(http=True)
        return ProxyConnect(asked.host, asked.rest, asked.named) if asked else Unreadable(http=True)

    def _seen(self, protocol: Protocol) -> FirstBytes:
        hello = self._bytes.hello
        if hello is not None:
            return Hello(hello, openable=self.openable)
        if self._bytes.line is not None:
            return OtherBytes(self._bytes.line)
        seen = _SEEN[protocol]
        return seen if self.openable or not isinstance(seen, HttpStart) else Unreadable(http=True)
