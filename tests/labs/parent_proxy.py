"""A parent proxy on loopback, as small as one can be that keeps to its protocol: HTTP CONNECT."""

import base64
import contextlib
import socket
import threading
from typing import Protocol

from labs.gate_lab import DEADLINE, Origin, read_head
from tokgate.gate.sockets import Address

FORBIDDEN = "forbidden.example"


class HasAddress(Protocol):
    """An origin, on loopback."""

    @property
    def address(self) -> Address: ...


class ParentProxy:
    """Leads every name and address to one origin; `asked` is what it was asked for, `heads` what HTTP clients sent."""

    def __init__(self, origin: HasAddress, *, password: str | None = None) -> None:
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self._origin = origin
        self._password = password
        self._listening = Origin(self._http)
        self.port = self._listening.port
        self.url = f"http://127.0.0.1:{self.port}"
        self.close = self._listening.close

    def _http(self, client: socket.socket) -> None:
        head = read_head(client)
        self.heads.append(head)
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        self.asked.append(target)
        wanted = None if self._password is None else base64.b64encode(self._password.encode())
        if wanted is not None and b"Proxy-Authorization: Basic " + wanted not in head:
            client.sendall(b"HTTP/1.1 407 Sign in\r\nContent-Length: 0\r\n\r\n")
        elif FORBIDDEN in target:
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        elif method == "CONNECT":
            self._lead(client, b"HTTP/1.1 200 Go on\r\nVia: parent\r\n\r\n")
        else:
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nparent")

    def _lead(self, client: socket.socket, answer: bytes) -> None:
        with socket.create_connection(self._origin.address, DEADLINE) as origin:
            client.sendall(answer)
            back = threading.Thread(target=copy, args=(origin, client), daemon=True)
            back.start()
            copy(client, origin)
            back.join(DEADLINE)


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Send on what comes until it ends, and that it has ended."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
