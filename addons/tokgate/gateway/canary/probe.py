"""One probe: a ClientHello that names a host, and what comes back. And the server that answers it."""

import contextlib
import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Final

from tokgate.gateway.canary.definition import ALLOWED, BANNED

PORT: Final = 443
PATIENCE: Final = 5.0
"""Seconds for a connection and its answer."""
_ALERT: Final = 21
_REFUSED: Final = 112
"""unrecognized_name (RFC 8446 §6.2), with which gates refuse."""
_OWN: Final = 90
"""user_canceled, by which the canary's own server is known."""
_MOST_SILENT: Final = 64
"""Connections that the server keeps waiting for a first word; clients that no ban concerns may reach it."""
OWN_ANSWER: Final = bytes((_ALERT, 3, 3, 0, 2, 2, _OWN))


class Answer(StrEnum):
    """What became of a connection."""

    REFUSED = "refused"
    """By a gate, with its alert."""
    ANSWERED = "answered"
    """By the canary's own server."""
    RESET = "reset"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    OTHER = "other"


EXPECTED: Final = {BANNED: Answer.REFUSED, ALLOWED: Answer.ANSWERED}
_KINDS: Final = {BANNED: "banned", ALLOWED: "allowed"}
WORDS: Final = {
    Answer.REFUSED: "was refused",
    Answer.ANSWERED: "passed",
    Answer.RESET: "was reset",
    Answer.SILENT: f"had no answer in {PATIENCE:g} s",
    Answer.UNREACHABLE: "found no way",
    Answer.OTHER: "was answered by something else",
}


def client_hello(name: str) -> bytes:
    """A ClientHello as a browser's begins."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def ask(source: str, destination: tuple[str, int], name: str, patience: float = PATIENCE) -> Answer:
    """Connect and name a host. Blocks for some `patience` seconds at most; never raises."""
    received = b""
    try:
        with socket.create_connection(destination, patience, (source, 0)) as connection:
            connection.sendall(client_hello(name))
            while len(received) < len(OWN_ANSWER):
                more = connection.recv(len(OWN_ANSWER) - len(received))
                if not more:
                    break
                received += more
    except TimeoutError:
        return Answer.SILENT
    except (ConnectionResetError, ConnectionRefusedError, BrokenPipeError):
        return Answer.RESET
    except OSError:
        return Answer.UNREACHABLE
    if received == OWN_ANSWER:
        return Answer.ANSWERED
    refused = len(received) == len(OWN_ANSWER) and (received[0], received[-1]) == (_ALERT, _REFUSED)
    return Answer.REFUSED if refused else Answer.OTHER


def problems(paths: Sequence[tuple[str, tuple[str, int]]], patience: float = PATIENCE) -> list[str]:
    """What is wrong with enforcement, in sentences; `paths`: sources and destinations, one for a version of IP.

    All names are tried at once. Blocks for some `patience` seconds at most.
    """
    tried = [(source, destination, name) for source, destination in paths for name in EXPECTED]
    with ThreadPoolExecutor(len(tried)) as threads:
        answers = list(threads.map(lambda each: ask(each[0], each[1], each[2], patience), tried))
    return [
        f"IPv{6 if ':' in source else 4}: the {_KINDS[name]} test name {WORDS[answer]}"
        for (source, _, name), answer in zip(tried, answers, strict=True)
        if answer != EXPECTED[name]
    ]


def listening(addresses: Sequence[str]) -> list[socket.socket]:
    """The sockets of a server in the namespace of the calling thread."""
    made = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made.append(socket.create_server((address, PORT), family=family))
    return made


def serve(listeners: Sequence[socket.socket]) -> None:
    """Answer all connections in a thread, for as long as the process lives, whoever else connects and says nothing."""
    threading.Thread(target=_serve, args=(listeners,), daemon=True).start()


def _serve(listeners: Sequence[socket.socket]) -> None:
    silent: deque[socket.socket] = deque()
    while True:
        with selectors.DefaultSelector() as selector:
            for each in (*listeners, *silent):
                selector.register(each, selectors.EVENT_READ, each)
            ready = [key.data for key, _ in selector.select()]
        for each in ready:
            with contextlib.suppress(OSError):
                if each in listeners:
                    silent.append(each.accept()[0])
                elif each in silent:
                    silent.remove(each)
                    _answer(each)
            if len(silent) > _MOST_SILENT:
                silent.popleft().close()


def _answer(connection: socket.socket) -> None:
    with connection:
        if connection.recv(4096):
            connection.sendall(OWN_ANSWER)
