"""Ports for servers that are other programs, and can't say which one they were given."""

import contextlib
import socket
from collections.abc import Iterator


def hold_port() -> socket.socket:
    """Take a port of loopback: until it is closed no other socket is given it, but a server may listen there.

    Linux lets a second socket have a port by number where both say SO_REUSEADDR, as servers do, and the first doesn't
    listen.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """The number of a port that is held."""
    with hold_port() as held:
        yield number(held)


def number(held: socket.socket) -> int:
    """The number of a socket's port."""
    port: int = held.getsockname()[1]
    return port


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
