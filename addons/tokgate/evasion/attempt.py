"""An attempt to get round a ban, what it needs of a connection, and what it can say about how it was answered."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Protocol


class Result(StrEnum):
    """What a server, or the gateway in its place, answered to an attempt."""

    SERVED = "served"
    """A server answered for the name: with its certificate, or with a page."""
    OTHER = "other"
    """A server answered, but not for the name."""
    REFUSED = "refused"
    """A TLS alert, an HTTP refusal or a SOCKS reply came instead."""
    CLOSED = "closed"
    """The connection ended, or never began, without a word."""
    SILENT = "silent"
    """Nothing came in time."""


@dataclass(frozen=True, slots=True)
class ServerReply:
    """The result of an attempt. `detail` is for people; `body` is what came from the server, to recognise it by."""

    result: Result
    detail: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Target:
    """The banned name that an attempt asks for, and the server that answers for it."""

    name: str
    host: str
    port: int

    @property
    def octets(self) -> bytes:
        """The name in ASCII."""
        return self.name.encode("ascii")

    @property
    def base(self) -> bytes:
        """The name below which labels can be put that still belong to it: without a `www` in front."""
        return self.octets.removeprefix(b"www.")

    def fill(self, form: bytes) -> bytes:
        """The octets in which NAME, BASE, ADDRESS and PORT stand for what they are here."""
        words = {b"NAME": self.octets, b"BASE": self.base, b"ADDRESS": self.host.encode(), b"PORT": b"%d" % self.port}
        for word, value in words.items():
            form = form.replace(word, value)
        return form


class Stream(Protocol):
    """A byte stream to a server or a proxy, over which an attempt is made."""

    def send(self, data: bytes) -> None:
        """Send all of `data`, in TCP segments of its own where the system lets it. Raises OSError."""
        ...

    def end(self) -> None:
        """Send FIN: nothing more is sent."""
        ...

    def receive(self) -> bytes:
        """The octets that have come; empty at the end. Raises TimeoutError, or another OSError."""
        ...


type Play = Callable[[Stream, Target], ServerReply]
"""Makes an attempt on an open stream."""

type SentPieces = Callable[[Target], Sequence[bytes]]
"""What is sent, piece by piece, whatever is answered meanwhile."""


def filled(*forms: bytes) -> SentPieces:
    """Pieces in which words stand for what the target is, as in `Target.fill`."""
    return lambda target: [target.fill(form) for form in forms]


class Family(StrEnum):
    """The part of a connection that an attempt changes. A module of `families` makes each; segments: with records."""

    TLS_RECORDS = "tls-records"
    TWO_HELLOS = "two-hellos"
    SERVER_NAMES = "server-names"
    HIDDEN_NAMES = "hidden-names"
    HTTP_HEADS = "http-heads"
    HTTP_HOSTS = "http-hosts"
    HTTP_BODIES = "http-bodies"
    HTTP2_FRAMES = "http2-frames"
    PROXY_REQUESTS = "proxy-requests"
    SOCKS_REQUESTS = "socks-requests"
    SEGMENTS = "segments"


class Limit(StrEnum):
    """Why an attempt may pass; the value is a heading's anchor in docs/cannot-see.md."""

    FRONTING = "another-name-inside-tls"
    ECH = "encrypted-client-hello"
    NO_NAME = "no-name-to-an-unlisted-address"
    OTHER_BYTES = "bytes-that-are-neither-tls-nor-http"
    VPN = "vpns-and-tunnels-to-elsewhere"


class Opens(StrEnum):
    """The server at the other end of the attempt's stream when `play` is called."""

    TLS = "tls"
    """The target's port for TLS, redirected or in a tunnel."""
    HTTP = "http"
    """The target's port for plain HTTP, redirected or in a tunnel."""
    PROXY = "proxy"
    """An explicit HTTP proxy's own port, to ask it for a tunnel to the target's port for TLS."""
    URL = "url"
    """The same port, to ask for a page of the target's port for plain HTTP."""
    SOCKS = "socks"
    """A SOCKS proxy's own port."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row of what a client can try. `limit`: it is known to pass with default settings, and why."""

    id: str
    what: str
    """A line for people."""
    play: Play
    _: KW_ONLY
    family: Family
    opens: Opens
    limit: Limit | None = None
    innocent: bool = False
    """Ordinary clients do this, too: with an allowed name it must be served."""
    is_http2: bool = False
    """What comes first is no answer yet: that is waited for as long as what comes first is elsewhere."""

    @property
    def is_tls(self) -> bool:
        """Whether it leads to the target's port for TLS, and not to the one for plain HTTP."""
        return self.opens in (Opens.TLS, Opens.PROXY, Opens.SOCKS)


def broken(error: OSError) -> ServerReply:
    """The result of an attempt that ended with an error of the connection: silent on a timeout, else closed."""
    if isinstance(error, TimeoutError):
        return ServerReply(Result.SILENT)
    return ServerReply(Result.CLOSED, "reset" if isinstance(error, ConnectionError) else str(error.strerror or error))


def send_all(stream: Stream, pieces: Iterable[bytes]) -> None:
    """Send pieces until the server has closed: what it sent before can still be received."""
    try:
        for piece in pieces:
            stream.send(piece)
    except ConnectionError:
        return


def read_until(stream: Stream, is_whole: Callable[[bytes], bool]) -> bytes:
    """What is replied, until it is whole, or less if the stream ends before. Raises OSError."""
    said = b""
    while not is_whole(said) and (piece := stream.receive()):
        said += piece
    return said
