"""Reads the messages by which a client says where it goes: its first bytes, and what it says later. Decides nothing.

Sans-IO. A TLS server may ask for another ClientHello (RFC 8446 §4.1.4); a proxy takes a request, and then what its
tunnel carries. Of clients under a ban these are read and decided about before they are passed on.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final

from tokgate.traffic.seen import FirstBytes, Hello, HttpStart, OtherBytes, ProxyConnect, Unreadable
from tokgate.wire.client_hello import ClientHello, ClientHelloError, NotTlsError
from tokgate.wire.hello_reader import HelloReader, asks_again, end_of_hello, may_begin_record, unfinished_early_data
from tokgate.wire.http_detection import HttpKind, HttpStartReader, UnreadLine, begin_unread_line, read_on
from tokgate.wire.proxy_request import MAX_HEAD, ConnectReader, ConnectRequestError

_SEEN: Final[dict[HttpKind, FirstBytes]] = {
    HttpKind.REQUEST: HttpStart(),
    HttpKind.HTTP2: HttpStart(http2=True),
    HttpKind.LENIENT: Unreadable(http=True),
    HttpKind.NONE: OtherBytes(),
}

_ends_head = re.compile(rb"\n\r?\n").search  # as h11 takes it


class FirstBytesReader:
    """Reads until it is known what the bytes are, and keeps them: the only copy, however many pieces there are.

    A client under a ban passes because its bytes were understood, never because they were not. A ClientHello or the
    start of HTTP is read by us as by any server; what is `Unreadable` might be read by some, otherwise or at all; the
    rest is taken for either by nobody. All work is linear in the octets, of which at most 64 KiB are read, and what
    came with the last of them.
    """

    __slots__ = ("_hello", "_http", "_looked_at", "openable", "received")

    def __init__(self, *, openable: bool = True) -> None:
        """`openable`: no byte was passed on before, so that an opener can take the connection over."""
        self.openable: Final = openable
        self.received: Final = bytearray()
        """Everything fed so far: what must be passed on unchanged to whoever serves the connection."""
        self._hello: HelloReader | None = HelloReader(self.received)
        self._http: Final = HttpStartReader(self.received)
        self._looked_at: int | None = None
        """Of a CONNECT: the octets in which there is no end of its head."""

    def feed(self, data: bytes | bytearray) -> FirstBytes | None:
        """What the bytes are, `data` being the next of them; None: more has to come. Not to be called after that."""
        self.received.extend(data)
        if self._looked_at is not None:
            return self._read_connect(self._looked_at)
        if self._hello is not None:
            try:
                hello = self._hello.read()
            except NotTlsError:
                self._hello = None
            except ClientHelloError:
                return Unreadable()
            else:
                return None if hello is None else Hello(hello, openable=self.openable)
        kind, start = self._http.read(), self._http.line
        if kind is HttpKind.NONE:
            line = begin_unread_line(self.received, start)
            return Unreadable(http=True) if line is True else OtherBytes(line or None)
        if kind is HttpKind.REQUEST and self.received.startswith(b"CONNECT ", start):
            return self._read_connect(start)
        return None if kind is None else self._seen(kind)

    def ended(self) -> FirstBytes:
        """What the bytes are, where the client has ended its side before `feed` could tell."""
        if self._looked_at is not None:
            return Unreadable(http=True)
        if self._hello is not None:
            return Unreadable() if self.received else OtherBytes()
        return self._seen(self._http.ended())

    def _seen(self, kind: HttpKind) -> FirstBytes:
        seen = _SEEN[kind]
        return seen if self.openable or not isinstance(seen, HttpStart) else Unreadable(http=True)

    def _read_connect(self, looked_at: int) -> FirstBytes | None:
        """A request to be connected, by a proxy that isn't this one. It is parsed once its head is whole."""
        start = self._http.line
        if not _ends_head(self.received, looked_at):
            self._looked_at = len(self.received) - 2
            return None if len(self.received) - start <= MAX_HEAD else Unreadable(http=True)
        try:
            asked = ConnectReader().feed(self.received[start:])
        except ConnectRequestError:
            return Unreadable(http=True)
        return ProxyConnect(asked.host, asked.rest, asked.named) if asked else Unreadable(http=True)


class SecondHelloReader:
    """Reads what a client says after a HelloRetryRequest: a second ClientHello, behind what may precede it."""

    __slots__ = ("_hello", "_name", "_sent", "received")

    def __init__(self, name: str, begun: bytes, *, early_data: bool) -> None:
        """`name` as in `Hello.retry_of`; `begun`: a record of early data that was passed on in part."""
        self.received: Final = bytearray(begun)
        self._name: Final = name
        self._sent: Final = len(begun)
        self._hello: Final = HelloReader(self.received, early_data=early_data)

    def feed(self, data: bytes | bytearray) -> FirstBytes | None:
        """What was said, once it was said whole; then `received` is what has to be passed on."""
        self.received.extend(data)
        seen: FirstBytes
        try:
            hello = self._hello.read()
            if hello is None:
                return None
            seen = Hello(hello, retry_of=self._name, openable=False)
        except ClientHelloError:
            seen = Unreadable()
        del self.received[: self._sent]
        return seen

    def ended(self) -> FirstBytes:
        """The class of the message when the client has ended its side: it may have gone without a second hello."""
        begun = self._hello.begun or len(self.received) > max(self._sent, self._hello.end)
        del self.received[: self._sent]
        return Unreadable() if begun else OtherBytes(more=True)


