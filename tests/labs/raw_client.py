"""A client that says exactly what a test wants, in TLS, HTTP, CONNECT and SOCKS 5, and reads what it gets."""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from labs.gate_lab import DEADLINE, broken_off, exactly, read_all, read_head, reset

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def fields(headers: Mapping[str, str]) -> str:
    """Lines of headers; underscores in their names stand for hyphens."""
    return "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())


def read_fields(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of a response's head."""
    first, *lines = head.decode("latin-1").split("\r\n")
    found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return int(first.split()[1]), found


def socks_request(host: str, port: int) -> bytes:
    """A CONNECT of SOCKS 5 (RFC 1928 §4), by IPv4 address or by name."""
    try:
        return b"\x05\x01\x00\x01" + socket.inet_pton(socket.AF_INET, host) + port.to_bytes(2)
    except (OSError, ValueError):
        name = host.encode()
        return b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2)


class RawClient:
    """A connection to a proxy."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *pieces: bytes) -> None:
        """Say something, each piece in a segment of its own as far as the kernel lets it."""
        for piece in pieces:
            self.sock.sendall(piece)

    def end(self) -> None:
        """Say no more, and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def exactly(self, count: int) -> bytes:
        """That many octets, or those up to the end of the stream."""
        return exactly(self.sock, count)

    def to_end(self) -> bytes:
        """Everything up to the end of the stream; a reset raises ConnectionResetError."""
        return read_all(self.sock)

    def answer(self, *said: bytes) -> bytes:
        """Everything that comes for what is said, and for the end of it."""
        self.send(*said)
        with contextlib.suppress(OSError):  # refused and gone already
            self.end()
        return self.to_end()

    def echoes(self, said: bytes) -> bool:
        """Whether the connection leads to an echo that is still there."""
        self.send(said)
        return self.exactly(len(said)) == said

    def is_reset(self) -> bool:
        """Whether the connection ends with a reset, whatever comes before it."""
        return broken_off(self.sock)

    def reset(self) -> None:
        """Break the connection off."""
        reset(self.sock)

    def is_over(self) -> bool:
        """Whether the connection ends, with a reset or without, and no octet comes before."""
        try:
            return self.to_end() == b""
        except ConnectionResetError:
            return True

    # -- HTTP

    def reply(self, method: str = "GET") -> Reply:
        """A response."""
        response = http.client.HTTPResponse(self.sock, method=method)
        response.begin()
        with contextlib.closing(response):
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, headers, response.read())

    def request(self, method: str, target: str, host: str, body: bytes = b"", /, **headers: str) -> Reply:
        """A request on this connection."""
        self.send(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields(headers)}\r\n".encode() + body)
        return self.reply(method)

    def get(self, host: str, target: str = "/", **headers: str) -> Reply:
        """A GET."""
        return self.request("GET", target, host, **headers)

    def connect(self, host: str, port: int, **headers: str) -> Reply:
        """A CONNECT. What follows a success is left to be read."""
        self.send(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{fields(headers)}\r\n".encode())
        head = read_head(self.sock)
        assert head, "the connection ended"
        status, found = read_fields(head)
        size = int(found.get("content-length", "0"))
        left = self.exactly(size) if "content-length" in found or status == 200 else self.to_end()
        return Reply(status, found, left)

    # -- SOCKS 5

    def socks(self, host: str, port: int, user: str = "", password: str = "") -> int:
        """A SOCKS 5 tunnel: the code of the reply (RFC 1928 §6), 0 is success; 255 for one that is not let in."""
        self.send(b"\x05\x01" + (b"\x02" if user else b"\x00"))
        if self.exactly(2) == b"\x05\xff":
            return 255
        if user:  # RFC 1929 §2
            said = (bytes([len(word)]) + word for word in (user.encode(), password.encode()))
            self.send(b"\x01" + b"".join(said))
            if self.exactly(2) != b"\x01\x00":
                return 255
        self.send(socks_request(host, port))
        return self.exactly(10)[1]

    # -- TLS

    def tls(self, context: ssl.SSLContext, name: str | None) -> None:
        """Shake hands on this connection."""
        context.check_hostname = name is not None
        self.sock = context.wrap_socket(self.sock, server_hostname=name)

    @property
    def certificate(self) -> str:
        """The digest of the certificate that the other side showed."""
        assert isinstance(self.sock, ssl.SSLSocket)
        return sha256(self.sock.getpeercert(binary_form=True) or b"").hexdigest()

    @property
    def is_opened(self) -> bool:
        """Whether TLS ends at the proxy."""
        assert isinstance(self.sock, ssl.SSLSocket)
        return "mitmproxy" in str((self.sock.getpeercert() or {}).get("issuer"))


@contextlib.contextmanager
def dialled(address: Address) -> Iterator[RawClient]:
    """A connection, closed with the block."""
    with socket.create_connection(address, DEADLINE) as sock:
        client = RawClient(sock)
        try:
            yield client
        finally:
            client.sock.close()
