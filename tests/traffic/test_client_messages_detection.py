"""What a connection speaks, from its first bytes: which reader is asked, and what its answer means.

First bytes against what serves them: a request or a name that any server would take must not pass as unknown.
"""

import contextlib
import io
import ssl
from collections.abc import Iterable, Sequence
from email.message import Message
from http.server import BaseHTTPRequestHandler
from itertools import pairwise

import pytest
import trustme
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labs.builders import present
from labs.hello_builder import hello_for, openssl_hello
from tokgate.evasion import hello as build
from tokgate.traffic.client_messages import FirstBytesReader
from tokgate.traffic.seen import FirstBytes, Hello, HttpStart, OtherBytes, Unreadable
from tokgate.wire.client_hello import ClientHello
from tokgate.wire.hello_reader import asks_again
from tokgate.wire.http_detection import MAX_LINE, PREFACE, LinePart, UnreadLine, read_on

TLS = "tls"
LENIENT_TLS, LENIENT_HTTP = Unreadable(), Unreadable(http=True)
HTTP1, HTTP2, UNKNOWN = HttpStart(), HttpStart(http2=True), OtherBytes()
HELLO = hello_for("www.example.org")
ALERT = b"\x15\3\1\0\2\1\x70"


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (HELLO, TLS),
        (ALERT + HELLO, TLS),
        (build.records(HELLO[5:], version=0x0200), TLS),
        (b"\x16\3\1\0\4\2\0\0\0", LENIENT_TLS),
        (ALERT + b"GET / HTTP/1.1\r\n", LENIENT_TLS),
        (b"\x80\x2e\1\3\1\0\x15\0\0\0\x10" + b"c" * 37, LENIENT_TLS),
        (b"GET / HTTP/1.1\r\n", HTTP1),
        (PREFACE, HTTP2),
        (b"GET /\r\n", LENIENT_HTTP),
        (b"CONNECT a:443 HTTP/1.10\r\n", LENIENT_HTTP),
        (b"\x85GET / HTTP/1.1\r\n", LENIENT_HTTP),
        (b"SSH-2.0-x\r\n", UNKNOWN),
        (b"0032git-upload-pack /project.git\0host=example.org\0", UNKNOWN),
        (b"\x16\xfe\xfd\0\0", UNKNOWN),
        (b"\x80\0\1" + b"x" * 9, UNKNOWN),
        (b"", None),
        (HELLO[:-1], None),
        (b"GET / HTTP/1.1", None),
        (b"\x80\0\1", None),
    ],
)
def test_protocols(data: bytes, protocol: object) -> None:
    """Each is told alike in one piece and octet by octet, and every octet is kept for whoever serves the connection."""
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        first, told = FirstBytesReader(), None
        while told is None and pieces:
            told = first.feed(pieces.pop(0))
        told = TLS if isinstance(told, Hello) else UNKNOWN if isinstance(told, OtherBytes) else told  # type: ignore[assignment]
        assert told == protocol
        assert first.received + b"".join(pieces) == data


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (b"", UNKNOWN),
        (HELLO[:-1], LENIENT_TLS),
        (b"GET / HTTP/1.1", LENIENT_HTTP),
        (b"GET /", LENIENT_HTTP),
        (b"CONNECT www.example.net:443 HTTP/1.1\r\nHost: a\r\n\r", LENIENT_HTTP),
        (b"PRI * HTTP", LENIENT_HTTP),
        (PREFACE[:-2], LENIENT_HTTP),
        (b"\r\n", UNKNOWN),
        (b"GET", UNKNOWN),
        (b"USER someone", UNKNOWN),
    ],
)
def test_the_end_of_the_stream(data: bytes, protocol: FirstBytes) -> None:
    """It tells as much as the end of the line: Python's server serves a last line without one."""
    first = FirstBytesReader()
    if data:
        assert first.feed(data) is None
    assert first.ended() == protocol


PARTS = [
    *(b"GET", b"X", b"CONNECT", b"%2f", b"www.example.org", b"/", b"*", b"http://", b"HTTP/1.1", b" HTTP/"),
    *(b" ", b"\t", b"\x0b", b"\xa0", b"\r", b"\n", b"\r\n", b"\0", b"[", b"Host", b"HoSt \t", b":", b"From "),
    *(b"FOO/1.0", b"foo bar", b"G" * 31, b"z" * 257, b"PRI * HTTP/2.0", b"\r\n\r\n\0\r\nQUIT\n", b"PROXY"),
    *(ALERT, b"\x16\3", HELLO[:60]),
]
HEADS = st.lists(st.one_of(st.sampled_from(PARTS), st.binary(min_size=1, max_size=2)), max_size=16).map(b"".join)


