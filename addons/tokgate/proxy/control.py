"""The supervisor's control socket: whoever may read its folder asks how things are, and gets one JSON object."""

import contextlib
import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger(__name__)

NAME: Final = "control.sock"
PATIENCE: Final = 0.2
"""Seconds that a caller has to take its answer."""


class Control:
    """A unix socket that answers every connection with the state of things, and ends it."""

    def __init__(self, folder: Path) -> None:
        """`folder` belongs to tokgate's user alone."""
        self._path: Final = folder / NAME
        self._socket: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._bound = False

    def open(self) -> bool:
        """Listen; False, and said in the log, if that can't be, which is no reason not to filter."""
        try:
            if ask(self._path.parent) is not None:
                raise FileExistsError("another tokgate answers there")
            self._path.unlink(missing_ok=True)
            self._socket.bind(str(self._path))
            self._path.chmod(0o600)
            self._socket.listen(8)
        except OSError as error:
            logger.warning("no `tokgate status`: %s: %s", self._path, error)
            return False
        self._bound = True
        return True

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def answer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Answer who has called."""
        if not self._bound:
            return
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            with caller, contextlib.suppress(OSError):
                caller.settimeout(PATIENCE)
                caller.sendall(json.dumps(state()).encode() + b"\n")

    def close(self, *, remove: bool) -> None:
        """Stop listening; a child only lets go, the supervisor also removes the socket's name."""
        self._socket.close()
        if remove and self._bound:
            self._path.unlink(missing_ok=True)


def ask(folder: Path) -> dict[str, Any] | None:
    """The state of the tokgate whose folder this is; None if none answers.

    Raises:
        PermissionError: it belongs to somebody else.

    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5.0)
        try:
            sock.connect(str(folder / NAME))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        answer = bytearray()
        while piece := sock.recv(65536):
            answer += piece
    state = json.loads(answer)
    return state if isinstance(state, dict) else None
