"""The clients behind the gateway, each as a function of one shape: curl, OpenSSL and Python."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import h2.connection
import h2.events

from labs.netns import Namespace
from labs.origin import ADDRESSES, ALLOWED, Origin, fingerprint

UNRECOGNIZED_NAME = "unrecognized name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client got: a page over a TLS connection with this certificate, or the error that it shows."""

    body: str = ""
    protocol: str = ""
    certificate: str = ""
    error: str = ""


def through(namespace: Namespace, proxy: str, authority: Path, url: str, *options: str) -> tuple[int, str, str]:
    """curl's exit code, output and error for a URL through an explicit proxy.

    The output is the body, the status of the answers to CONNECT and to the request, and the certificates.
    """
    done = namespace.run(
        *("curl", "-sS", "--max-time", "60", "-x", proxy, "--cacert", authority, url),
        *("--write-out", "\n%{http_connect} %{http_code}\n%{certs}", *options),
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


type Client = Callable[..., Answer]
"""(namespace, name, family, http2, authority) -> Answer; the authority is the only one that the client trusts."""


def curl(namespace: Namespace, name: str, family: int, http2: bool, authority: Path) -> Answer:
    """curl, which prints the certificate chain that it saw."""
    with tempfile.NamedTemporaryFile() as body:
        done = namespace.run(
            *("curl", "--silent", "--show-error", "--max-time", "60", "--cacert", authority, "--output", body.name),
            *("--http2" if http2 else "--http1.1", f"https://{name}/", "--write-out", "%{http_version}\n%{certs}"),
            *("--resolve", f"{name}:443:{ADDRESSES[name][family]}"),
            check=False,
        )
        if done.returncode:
            return Answer(error=_wording(done.stderr))
        version, chain = done.stdout.split("\n", 1)
        return Answer(
            body=Path(body.name).read_text(),
            protocol="h2" if version == "2" else "http/1.1",
            certificate=fingerprint(chain.encode()),
        )


def fetched(namespace: Namespace, origin: Origin, url: str, family: int, *options: str) -> tuple[int, str]:
    """curl's exit code and output for a URL, whose host has its address of the lab; a failed test shows its errors."""
    place = urlsplit(url)
    name, port = place.hostname or "", place.port or (443 if place.scheme == "https" else 80)
    done = namespace.run(
        *("curl", "-sS", "--max-time", "60", "--cacert", str(origin.authority), *options),
        *("--resolve", f"{name}:{port}:{ADDRESSES[name][family]}", url),
        check=False,
    )
    sys.stderr.write(done.stderr)
    return done.returncode, done.stdout


def seen_from(namespace: Namespace, origin: Origin, name: str, family: int, scheme: str = "https") -> str:
    """The address from which the origin sees a client's request."""
    return fetched(namespace, origin, f"{scheme}://{name}/who", family)[1].strip()


def http3(
    namespace: Namespace, origin: Origin, name: str, family: int, *options: str, path: str = "/"
) -> tuple[int, str]:
    """The same for a page over HTTP/3 and nothing else."""
    return fetched(namespace, origin, f"https://{name}{path}", family, "--http3-only", *options)


class Download(threading.Thread):
    """A download over HTTP/3 of some eight seconds: curl's exit code, and the octets that came."""

    def __init__(self, namespace: Namespace, origin: Origin, name: str) -> None:
        super().__init__()
        self._given = namespace, origin, name
        self.code = -1
        self.octets = 0
        self.start()

    def run(self) -> None:
        """Download; give up when nothing comes any more."""
        patience = ("--speed-time", "3", "--speed-limit", "1")
        self.code, size = http3(
            *self._given, 4, *patience, "--output", "/dev/null", "--write-out", "%{size_download}", path="/paced"
        )
        self.octets = int(size)


def openssl(namespace: Namespace, name: str, family: int, http2: bool, authority: Path) -> Answer:
    """`openssl s_client`, which speaks HTTP/1.1 by hand and leaves HTTP/2 at its ALPN."""
    protocol = "h2" if http2 else "http/1.1"
    request = "" if http2 else f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    address = ADDRESSES[name][family]
    done = namespace.run(
        *("openssl", "s_client", "-connect", f"[{address}]:443" if family == 6 else f"{address}:443"),
        *(
            "-servername",
            name,
            "-alpn",
            protocol,
            "-CAfile",
            authority,
            "-verify_return_error",
            "-verify_hostname",
            name,
        ),
        *(["-ign_eof"] if request else []),
        given=request,
        check=False,
    )
    if done.returncode or "BEGIN CERTIFICATE" not in done.stdout:
        return Answer(error=_wording(done.stderr))
    chosen = re.search(r"ALPN protocol: (\S+)", done.stdout)
    return Answer(
        body=done.stdout.rpartition("\r\n\r\n")[2].partition("---\n")[0] if request else "",
        protocol=chosen[1] if chosen else "",
        certificate=fingerprint(done.stdout.encode()),
    )


def python(namespace: Namespace, name: str, family: int, http2: bool, authority: Path) -> Answer:
    """Python's ssl module, with h2 where HTTP/2 is asked for."""
    context = ssl.create_default_context(cafile=str(authority))
    context.set_alpn_protocols(["h2" if http2 else "http/1.1"])
    try:
        with (
            namespace.connect(ADDRESSES[name][family], 443, 20) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            body = _get_http2(secure, name) if http2 else _get_http1(secure, name)
            certificate = secure.getpeercert(binary_form=True)
            assert certificate
            return Answer(
                body=body, protocol=secure.selected_alpn_protocol() or "", certificate=fingerprint(certificate)
            )
    except OSError as error:
        return Answer(error=_wording(str(error)))


def _get_http1(connection: socket.socket, name: str) -> str:
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
    with connection.makefile("rb") as stream:
        return stream.read().decode().partition("\r\n\r\n")[2]


def _get_http2(connection: socket.socket, name: str) -> str:
    http = h2.connection.H2Connection()
    http.initiate_connection()
    headers = [(":method", "GET"), (":scheme", "https"), (":authority", name), (":path", "/")]
    http.send_headers(1, headers, end_stream=True)
    body = b""
    while True:
        connection.sendall(http.data_to_send())
        for event in http.receive_data(connection.recv(65536)):
            if isinstance(event, h2.events.DataReceived):
                body += event.data or b""
            elif isinstance(event, h2.events.StreamEnded):
                return body.decode()
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise ConnectionResetError(f"HTTP/2 error {event.error_code}")


@contextlib.contextmanager
def downloading(
    namespace: Namespace, authority: Path, size: int, name: str = ALLOWED, family: int = 4, *, tls: bool = True
) -> Iterator[BinaryIO]:
    """The body of a download that takes a quarter of a second a megabyte, after its first byte has arrived."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(namespace.connect(ADDRESSES[name][family], 443 if tls else 80, 30))
        if tls:
            trust = ssl.create_default_context(cafile=str(authority))
            sock = stack.enter_context(trust.wrap_socket(sock, server_hostname=name))
        stream = stack.enter_context(sock.makefile("rb"))
        lines = ("GET /paced HTTP/1.1", f"Host: {name}", f"Range: bytes=0-{size - 1}", "Connection: close", "", "")
        sock.sendall("\r\n".join(lines).encode())
        while stream.readline() not in (b"\r\n", b""):
            pass
        yield stream


def _wording(error: str) -> str:
    """Each client's own words for alert 112, which is what these tests wait for, as one; other errors as they are."""
    said = error.lower().replace("_", " ")
    return UNRECOGNIZED_NAME if UNRECOGNIZED_NAME in said or "alert number 112" in said else error.strip()


CLIENTS: tuple[Client, ...] = (curl, openssl, python)