def verdict(pieces: Iterable[bytes]) -> tuple[FirstBytes | None, UnreadLine | None]:
    """What is told when all pieces have come, and what may change that yet."""
    first, told, line = FirstBytesReader(), None, None
    for piece in pieces:
        if told is None:
            told = first.feed(piece)
            if isinstance(told, OtherBytes):
                told, line = UNKNOWN, told.line
        elif line is not None:
            more = read_on(line, piece)
            told, line = (LENIENT_HTTP, None) if more is True else (told, more or None)
    return told, line


@settings(max_examples=1000)
@given(data=HEADS, cuts=st.lists(st.integers(1, 80), max_size=4))
@example(data=b"X /\0y\r\nHost: www.example.org\r\n\r\n", cuts=[])
@example(data=b"X \0 \t\r\nHost \t: www.example.org\r\n\r\n", cuts=[5])
@example(data=b"GET %2f FOO/1.0\r\nfoo bar\r\nhost \t \t: www.example.org\r\n\r\n", cuts=[30])
@example(data=b"CONNECT x y\r\nfoo bar\r\n\r\r\n", cuts=[26])
@example(data=b"get x\nfoo bar\rhost:", cuts=[14])
@example(data=b"GETGET /\0\n", cuts=[])
def test_an_answer_stays(data: bytes, cuts: list[int]) -> None:
    """The same octets are told alike in any pieces; once it is told, more of them change nothing."""
    whole = verdict([data])
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert verdict(data[a:b] for a, b in pairwise(edges)) == whole
    singly = [verdict([])]
    singly += [verdict(data[i : i + 1] for i in range(end)) for end in range(1, len(data) + 1) if len(data) < 200]
    assert len(data) >= 200 or singly[-1] == whole
    settled = [told for told, line in singly if told is not None and line is None]
    assert all(told == whole[0] for told in settled)


SERVED = [
    b"GE[T / HTTP/1.1\r\n",
    b"\0GET / HTTP/1.1\r\n",
    b"\xef\xbb\xbfGET / HTTP/1.1",
    b"\7GET\t/\xa0HTTP/1.1\r\n",
    b"{" * 9000 + b" / HTTP/1.0\n",
    b"X #\r\nHost: a",
    b"GET\xa0x\x0b\n\r\n",
    b"connect x FOO/1.0\r\nHost: a",
    b"GET %2f FOO/1.0\n\n",
    b"X www.example.org  \n\n",
    b"EHLO x\r\nhost :",
    b"GET x\r\nK(:",
    b"GET x\r\n:",
    b"GET x\r\n ",
    b"GET x\r\nFrom ",
    b"GET x\r\n" + b"z" * 257,
    b"X /\0y\r\nHost: a",
    b"GET x\r\nfoo bar\r\nHost: a",
    b"GET x\r\nfoo bar\r\nX: y\r\nhOST \t :",
    b"GET x\r\nfoo bar\rHost:",
    b"POST %2f FOO/1.0\nfoo bar\nX: y\n\n",
    b"CONNECT x y\r\nfoo bar: z\r\n\r\r\n",
    b"GET x\r\n\r\r\n",
    b"X y\r\nfoo bar\r\nHost: a",
]
UNSERVED = [
    b"HTTP/1.1 200 OK\r\n",
    b"[\r\n HTTP/1.1\r\n",
    b"OPTIONS sip:example.org SIP/2.0\r\nVia: a",
    b"[x y\r\nHost: a",
    b"X\r\nHost: a",
    b"X y z\r\nHost: a",
    b"X \r\nHost: a",
]


