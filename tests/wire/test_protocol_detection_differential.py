"""First bytes against what serves them: a request or a name that any server would take must not pass as unknown.

OpenSSL and Python's http.server run in this process; what nginx, HAProxy, Caddy and Node served is kept in
`data/first_lines.tsv`. A finding is a server that serves what was read as nothing, or under another name.
"""

import contextlib
import io
import ssl
import subprocess
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import labs.hello_builder as build
from tokgate.wire.hello_reader import asks_again
from tokgate.wire.protocol_detection import Protocol, ProtocolDetector

ROWS = [
    line.split("\t")
    for line in Path(__file__).with_name("data").joinpath("first_lines.tsv").read_text("ascii").splitlines()
    if not line.startswith("#")
]


def told(data: bytes) -> ProtocolDetector:
    """First bytes, read."""
    first = ProtocolDetector()
    first.feed(data)
    return first


def protocol_of(data: bytes) -> Protocol:
    """What the bytes are, where nothing comes behind them."""
    first = ProtocolDetector()
    return first.feed(data) or first.ended()


@pytest.mark.parametrize(("what", "served", "text"), ROWS, ids=[row[0] for row in ROWS])
def test_what_servers_served(what: str, served: str, text: str) -> None:
    """What one of five servers answered is a request, or is refused under a ban: it never passes as something else."""
    data = text.encode("ascii").decode("unicode_escape").encode("latin-1")
    if served != "-":
        assert protocol_of(data) is not Protocol.UNKNOWN, what
    if protocol_of(data) is Protocol.UNKNOWN:
        assert served == "-", what


class Handler(BaseHTTPRequestHandler):
    """Python's server on bytes in memory; it notes the requests that it serves."""

    def __init__(self, data: bytes) -> None:
        self.served: list[str] = []
        self.rfile = io.BytesIO(data)
        self.wfile = io.BytesIO()
        self.client_address = ("192.0.2.1", 1)
        self.headers = Message()
        self.handle()

    def do_GET(self) -> None:
        self.served.append(self.path)
        self.close_connection = True

    do_POST = do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


WORDS = st.sampled_from(
    [
        b"GET",
        b"POST",
        b"get",
        b"/",
        b"*",
        b"http://www.example.org/",
        b"x",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/01.1",
        b"HTTP/1.10",
        b"HTTP/0.9",
        b"HTTP/2.0",
        b"RTSP/1.0",
        b"http/1.1",
        b"HTTP/1",
        b"\x00",
        b"\xff",
        b"(",
        b"PRI",
        b"",
    ]
)
BLANKS = st.sampled_from(
    [b" ", b"", b"  ", b"\t", b"\r", b"\x0b", b"\x1c", b"\x85", b"\xa0", b" \t", b"\r\n", b"\n", b"\n\r"]
)
LINES = st.lists(st.one_of(WORDS, BLANKS), max_size=12).map(b"".join)


@given(line=LINES, end=st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\r\n", b""]))
@example(line=b"GET /", end=b"")
def test_python_serves_nothing_that_is_unknown(line: bytes, end: bytes) -> None:
    """Python's server, the most lenient at hand, serves no line that was read as no HTTP."""
    data = line + end + b"Host: www.example.org\r\n\r\n" if end else line
    if Handler(data).served:
        assert protocol_of(data) is not Protocol.UNKNOWN


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=a"
    subprocess.run([*make.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


class Openssl:
    """A server of OpenSSL in memory: which names it takes, and what it answers."""

    def __init__(self, certificate: tuple[Path, Path], curve: str | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        context.sni_callback = lambda _connection, name, _context: self.names.append(name)
        if curve is not None:
            context.set_ecdh_curve(curve)
        self.names: list[str | None] = []
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._connection = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def answers(self, data: bytes) -> bytes:
        """What it says to these bytes; it fails silently."""
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLError):
            self._connection.do_handshake()
        return self._outgoing.read()


MESSAGE = build.openssl_hello("www.example.org")[5:]
RECORDS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([20, 21, 22, 23, 24]), st.sampled_from([0x0301, 0x0303, 0x0200, 0x0001, 0x1603])
        ).flatmap(
            lambda head: st.binary(max_size=3).map(
                lambda body: bytes((head[0],)) + head[1].to_bytes(2) + build.vector(2, body)
            )
        ),
        st.sampled_from([b"\x15\3\1\0\2\1\x70", b"\x14\3\3\0\1\1", b"\x16\3\1\0\0", b"\x17\3\3\0\0", b"\r\n", b"\x80"]),
    ),
    max_size=3,
).map(b"".join)


@given(
    before=RECORDS,
    between=RECORDS,
    cut=st.integers(0, len(MESSAGE)),
    version=st.sampled_from([0x0301, 0x0303, 0x0200, 0x0001, 0x0401, 0x03FF]),
)
def test_openssl_takes_no_name_that_was_not_read(
    certificate: tuple[Path, Path], before: bytes, between: bytes, cut: int, version: int
) -> None:
    """Whatever records stand around a hello, the name by which OpenSSL would serve it is the one that was read."""
    parts = [build.records(part, version=version) if part else b"" for part in (MESSAGE[:cut], MESSAGE[cut:])]
    data = before + parts[0] + between + parts[1]
    server = Openssl(certificate)
    server.answers(data)
    if "www.example.org" in server.names:
        first = told(data)
        assert first.hello is not None
        assert first.hello.name == "www.example.org"


OCTETS = st.lists(
    st.sampled_from(
        [
            b"www",
            b"example",
            b"org",
            b".",
            b"*",
            b"!",
            b"%77",
            b":443",
            b"\0",
            b" ",
            b"/",
            b"x" * 64,
            b"\xc3\xb6",
            b"8.8.8.8",
        ]
    ),
    min_size=1,
    max_size=8,
).map(b"".join)


@given(names=st.lists(OCTETS, min_size=1, max_size=3), kind=st.sampled_from([0, 0, 0, 1]), repeated=st.booleans())
@example(names=[b"a!b.example.org"], kind=0, repeated=False)
@example(names=[b"www.example.org\0"], kind=0, repeated=True)
def test_octets_that_a_wildcard_matches(names: list[bytes], kind: int, repeated: bool) -> None:
    """nginx serves `*.example.org` to any octets that end like it: that end, or all of it, can be decided about."""
    extensions = [build.server_name(*names, kind=kind)] * (2 if repeated else 1)
    hello = told(build.records(build.hello(*extensions))).hello
    assert hello is not None
    for name in names:
        if name.endswith(b".example.org"):
            shown = (hello.name,) if hello.name is not None else hello.legible
            assert any(part.endswith("example.org") for part in shown)


@given(length=st.integers(43, 300), curve=st.sampled_from(["secp521r1", "X25519", "prime256v1"]))
def test_a_retry_is_seen(certificate: tuple[Path, Path], length: int, curve: str) -> None:
    """OpenSSL waits for a second hello exactly when its answer was read as a HelloRetryRequest."""
    server = Openssl(certificate, curve)
    answer = server.answers(build.records(MESSAGE))
    waits = curve != "X25519" and len(answer) < 200
    assert asks_again(answer[:length]) is asks_again(answer) is waits
