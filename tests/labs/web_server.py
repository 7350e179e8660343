"""Web servers in a thread, of one page."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def web_server(content: bytes, media_type: str = "text/plain", host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server that answers every GET with this."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return ThreadingHTTPServer((host, 0), Page)


@contextmanager
def served(server: ThreadingHTTPServer) -> Iterator[int]:
    """The port of a server, which serves meanwhile."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
