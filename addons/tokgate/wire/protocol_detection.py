"""Tells what a connection speaks from its first bytes: exactly, or as far as a server that reads more might.

A client under a ban passes because its bytes were understood, never because they were not: what is `tls`, `http1` or
`http2` is read by us as by any server; what is `lenient-tls` or `lenient-http` might be read by some, otherwise or at
all; the rest is `unknown`, and nobody takes it for either.
"""

from enum import StrEnum
from typing import Final

from tokgate.wire.client_hello import ClientHello, ClientHelloError, HelloProblem
from tokgate.wire.hello_reader import HelloReader
from tokgate.wire.http_detection import HttpKind, HttpStartReader, UnreadLine, begin_unread_line


class Protocol(StrEnum):
    """Classes of a connection's first bytes."""

    TLS = "tls"
    """A ClientHello, in `FirstBytes.hello`."""
    LENIENT_TLS = "lenient-tls"
    """No ClientHello that can be read, but what a server might read as one."""
    HTTP1 = "http1"
    HTTP2 = "http2"
    """With prior knowledge (RFC 9113 §3.3)."""
    LENIENT_HTTP = "lenient-http"
    """No request line by the book, but what a server might serve."""
    UNKNOWN = "unknown"
    """Neither TLS nor HTTP to any server."""


_HTTP: Final = {
    HttpKind.REQUEST: Protocol.HTTP1,
    HttpKind.HTTP2: Protocol.HTTP2,
    HttpKind.LENIENT: Protocol.LENIENT_HTTP,
    HttpKind.NONE: Protocol.UNKNOWN,
}


class ProtocolDetector:
    """A connection's first bytes, the only copy of them, and what they are. All work is linear in the octets.

    At most 64 KiB, and what came with the last of them, are read before it is told what they are.
    """

    __slots__ = ("_hello", "_http", "hello", "line", "problem", "received")

    def __init__(self) -> None:
        self.received: Final = bytearray()
        """Everything fed so far: what must be passed on unchanged to whoever serves the connection."""
        self.hello: ClientHello | None = None
        self.problem: HelloProblem | None = None
        """Why there is no hello, of what begins like TLS."""
        self.line: UnreadLine | None = None
        """Of what is `unknown`: a line that may yet become a request to some server, with what follows."""
        self._hello: HelloReader | None = HelloReader(self.received)
        self._http: Final = HttpStartReader(self.received)

    @property
    def request_start(self) -> int:
        """Where the request line begins, behind empty lines."""
        return self._http.line

    def feed(self, data: bytes | bytearray) -> Protocol | None:
        """Take the next piece: what the connection speaks, or None while that can't be told. Not to be called after."""
        self.received.extend(data)
        if self._hello is not None:
            try:
                self.hello = self._hello.read()
            except ClientHelloError as error:
                if error.problem is not HelloProblem.NOT_TLS:
                    self.problem = error.problem
                    return Protocol.LENIENT_TLS
                self._hello = None
            else:
                return None if self.hello is None else Protocol.TLS
        kind = self._http.read()
        if kind is HttpKind.NONE:
            line = begin_unread_line(self.received, self.request_start)
            if line is True:
                return Protocol.LENIENT_HTTP
            self.line = line or None
        return None if kind is None else _HTTP[kind]

    def ended(self) -> Protocol:
        """The class of the bytes, if the client ends its side before it was known."""
        if self._hello is not None:
            return Protocol.LENIENT_TLS if self.received else Protocol.UNKNOWN
        return _HTTP[self._http.ended()]
