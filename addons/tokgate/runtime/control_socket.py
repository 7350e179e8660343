"""The control socket, a Unix socket in tokgate's folder: status and reload for whoever may read that folder.

A request is one line. The response is a JSON object a line: `{"progress": TEXT}`, any number of times, then
`{"answer": {…}}`.
"""

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger(__name__)

NAME: Final = "control.sock"
_LONGEST_ADDRESS: Final = 107
"""Octets of a path in a socket address (unix(7)), without the final NUL."""
_LONGEST_LINE: Final = 1 << 16
"""Octets of a request, as asyncio takes them by default: a reload may lift many bans."""
PATIENCE: Final = 1.0
"""Seconds for a client to receive each line of the response, for which tokgate waits."""
REQUEST: Final = 10.0
"""Seconds for it to send its request, for which nobody waits: on a busy machine it may come late."""
LONGEST: Final = 600.0
"""Seconds that a client waits for a line: a supervisor answers after reading a policy, which may be large."""


class ControlRequest(StrEnum):
    """The requests, in the words of the protocol."""

    STATUS = "status"
    RELOAD = "reload"
    RESTART = "restart"
    VITALS = "vitals"
    """What metrics and health are made of."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request. Of a reload: the bans held back that it lifts, and who says so."""

    request: ControlRequest
    lift: tuple[str, ...] = ()
    by: str = ""

    @classmethod
    def read(cls, line: bytes) -> "Call | None":
        """Parse a request line: its word, and a JSON object where it says more; None if it is not valid."""
        word, _, more = line.decode("utf-8", "replace").strip().partition(" ")
        try:
            said = json.loads(more) if more else {}
            return cls(ControlRequest(word), tuple(map(str, said.get("lift", ()))), str(said.get("by", "")))
        except (ValueError, AttributeError, TypeError):
            return None

    @property
    def line(self) -> bytes:
        """The request as a client sends it: one line, in UTF-8."""
        more = f" {json.dumps({'lift': self.lift, 'by': self.by})}" if self.lift else ""
        return f"{self.request}{more}\n".encode()


def progress_line(text: str) -> bytes:
    """A line of the response that reports progress."""
    return json.dumps({"progress": text}).encode() + b"\n"


def answer_line(answer: Mapping[str, Any]) -> bytes:
    """The last line of a response, which ends it."""
    return json.dumps({"answer": answer}).encode() + b"\n"


class Caller:
    """A connection to the control socket. Errors are suppressed: a client may have disconnected."""

    def __init__(self, sock: socket.socket, call: Call | None) -> None:
        """`call` is what was asked on that socket; None if it is no valid request."""
        self._socket: Final = sock
        sock.settimeout(PATIENCE)
        self.call: Final = call
        self.request: Final = None if call is None else call.request

    def fileno(self) -> int:
        """The connection's descriptor, to be passed on to another program."""
        return self._socket.fileno()

    def tell(self, text: str) -> None:
        """Send a progress line; blocks for at most PATIENCE seconds."""
        with contextlib.suppress(OSError):
            self._socket.sendall(progress_line(text))

    def answer(self, answer: Mapping[str, Any]) -> None:
        """Send the answer and close the connection."""
        with self._socket, contextlib.suppress(OSError):
            self._socket.sendall(answer_line(answer))

    def close(self) -> None:
        """Close the connection without an answer."""
        self._socket.close()


class Control:
    """The listening socket, for a loop around `select`."""

    def __init__(self, folder: Path) -> None:
        """`folder` belongs to tokgate's user alone."""
        self._path: Final = folder / NAME
        self._socket: socket.socket | None = None
        self._file: tuple[int, int] | None = None
        """Device and inode of the socket's name."""
        self._unread: Final[dict[socket.socket, tuple[bytes, float]]] = {}
        """Who has connected, with what has come of the request, and when it is given up."""

    def open(self) -> socket.socket | None:
        """Listen; the folder is made where there is none. An error is logged and returns None: traffic is filtered all
        the same.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if _connects(probe, self._path):
                    raise FileExistsError("another tokgate answers there")
            self._path.unlink(missing_ok=True)
            os.fchmod(sock.fileno(), 0o600)  # before bind: on Linux the file gets the mode of the socket
            with _address(self._path) as address:
                sock.bind(address)
            sock.listen(64)
        except OSError as error:
            sock.close()
            logger.warning("no `tokgate status` or `tokgate reload`: %s: %s", self._path, error)
            return None
        self._socket, self._file = sock, self._named()
        return sock

    def adopt(self, descriptor: int) -> socket.socket:
        """Go on with a socket that the program before has opened."""
        self._socket, self._file = socket.socket(fileno=descriptor), self._named()
        return self._socket

    def is_lost(self) -> bool:
        """Whether somebody has deleted the socket's name, or another stands there: nobody reaches this one any more."""
        return self._socket is not None and self._named() != self._file

    def _named(self) -> tuple[int, int] | None:
        try:
            found = self._path.lstat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def descriptor(self) -> int | None:
        """The descriptor of the socket; None if it could not be opened."""
        return None if self._socket is None else self._socket.fileno()

    @property
    def sockets(self) -> list[socket.socket]:
        """What becomes readable when `callers` has something to do."""
        return [] if self._socket is None else [self._socket, *self._unread]

    def callers(self) -> Iterator[Caller]:
        """Those whose request has come, without waiting for any."""
        while self._socket is not None:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                break
            sock.setblocking(False)
            self._unread[sock] = b"", time.monotonic() + REQUEST
        for sock, (line, give_up) in [*self._unread.items()]:
            piece: bytes | None = b""
            with contextlib.suppress(OSError):
                try:
                    piece = sock.recv(_LONGEST_LINE)
                except BlockingIOError:
                    piece = None
            line += piece or b""
            whole = piece == b"" or line.endswith(b"\n") or len(line) >= _LONGEST_LINE
            if whole or time.monotonic() >= give_up:
                del self._unread[sock]
                yield Caller(sock, Call.read(line))
            else:
                self._unread[sock] = line, give_up

    def close(self, *, remove: bool) -> None:
        """Close the socket. A forked child does not `remove` its name; another's is left alone."""
        own = not self.is_lost()
        for sock in self.sockets:
            sock.close()
        self._unread.clear()
        if self._socket is not None and remove and own:
            self._path.unlink(missing_ok=True)
        self._socket = None


def ask(
    folder: Path,
    call: ControlRequest | Call,
    progress: Callable[[str], None] = lambda text: None,
    longest: float = LONGEST,
) -> dict[str, Any] | None:
    """Send a request to the tokgate of a folder; its answer, or None if none listens there.

    `progress` is called with the text of each progress line; `longest` are the seconds to wait for a line.

    Raises:
        OSError: no permission, or no answer.
        ValueError: the response is malformed.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(longest)
        if not _connects(sock, folder / NAME):
            return None
        sock.sendall((Call(call) if isinstance(call, ControlRequest) else call).line)
        with sock.makefile("rb") as lines:
            for line in lines:
                said = json.loads(line)
                if "answer" in said:
                    answer: dict[str, Any] = said["answer"]
                    return answer
                progress(said["progress"])
    raise ConnectionError("it ended without an answer")


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A path as a socket address, through /proc/self/fd if it is too long for one. Raises OSError."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _connects(sock: socket.socket, path: Path) -> bool:
    """Connect to who listens at a path; False if nobody does. Raises OSError."""
    try:
        with _address(path) as address:
            sock.connect(address)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return False
    return True
