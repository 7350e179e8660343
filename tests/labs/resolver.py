"""A resolver, in the origin's network: every name has an address for an hour. It keeps what it is asked."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

import dns.message
import dns.query
import dns.rrset

from labs.netns import Lab, Namespace

TTL = 3600
ADDRESS = Lab.ALLOWED[4]
RECORDS = {"A": ADDRESS, "AAAA": Lab.ALLOWED[6], "HTTPS": "1 . alpn=h2", "TXT": '"as it is"'}


class Resolver:
    """Answers over UDP and TCP while the `with` block lasts."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.asked: list[tuple[str, str]] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        def bound(kind: socket.SocketKind) -> socket.socket:
            made = socket.socket(socket.AF_INET, kind)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((ADDRESS, 53))
            return made

        kinds = socket.SOCK_DGRAM, socket.SOCK_STREAM
        datagrams, listener = self._namespace.inside(lambda: [bound(kind) for kind in kinds])
        listener.listen()
        self._sockets = [datagrams, listener]
        for work in (lambda: self._serve_datagrams(datagrams), lambda: self._serve_connections(listener)):
            self._threads.append(threading.Thread(target=work))
            self._threads[-1].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for made in self._sockets:
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
            made.close()
        for thread in self._threads:
            thread.join(10)

    def _serve_datagrams(self, datagrams: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = datagrams.recvfrom(65535)
                if not data:
                    return
                datagrams.sendto(self._answer(data), client)

    def _serve_connections(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                thread = threading.Thread(target=self._serve_stream, args=(connection,), daemon=True)
                thread.start()

    def _serve_stream(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, struct.error), connection, connection.makefile("rb") as stream:
            connection.settimeout(30)
            while True:
                data = stream.read(struct.unpack("!H", stream.read(2))[0])
                answer = self._answer(data)
                connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), question.rdtype.name
        self.asked.append((name.lower(), kind))
        made = dns.message.make_response(query, recursion_available=True)
        if kind in RECORDS:
            made.answer.append(dns.rrset.from_text(question.name, TTL, "IN", kind, RECORDS[kind]))
        return made.to_wire(max_size=65535)


def ask(
    client: Namespace, name: str, kind: str = "A", *, server: str = Lab.GATEWAY[4], tcp: bool = False
) -> dns.message.Message:
    """What a client in a namespace is answered, as `dig` asks: with EDNS."""
    query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
    if tcp:
        with client.connect(server, 53) as stream:
            stream.setblocking(False)
            return dns.query.tcp(query, server, 5, sock=stream)
    with client.datagrams(server, 53) as datagrams:
        datagrams.setblocking(False)
        return dns.query.udp(query, server, 5, sock=datagrams)
