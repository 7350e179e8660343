"""The control socket: whoever may read tokgate's folder asks how things are, or for a reload, and is answered.

One line asks; the answer is JSON, an object a line: `{"progress": TEXT}` as it goes on, `{"answer": {…}}` at the end.
"""

import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger(__name__)

NAME: Final = "control.sock"
PATIENCE: Final = 1.0
"""Seconds that a caller has to say what it wants, and to take each line of its answer."""
LONGEST: Final = 600.0
"""Seconds that a caller waits for a line: a supervisor that reads a policy of millions answers afterwards."""


class Request(StrEnum):
    """What is asked for."""

    STATUS = "status"
    RELOAD = "reload"

    @classmethod
    def read(cls, line: bytes) -> "Request | None":
        """What a line asks for; None for anything else."""
        try:
            return cls(line.decode().strip())
        except ValueError:
            return None


def progress_line(text: str) -> bytes:
    """How far it is, for the caller to show."""
    return json.dumps({"progress": text}).encode() + b"\n"


def answer_line(answer: dict[str, Any]) -> bytes:
    """The end of an answer."""
    return json.dumps({"answer": answer}).encode() + b"\n"


class Caller:
    """Somebody who asked. Nothing here raises: a caller may have gone."""

    def __init__(self, sock: socket.socket) -> None:
        """Read what it wants."""
        self._socket: Final = sock
        sock.settimeout(PATIENCE)
        line = b""
        with contextlib.suppress(OSError):
            line = sock.recv(256)
        self.request: Final = Request.read(line)

    def tell(self, text: str) -> None:
        """Say how far it is."""
        with contextlib.suppress(OSError):
            self._socket.sendall(progress_line(text))

    def answer(self, answer: dict[str, Any]) -> None:
        """Give the answer, and end."""
        with self._socket, contextlib.suppress(OSError):
            self._socket.sendall(answer_line(answer))

    def close(self) -> None:
        """End without an answer."""
        self._socket.close()


class Control:
    """The listening end, for whoever has a loop around `select`."""

    def __init__(self, folder: Path) -> None:
        """`folder` belongs to tokgate's user alone."""
        self._path: Final = folder / NAME
        self._socket: socket.socket | None = None

    def open(self) -> socket.socket | None:
        """Listen; None, and said in the log, if that can't be, which is no reason not to filter."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if _answers(self._path):
                raise FileExistsError("another tokgate answers there")
            self._path.unlink(missing_ok=True)
            os.fchmod(sock.fileno(), 0o600)  # before it has a name: on Linux the name takes it over
            sock.bind(str(self._path))
            sock.listen(8)
        except OSError as error:
            sock.close()
            logger.warning("no `tokgate status` or `tokgate reload`: %s: %s", self._path, error)
            return None
        self._socket = sock
        return sock

    def callers(self) -> Iterator[Caller]:
        """Those who have called since."""
        while self._socket is not None:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            yield Caller(sock)

    def close(self, *, remove: bool) -> None:
        """Stop listening; a child only lets go, the one who listens also removes the socket's name."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        sock.close()
        if remove:
            self._path.unlink(missing_ok=True)


def ask(folder: Path, request: Request, progress: Callable[[str], None] = lambda text: None) -> dict[str, Any] | None:
    """The answer of the tokgate whose folder this is; None if none listens there.

    Raises:
        OSError: it belongs to somebody else, or does not answer.
        ValueError: what came is no answer.

    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(LONGEST)
        try:
            sock.connect(str(folder / NAME))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        sock.sendall(f"{request}\n".encode())
        with sock.makefile("rb") as lines:
            for line in lines:
                said = json.loads(line)
                if "answer" in said:
                    answer: dict[str, Any] = said["answer"]
                    return answer
                progress(said["progress"])
    raise ConnectionError("it ended without an answer")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
    return True
