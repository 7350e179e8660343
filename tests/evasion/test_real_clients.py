"""Real clients whose options are tricks: the banned page is stopped, and the same client gets the allowed one."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from evasion.carriers import Clients, Key, Program, Running, Settings, start
from evasion.python_server import ALLOWED_PAGE, BANNED_PAGE
from evasion.requirements import skip_or_fail
from evasion.servers import ALLOWED, BANNED, Server, Servers, running_servers

DEADLINE = 30.0
CLIENTS = Clients()
CURL = ("curl", "-sk", "--max-time", "10")
OPENSSL = ("openssl", "s_client", "-connect", "127.0.0.1:GATE", "-bind", "CLIENT:PORT", "-ign_eof", "-quiet")


@dataclass(frozen=True, slots=True)
class RealClient:
    """A command. CLIENT, PORT, GATE, PROXY, SOCKS and NAME stand for addresses, ports and the name that it asks for."""

    name: str
    words: tuple[str, ...]
    tls: bool = True
    server: Server = Server.NGINX
    said: str = ""


ROUTED = ("--interface", "CLIENT", "--local-port", "PORT", "--connect-to", "::127.0.0.1:GATE")
URL, PLAIN_URL = "https://NAME:PORT/", "http://NAME:PORT/"
REQUEST = "GET / HTTP/1.1\r\nHost: NAME\r\nConnection: close\r\n\r\n"
ROWS = [
    RealClient("http2", (*CURL, *ROUTED, "--http2", URL)),
    RealClient("http1", (*CURL, *ROUTED, "--http1.1", URL)),
    RealClient("tls-1.2", (*CURL, *ROUTED, "--tls-max", "1.2", URL)),
    RealClient("http2-prior-knowledge", (*CURL, *ROUTED, "--http2-prior-knowledge", PLAIN_URL), tls=False),
    RealClient("chunked", (*CURL, *ROUTED, "-H", "Transfer-Encoding: chunked", "-d", "x=y", PLAIN_URL), tls=False),
    RealClient("connect", (*CURL, "--interface", "CLIENT", "-x", "http://127.0.0.1:PROXY", URL)),
    RealClient("url", (*CURL, "--interface", "CLIENT", "-x", "http://127.0.0.1:PROXY", PLAIN_URL), tls=False),
    RealClient("tunnelled-url", (*CURL, "--interface", "CLIENT", "-p", "-x", "127.0.0.1:PROXY", PLAIN_URL), tls=False),
    RealClient("socks5h", (*CURL, "--interface", "CLIENT", "-x", "socks5h://127.0.0.1:SOCKS", URL)),
    RealClient("retried-hello", (*OPENSSL, "-servername", "NAME", "-groups", "P-521:P-256:X25519"), said=REQUEST),
    RealClient("small-records", (*OPENSSL, "-servername", "NAME", "-split_send_frag", "512"), said=REQUEST),
]
"""curl and OpenSSL, by redirection and through an explicit proxy."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Real servers."""
    if Server.NGINX.missing:
        skip_or_fail("nginx")
    with running_servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="module", params=[Program.GATES, Program.MITMPROXY])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Both ways to carry traffic; the allowed names resolve."""
    key = Key(request.param, Settings.DEFAULT)
    made = start([key], tmp_path_factory.mktemp("real"))[key]
    yield made
    made.end()


def asks(row: RealClient, running: Running, servers: Servers, name: str) -> bytes:
    """What the client printed."""
    known = {
        "CLIENT": CLIENTS.address("127.0.0.1", banned=True),
        "PORT": str(servers.port(row.server, tls=row.tls)),
        "GATE": str(running.redirected),
        "PROXY": str(running.explicit),
        "SOCKS": str(running.socks),
        "NAME": name,
    }

    def filled(text: str) -> str:
        for word, value in known.items():
            text = text.replace(word, value)
        return text

    words = [filled(word) for word in row.words]
    done = subprocess.run(words, input=filled(row.said).encode(), capture_output=True, timeout=DEADLINE, check=False)
    return done.stdout


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_client(running: Running, servers: Servers, row: RealClient) -> None:
    """The banned page is not served, the allowed one is."""
    if shutil.which(row.words[0]) is None:
        skip_or_fail(row.words[0])
    banned = asks(row, running, servers, BANNED)
    allowed = asks(row, running, servers, ALLOWED)
    assert BANNED_PAGE not in banned
    assert ALLOWED_PAGE in allowed
