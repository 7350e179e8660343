"""Load on a tokgate in processes of its own, whose clients tell what they noticed."""

import socket
import threading

from labs.running_lab import ROOT, Scraped, until


class Load:
    """Clients that come and go, tunnels that stay and echo, and a plain HTTP download through an opener."""

    def __init__(self, running: Scraped) -> None:
        self.served = 0
        self.failures: list[str] = []
        self._running = running
        self._ended = threading.Event()
        self._web = socket.create_server(("127.0.0.1", 0))
        threads = [self._come_and_go, self._come_and_go, self._stay, self._stay, self._serve_web, self._download]
        self._threads = [threading.Thread(target=each) for each in threads]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._web.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._web.close()

    def goes_on(self) -> None:
        """Wait until some more new clients were served."""
        before = self.served
        until("clients are served", lambda: self.served > before + 20)

    def _tunnel(self) -> socket.socket:
        status, sock = self._running.connect("127.0.0.1", self._running.origin.getsockname()[1])
        if " 200 " not in status:
            self.failures.append(f"refused: {status!r}")
        return sock

    def _echoes(self, sock: socket.socket) -> None:
        sock.sendall(b"\x00ping")
        if sock.recv(5) != b"\x00ping":
            self.failures.append("ended")

    def _come_and_go(self) -> None:
        while not self._ended.wait(0.005):  # some hundred a second, so that others have the processor as well
            try:
                with self._tunnel() as sock:
                    self._echoes(sock)
                    self.served += 1
            except OSError as error:
                self.failures.append(f"a new client: {error!r}")

    def _stay(self) -> None:
        try:
            with self._tunnel() as sock:
                while not self._ended.wait(0.01):
                    self._echoes(sock)
        except OSError as error:
            self.failures.append(f"an open tunnel: {error!r}")

    def _serve_web(self) -> None:
        """A body without an end, at 100 pieces a second."""
        client, _ = self._web.accept()
        with client:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not self._ended.wait(0.01):
                client.sendall(b"4\r\nbody\r\n")
            client.sendall(b"0\r\n\r\n")

    def _download(self) -> None:
        host = f"127.0.0.1:{self._web.getsockname()[1]}"
        received = b""
        try:
            with socket.create_connection(("127.0.0.1", self._running.port), 60) as sock:
                sock.sendall(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                while piece := sock.recv(65536):
                    received = (received + piece)[-64:]
        except OSError as error:
            self.failures.append(f"a download: {error!r}")
        if not received.endswith(b"0\r\n\r\n"):
            self.failures.append(f"a download was cut: {received!r}")


def tallied(running: Scraped) -> int:
    """Tunnels in the coverage records."""
    told = [r["tokgate"]["coverage"] for r in running.records() if r["event"]["action"] == "coverage-counted"]
    return sum(number for each in told for number in each.get("here", {}).values())


def upgrade(running: Scraped, number: int) -> None:
    """Change the program on disk, so that connections of the one before mean nothing to it.

    Its size is another for each number: bytecode is known by its source's size, and by the second of the last change.
    """
    changed = running.addons / "tokgate" / "gate" / "connection.py"
    source = (ROOT / "addons" / "tokgate" / "gate" / "connection.py").read_text()
    changed.write_text(
        source.replace("    id: str | None = None\n", f"    id: str | None = None\n    v{'0' * number}: int = 0\n")
    )