UNDECIDED = [
    (b"[", LinePart.OTHER),
    (b"\x13BitTorrent protocol", LinePart.OTHER),
    (b"[ HTTP", LinePart.OTHER),
    (b"X \0y", LinePart.TARGET),
    (b"X \0y ", LinePart.AFTER_TARGET),
    (b"EHLO x\r\n", LinePart.FIELDS),
    (b"X y\r\nHost", LinePart.FIELDS),
    (b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n\r\n", LinePart.REST),
    (b"X y\r\nz" + b" " * 17 + b":", LinePart.REST),
    (b"GET x\r\nGET y\r\n", LinePart.KNOWN_REST),
    (b'CONNECT {"name": "a b"}\r\nPING\r\n', LinePart.KNOWN_REST),
    (b"GET x\r\nK\xe9:\r\n\r\r", LinePart.KNOWN_REST),
    (b"GET x\r\nfoo bar\r\nHost" + b" " * 1000, LinePart.KNOWN_REST),
    (b"GET x\r\nfoo bar\r\nX-Host: a\r\nghost: b", LinePart.KNOWN_REST),
]


def cuts(data: bytes) -> list[Sequence[bytes]]:
    """The head whole, in two parts, and by the octet."""
    ends = sorted({1, data.find(b"\n") + 1, len(data) // 2, len(data) - 1} - {0})
    parts: list[Sequence[bytes]] = [(data[:at], data[at:]) for at in ends if at < len(data)]
    return [(data,), *parts, [data[at:end] for at, end in pairwise(range(len(data) + 1))]]


@pytest.mark.parametrize(
    ("data", "told"), [*((each, LENIENT_HTTP) for each in SERVED), *((each, UNKNOWN) for each in UNSERVED)]
)
def test_what_some_server_serves_and_what_none_does(data: bytes, told: FirstBytes) -> None:
    """Nothing is left to be told, wherever the head is cut."""
    assert all(verdict(pieces) == (told, None) for pieces in cuts(data))


@pytest.mark.parametrize(("data", "part"), UNDECIDED)
def test_what_may_be_served_yet(data: bytes, part: LinePart) -> None:
    """As long as the head may become a request, little is kept of it, and the same wherever it is cut."""
    told, line = verdict((data,))
    assert line is not None
    assert (told, line.part) == (UNKNOWN, part)
    assert len(line.unfinished) <= 6
    assert all(verdict(pieces) == (told, line) for pieces in cuts(data))


@pytest.mark.parametrize("data", [b"[" * (MAX_LINE - 3) + b" HTTP/1.1\r\n", b"X " + b"y" * MAX_LINE + b"\0"])
def test_a_line_of_64_kib(data: bytes) -> None:
    """So it is where nothing more is read of a line."""
    for size in (1, 1000, MAX_LINE - 1, MAX_LINE, MAX_LINE + 1):
        assert verdict(data[at : at + size] for at in range(0, len(data), size)) == verdict([data])


def hello_in(data: bytes) -> ClientHello | None:
    """The hello that was read in first bytes."""
    seen = FirstBytesReader().feed(data)
    return seen.hello if isinstance(seen, Hello) else None


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
        *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/01.1", b"HTTP/1.10", b"HTTP/0.9", b"HTTP/2.0", b"RTSP/1.0", b"http/1.1"),
        *(b"HTTP/1", b"PRI", b"GET", b"POST", b"get", b"/", b"*", b"http://www.example.org/", b"x"),
        *(b"\x00", b"\xff", b"(", b""),
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
        assert not isinstance(FirstBytesReader().feed(data), OtherBytes)


class Openssl:
    """A server of OpenSSL in memory: which names it takes, and what it answers."""

    certificate = trustme.CA().issue_cert("www.example.org")

    def __init__(self, curve: str | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(context)
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


MESSAGE = openssl_hello("www.example.org")[5:]
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
def test_openssl_takes_no_name_that_was_not_read(before: bytes, between: bytes, cut: int, version: int) -> None:
    """Whatever records stand around a hello, the name by which OpenSSL would serve it is the one that was read."""
    parts = [build.records(part, version=version) if part else b"" for part in (MESSAGE[:cut], MESSAGE[cut:])]
    data = before + parts[0] + between + parts[1]
    server = Openssl()
    server.answers(data)
    if "www.example.org" in server.names:
        hello = present(hello_in(data))
        assert hello.name == "www.example.org"


ODD = [b".", b"*", b"!", b"%77", b":443", b"\0", b" ", b"/", b"x" * 64, b"\xc3\xb6", b"8.8.8.8"]
OCTETS = st.lists(st.sampled_from([b"www", b"example", b"org", *ODD]), min_size=1, max_size=8).map(b"".join)


@given(names=st.lists(OCTETS, min_size=1, max_size=3), kind=st.sampled_from([0, 0, 0, 1]), repeated=st.booleans())
@example(names=[b"a!b.example.org"], kind=0, repeated=False)
@example(names=[b"www.example.org\0"], kind=0, repeated=True)
def test_octets_that_a_wildcard_matches(names: list[bytes], kind: int, repeated: bool) -> None:
    """nginx serves `*.example.org` to any octets that end like it: that end, or all of it, can be decided about."""
    extensions = [build.server_name(*names, kind=kind)] * (2 if repeated else 1)
    hello = present(hello_in(build.records(build.hello(*extensions))))
    for name in names:
        if name.endswith(b".example.org"):
            shown = (hello.name,) if hello.name is not None else hello.legible
            assert any(part.endswith("example.org") for part in shown)


@given(length=st.integers(43, 300), curve=st.sampled_from(["secp521r1", "X25519", "prime256v1"]))
def test_a_retry_is_seen(length: int, curve: str) -> None:
    """OpenSSL waits for a second hello exactly when its answer was read as a HelloRetryRequest."""
    server = Openssl(curve)
    answer = server.answers(build.records(MESSAGE))
    waits = curve != "X25519" and len(answer) < 200
    assert asks_again(answer[:length]) is asks_again(answer) is waits