class UnreadLineReader:
    """Reads the next piece of a line that was passed on as far as it had come."""

    __slots__ = ("_line", "received")

    def __init__(self, line: UnreadLine) -> None:
        self.received: Final = bytearray()
        self._line: Final = line

    def feed(self, data: bytes | bytearray) -> FirstBytes:
        """What it is, with this piece; `received` is what has to be passed on."""
        self.received.extend(data)
        line = read_on(self._line, data)
        return Unreadable(http=True) if line is True else OtherBytes(line or None, more=True)

    def ended(self) -> FirstBytes:
        """The class of the line when the client has ended its side."""
        return OtherBytes(more=True)


@dataclass(frozen=True, slots=True)
class AfterHello:
    """A first ClientHello was passed on: its server may ask for a second one, which has to name the same."""

    name: str
    """The name in it, in lower case; empty if it had none."""
    early_data: bool
    begun: bytes
    """A record behind it that was passed on in part."""
    rest: bytes = b""
    """The bytes that were read and not passed on."""
    for_answer: ClassVar = True

    def asked(self, answer: bytes | bytearray) -> bool | None:
        """Whether the destination's first octets make the client say more; None as long as that can't be told."""
        return asks_again(answer)

    def waits(self, said: bytes | bytearray) -> bool:
        """Whether what the client goes on with must wait for the answer; no server reads a hello out of anything else.

        `said` may be its first octet; empty: it has ended its side. Behind bytes that wait it begins no record.
        """
        return bool(self.begun or self.rest) or may_begin_record(said)

    def reader(self) -> SecondHelloReader:
        """A reader of what the client sends next."""
        return SecondHelloReader(self.name, self.begun, early_data=self.early_data)


@dataclass(frozen=True, slots=True)
class AfterProxyRequest:
    """A request for a tunnel was passed on to a proxy: then comes what it carries, or another request."""

    rest: bytes
    """The bytes that were read and not passed on."""
    for_answer: ClassVar = True

    def asked(self, answer: bytes | bytearray) -> bool | None:
        """Whatever the proxy says, it is the client's turn."""
        return bool(answer)

    def waits(self, said: bytes | bytearray) -> bool:
        """Whether the client has said anything: all of it waits for the proxy's answer."""
        return bool(self.rest or said)

    def reader(self) -> FirstBytesReader:
        """A reader of what the client sends next."""
        return FirstBytesReader(openable=False)


@dataclass(frozen=True, slots=True)
class AfterUnreadLine:
    """A line was passed on that may yet become a request to some server, which then answers it."""

    line: UnreadLine
    rest: ClassVar = b""
    for_answer: ClassVar = False
    """Whether what waits waits for the answer; else it is read at once."""

    def asked(self, answer: bytes | bytearray) -> bool | None:
        """Whatever the destination says, it was no answer to a request: none is whole."""
        return False if answer else None

    def waits(self, said: bytes | bytearray) -> bool:
        """Whether the client has said anything."""
        return bool(said)

    def reader(self) -> UnreadLineReader:
        """A reader of what the client sends next."""
        return UnreadLineReader(self.line)


type Watched = AfterHello | AfterProxyRequest | AfterUnreadLine
Reader = FirstBytesReader | SecondHelloReader | UnreadLineReader


@lru_cache(maxsize=4096)
def _after_hello_alone(name: str) -> AfterHello:
    """One value for each name: nearly all hellos are of this kind."""
    return AfterHello(name, early_data=False, begun=b"")


def after_hello(hello: ClientHello, said: bytes | bytearray) -> AfterHello | None:
    """What to watch for after a hello at the beginning of `said`; None: nothing, no second hello can follow."""
    name = (hello.name or "").lower()
    if len(said) == len(hello.message) + 5 and not hello.early_data:
        return _after_hello_alone(name)
    rest = bytes(said[end_of_hello(said, hello) :])
    if rest and not may_begin_record(rest):
        return None
    begun = unfinished_early_data(rest) if hello.early_data else None
    if begun is None:
        return AfterHello(name, hello.early_data, b"", rest)
    return AfterHello(name, hello.early_data, begun)


def after(seen: FirstBytes, said: bytes | bytearray) -> Watched | None:
    """What to watch for after a first message that passes; None for nothing."""
    match seen:
        case Hello(hello):
            return after_hello(hello, said)
        case ProxyConnect():
            return AfterProxyRequest(seen.rest)
        case OtherBytes(UnreadLine() as line):
            return AfterUnreadLine(line)
        case _:
            return None
