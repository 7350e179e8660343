"""Web servers in a thread, of one page."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def web_server(
    content: Callable[[str], bytes], media_type: str = "text/plain", version: str = "HTTP/1.0"
) -> ThreadingHTTPServer:
    """A server on loopback that answers GET with `content` of the client's address; HTTP/1.1 keeps connections open."""

    class Page(BaseHTTPRequestHandler):
        protocol_version = version

        def do_GET(self) -> None:
            page = content(self.client_address[0])
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Page)


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
