"""What an attempt needs of a connection, and what it can say about how it was answered."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
