"""Python's own servers: http.server for plain HTTP, and OpenSSL by the ssl module with a page for who gets so far."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Final

BANNED_PAGE: Final = b"page of clips"
ALLOWED_PAGE: Final = b"page of example"


class Pages(BaseHTTPRequestHandler):
    """Answers with the page of whatever host is named in the request, or in its line."""

    protocol_version = "HTTP/1.1"
    timeout = 5
    wbufsize = -1  # head and page at once: who reads until nothing more comes has both

    def do_GET(self) -> None:
        """Answer, and leave a body unread: it is the next request then."""
        named = f"{self.path} {self.headers.get('host')}" if hasattr(self, "headers") else self.path
        page = BANNED_PAGE if "clips.example.org" in named.lower() else ALLOWED_PAGE
        if self.request_version != "HTTP/0.9":
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
        self.wfile.write(page)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Serve every method, as wsgiref and Werkzeug do."""
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self.do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""

    def handle(self) -> None:
        """Serve until the client is gone."""
        with contextlib.suppress(OSError):
            super().handle()

    def finish(self) -> None:
        """Close; what can't be sent any more isn't."""
        with contextlib.suppress(OSError):
            super().finish()


def accept(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Serve TLS until the listener is shut down."""
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_shake_hands, args=(client, context), daemon=True).start()


def _shake_hands(client: socket.socket, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError), client:
        client.settimeout(5)
        with context.wrap_socket(client, server_side=True) as secure:
            said = secure.recv(1 << 16)
            page = BANNED_PAGE if b"clips.example.org" in said.lower() else ALLOWED_PAGE
            secure.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(page), page))
