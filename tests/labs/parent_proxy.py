"""A parent proxy on loopback, as small as one can be that keeps to its protocol: HTTP CONNECT or SOCKS 5."""

import base64
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from labs.gate_lab import DEADLINE, Origin, exactly
from tokgate.gate.sockets import Address

FORBIDDEN = "forbidden.example"


class HasAddress(Protocol):
    """An origin, on loopback."""

    @property
    def address(self) -> Address: ...


class ParentProxy:
    """Leads every name and address to one origin; `asked` is what it was asked for, `heads` what HTTP clients sent."""

    def __init__(self, origin: HasAddress, *, socks: bool = False, password: str | None = None) -> None:
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self._origin = origin
        self._password = password
        serve: Callable[[socket.socket], object] = self._socks if socks else self._http
        self._listening = Origin(serve)
        self.port = self._listening.port
        self.url = f"{'socks5' if socks else 'http'}://127.0.0.1:{self.port}"
        self.close = self._listening.close

    def _http(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n") and (piece := client.recv(1)):
            head += piece
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

    def _socks(self, client: socket.socket) -> None:
        methods = exactly(client, exactly(client, 2)[1])
        client.sendall(b"\x05" + (b"\x00" if self._password is None else b"\x02"))
        assert (b"\x02" if self._password is not None else b"\x00") in methods
        if self._password is not None:
            user = exactly(client, exactly(client, 2)[1]).decode()
            word = exactly(client, exactly(client, 1)[0]).decode()
            right = f"{user}:{word}" == self._password
            client.sendall(b"\x01" + (b"\x00" if right else b"\x01"))
            if not right:
                return
        kind = exactly(client, 4)[3]
        length = {1: 4, 4: 16}.get(kind) or exactly(client, 1)[0]
        raw = exactly(client, length)
        host = raw.decode() if kind == 3 else socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, raw)
        self.asked.append(f"{host}:{int.from_bytes(exactly(client, 2))}")
        if host == FORBIDDEN:
            client.sendall(b"\x05\x02\x00\x01" + bytes(6))
        else:
            self._lead(client, b"\x05\x00\x00\x01" + bytes(6))

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
