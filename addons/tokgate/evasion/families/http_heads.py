"""Plain HTTP whose first octets a strict reader doesn't take for HTTP, and a lenient server does."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tokgate.evasion.attempt import (
    Attempt,
    Family,
    Opens,
    Result,
    SentPieces,
    ServerReply,
    Stream,
    Target,
    broken,
    send_all,
)
from tokgate.evasion.limits import Limit
from tokgate.evasion.replies import judge, read_page

HARMLESS: Final = b"www.example.org"
_WORD: Final = re.compile("NAME|CAPITALS|ENCODED")


def asked(pieces: SentPieces, stream: Stream, target: Target, *, wanted: int = 1) -> ServerReply:
    """Send the pieces, and read the page; `wanted`: which of several."""
    send_all(stream, pieces(target))
    return read_page(stream.receive, wanted)


def fields(target: Target) -> bytes:
    """The fields of a request for the target, and the end of its head."""
    return b"Host: " + target.octets + b"\r\nConnection: close\r\n\r\n"


def request(target: Target, line: bytes = b"GET / HTTP/1.1") -> bytes:
    """The head of a request whose Host is the target's name: `line`, `fields`, and no body."""
    return line + b"\r\n" + fields(target)


def _before(octets: bytes) -> SentPieces:
    return lambda target: [octets + request(target)]


def _line(line: bytes) -> SentPieces:
    return lambda target: [request(target, line)]


def _ends(end: bytes) -> SentPieces:
    return lambda target: [request(target).replace(b"\r\n", end)]


def _http_09(line: bytes) -> SentPieces:
    """A request of HTTP/0.9 has no fields: the name is in its line, or nowhere."""
    return lambda target: [line.replace(b"NAME", target.octets)]


_INNOCENT: Final[dict[str, tuple[str, SentPieces]]] = {
    "plain-request": ("an ordinary request", _line(b"GET / HTTP/1.1")),
    "http-1.0": ("HTTP/1.0 with a Host field", _line(b"GET / HTTP/1.0")),
    "empty-line-first": ("an empty line first", _before(b"\r\n")),
    "line-feeds": ("lines that end with LF alone", _ends(b"\n")),
    "options": ("OPTIONS *", _line(b"OPTIONS * HTTP/1.1")),
    "octet-by-octet": ("a segment for each octet", lambda t: [bytes([octet]) for octet in request(t)]),
    "h2c-upgrade": (
        "a request that offers HTTP/2",
        lambda t: [
            b"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQA\r\n"
            b"Host: " + t.octets + b"\r\n\r\n"
        ],
    ),
    "websocket": (
        "a request that offers WebSocket",
        lambda t: [
            b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost: " + t.octets + b"\r\n\r\n"
        ],
    ),
    "absolute-form": ("a URL for the target", lambda t: [request(t, b"GET http://%b/ HTTP/1.1" % t.octets)]),
}

_ODD: Final[dict[str, tuple[str, SentPieces]]] = {
    "cr-first": ("CR first", _before(b"\r")),
    "cr-cr-lf-first": ("CR CR LF first", _before(b"\r\r\n")),
    "lf-cr-first": ("LF CR first", _before(b"\n\r")),
    "70k-of-empty-lines": ("70 KiB of empty lines first", _before(b"\r\n" * 35840)),
    "space-first": ("a space first", _before(b" ")),
    "tab-first": ("a tab first", _before(b"\t")),
    "space-line-first": ("a line with a space first", _before(b" \r\n")),
    "nul-first": ("a NUL first", _before(b"\0")),
    "bom-first": ("a byte order mark first", _before(b"\xef\xbb\xbf")),
    "form-feed-first": ("a form feed first", _before(b"\x0c")),
    "carriage-returns": ("lines that end with CR alone", _ends(b"\r")),
    "cr-cr-lf": ("lines that end with CR CR LF", _ends(b"\r\r\n")),
    "two-spaces": ("two spaces in the line", _line(b"GET  /  HTTP/1.1")),
    "tabs": ("tabs in the line", _line(b"GET\t/\tHTTP/1.1")),
    "tab-before-version": ("a tab before the version", _line(b"GET /\tHTTP/1.1")),
    "tab-after-method": ("a tab behind the method", _line(b"GET\t/ HTTP/1.1")),
    "vertical-tabs": ("vertical tabs in the line", _line(b"GET\x0b/\x0bHTTP/1.1")),
    "space-after-version": ("a space behind the version", _line(b"GET / HTTP/1.1 ")),
    "tab-after-version": ("a tab behind the version", _line(b"GET / HTTP/1.1\t")),
    "nul-after-version": ("a NUL behind the version", _line(b"GET / HTTP/1.1\0")),
    "version-1.10": ("HTTP/1.10", _line(b"GET / HTTP/1.10")),
    "version-01.1": ("HTTP/01.1", _line(b"GET / HTTP/01.1")),
    "version-1.01": ("HTTP/1.01", _line(b"GET / HTTP/1.01")),
    "version-1.": ("HTTP/1.", _line(b"GET / HTTP/1.")),
    "version-1": ("HTTP/1", _line(b"GET / HTTP/1")),
    "version-11": ("HTTP/11", _line(b"GET / HTTP/11")),
    "version-+1.1": ("HTTP/+1.1", _line(b"GET / HTTP/+1.1")),
    "version-1.2": ("HTTP/1.2", _line(b"GET / HTTP/1.2")),
    "version-1.9": ("HTTP/1.9", _line(b"GET / HTTP/1.9")),
    "version-2.0": ("HTTP/2.0 in the line", _line(b"GET / HTTP/2.0")),
    "version-3.0": ("HTTP/3.0 in the line", _line(b"GET / HTTP/3.0")),
    "version-0.9": ("HTTP/0.9 in the line", _line(b"GET / HTTP/0.9")),
    "lower-case-version": ("http/1.1", _line(b"GET / http/1.1")),
    "spaced-version": ("HTTP / 1.1", _line(b"GET / HTTP / 1.1")),
    "https-version": ("HTTPS/1.1", _line(b"GET / HTTPS/1.1")),
    "rtsp": ("RTSP/1.0", _line(b"GET / RTSP/1.0")),
    "sip": ("SIP/2.0", _line(b"GET / SIP/2.0")),
    "icy": ("ICY", _line(b"GET / ICY/1.0")),
    "no-version": ("no version, and fields", _line(b"GET /")),
    "lower-case-method": ("get", _line(b"get / HTTP/1.1")),
    "odd-method": ("a method with a slash", _line(b"G/T / HTTP/1.1")),
    "quoted-method": ("a method in quotes", _line(b'"GET" / HTTP/1.1')),
    "long-method": ("a method of 100 octets", _line(b"G" * 100 + b" / HTTP/1.1")),
    "no-target": ("no target", _line(b"GET HTTP/1.1")),
    "no-method": ("no method", _line(b"/ HTTP/1.1")),
    "cr-in-target": ("CR in the target", _line(b"GET /\r HTTP/1.1")),
    "nul-in-target": ("a NUL in the target", _line(b"GET /\0 HTTP/1.1")),
    "latin-1-target": ("a letter of Latin-1 in the target", _line(b"GET /\xe9 HTTP/1.1")),
    "long-target": ("a target of 70 KiB", _line(b"GET /" + b"a" * 71680 + b" HTTP/1.1")),
    "http-0.9": ("HTTP/0.9 with a URL", _http_09(b"GET http://NAME/\r\n")),
    "http-0.9-bare-lf": ("the same, ended by LF", _http_09(b"GET http://NAME/\n")),
    "http-0.9-tab": ("the same with a tab", _http_09(b"GET\thttp://NAME/\r\n")),
    "http-0.9-post": ("POST without a version", _http_09(b"POST http://NAME/\r\n\r\n")),
    "connect-to-server": ("CONNECT to a server that is no proxy", _http_09(b"CONNECT NAME:80 HTTP/1.1\r\n\r\n")),
    "bell-first": ("a control character first", _before(b"\x07")),
    "no-break-space-first": ("a no-break space first", _before(b"\xc2\xa0")),
    "vertical-tab-first": ("a vertical tab first", _before(b"\x0b")),
    "dot-first": ("a dot first", _before(b".")),
    "quote-first": ("a quote first", _before(b'"')),
    "two-empty-lines-first": ("two empty lines first", _before(b"\r\n\r\n")),
    "line-feed-first": ("a line feed first", _before(b"\n")),
    "many-line-feeds-first": ("a thousand line feeds first", _before(b"\n" * 1000)),
    "spaces-first": ("ten spaces first", _before(b" " * 10)),
    "space-and-line-first": ("an empty line and a space first", _before(b"\r\n ")),
    "comment-first": ("a line with a comment first", _before(b"# x\r\n")),
    "field-first": ("a field before the request line", _before(b"X: y\r\n")),
    "telnet-first": ("a command of Telnet first", _before(b"\xff\xfb\x1f")),
    "proxy-1-first": ("the PROXY protocol first", _before(b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 80\r\n")),
    "proxy-2-first": ("its second version first", _before(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")),
    "alert-first": ("a TLS alert first", _before(b"\x15\3\1\0\2\1\x70")),
    "status-line-first": ("a status line first", _before(b"HTTP/1.1 200 OK\r\n\r\n")),
    "three-spaces": ("three spaces before the version", _line(b"GET /   HTTP/1.1")),
    "cr-before-version": ("CR before the version", _line(b"GET / \rHTTP/1.1")),
    "no-space-before-version": ("no space before the version", _line(b"GET /HTTP/1.1")),
    "no-break-space": ("no-break spaces in the line", _line(b"GET\xa0/\xa0HTTP/1.1")),
    "form-feeds": ("form feeds in the line", _line(b"GET\x0c/\x0cHTTP/1.1")),
    "word-behind-version": ("a word behind the version", _line(b"GET / HTTP/1.1 x")),
    "two-versions": ("two versions", _line(b"GET / HTTP/1.1 HTTP/1.1")),
    "version-1,1": ("HTTP/1,1", _line(b"GET / HTTP/1,1")),
    "version-1.1.1": ("HTTP/1.1.1", _line(b"GET / HTTP/1.1.1")),
    "version-1.1a": ("HTTP/1.1a", _line(b"GET / HTTP/1.1a")),
    "version-0x1.1": ("HTTP/0x1.1", _line(b"GET / HTTP/0x1.1")),
    "version--1.1": ("HTTP/-1.1", _line(b"GET / HTTP/-1.1")),
    "version-10.1": ("HTTP/10.1", _line(b"GET / HTTP/10.1")),
    "version-1.00001": ("HTTP/1.00001", _line(b"GET / HTTP/1.00001")),
    "version-4294967297.1": ("a version that overflows", _line(b"GET / HTTP/4294967297.1")),
    "version-.1": ("HTTP/.1", _line(b"GET / HTTP/.1")),
    "version-empty": ("HTTP/ alone", _line(b"GET / HTTP/")),
    "version-word": ("HTTP alone", _line(b"GET / HTTP")),
    "mixed-case-version": ("HtTp/1.1", _line(b"GET / HtTp/1.1")),
    "backslash-version": ("HTTP\\1.1", _line(b"GET / HTTP\\1.1")),
    "shttp": ("Secure-HTTP/1.4", _line(b"SECURE * Secure-HTTP/1.4")),
    "shoutcast": ("SOURCE with ICE/1.0", _line(b"SOURCE /x ICE/1.0")),
    "webdav": ("PROPFIND", _line(b"PROPFIND / HTTP/1.1")),
    "query": ("QUERY", _line(b"QUERY / HTTP/1.1")),
    "unknown-method": ("a method that nobody knows", _line(b"FROBNICATE / HTTP/1.1")),
    "mixed-case-method": ("Get", _line(b"Get / HTTP/1.1")),
    "punctuated-method": ("a method of punctuation", _line(b"!#$%&'*+-.^_`|~ / HTTP/1.1")),
    "bracket-method": ("a method with a bracket", _line(b"GE[T / HTTP/1.1")),
    "nul-method": ("a NUL inside the method", _line(b"GE\0T / HTTP/1.1")),
    "utf-8-method": ("a method in UTF-8", _line("GÉT / HTTP/1.1".encode())),
    "method-1000": ("a method of 1,000 octets", _line(b"G" * 1000 + b" / HTTP/1.1")),
    "star-target": ("* for GET", _line(b"GET * HTTP/1.1")),
    "word-target": ("a target without a slash", _line(b"GET x HTTP/1.1")),
    "dot-target": ("a target with dots", _line(b"GET /../../ HTTP/1.1")),
    "nul-target": ("a NUL in the target", _line(b"GET /\0 HTTP/1.1")),
    "tab-target": ("a tab in the target", _line(b"GET /a\tb HTTP/1.1")),
    "space-target": ("a space in the target", _line(b"GET /a b HTTP/1.1")),
    "lf-cr": ("lines that end with LF CR", _ends(b"\n\r")),
    "lf-lf": ("lines that end with two LF", lambda t: [request(t).replace(b"\r\n", b"\n", 1)]),
    "next-lines": ("lines that end with NEL", _ends(b"\xc2\x85")),
    "http-0.9-word": ("HTTP/0.9 with a path", _http_09(b"GET /NAME\r\n")),
    "http-0.9-cr": ("HTTP/0.9 ended by CR", _http_09(b"GET http://NAME/\r")),
    "http-0.9-space": ("HTTP/0.9 with a space behind", _http_09(b"GET http://NAME/ \r\n")),
    "connect-lower-to-server": ("connect to a server", _http_09(b"connect NAME:80 HTTP/1.1\r\n\r\n")),
    "preface-line-feeds": ("the preface of HTTP/2 with LF", lambda t: [b"PRI * HTTP/2.0\n\nSM\n\n" + request(t)]),
    "preface-behind-line": (
        "the preface behind an empty line",
        lambda t: [b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + request(t)],
    ),
    "gopher": ("Gopher", _http_09(b"/NAME\r\n")),
    "gemini-in-the-clear": ("Gemini without TLS", _http_09(b"gemini://NAME/\r\n")),
    "frame-first": ("a frame of HTTP/2 first", _before(b"\0\0\0\4\0\0\0\0\0")),
    "brace-method": ("a method of 9,000 braces", _line(b"{" * 9000 + b" / HTTP/1.1")),
    "bracket-method-in-pieces": (
        "a method with a bracket, in three segments",
        lambda t: [b"GE[T ", b"/ HTT", request(t, b"P/1.1")],
    ),
    "bell-first-octet-by-octet": (
        "a control character first, a segment for each octet",
        lambda t: [bytes([octet]) for octet in b"\x07" + request(t)],
    ),
    "two-words": ("an unknown method, a target that is none, no version", _line(b"X #")),
    "own-version": ("a version of its own", _line(b"GET / FOO/1.0")),
    "own-version-star": ("the same with *", _line(b"OWN * FOO/1.0")),
    "own-version-scheme": ("the same with a scheme of its own", _line(b"OWN x+y://a/ FOO/1.0")),
    "connect-own-version": ("CONNECT with a target and a version that are none", _line(b"CONNECT x FOO/1.0")),
    "connect-own-version-in-pieces": (
        "the same, and the fields in a segment of their own",
        lambda t: [b"CONNECT x FOO/1.0\r\n", fields(t)],
    ),
    "encoded-slash": ("an encoded slash, and a version of its own", _line(b"GET %2f FOO/1.0")),
    "get-word": ("GET and a word, and fields", _line(b"get x")),
    "two-words-in-pieces": ("the same, and the fields in a segment of their own", lambda t: [b"X #\r\n", fields(t)]),
    "nul-target-octet-by-octet": (
        "an unknown method and a NUL in the target, without a version, by the octet",
        lambda t: [bytes([octet]) for octet in b"X /\0y\r\n" + fields(t)],
    ),
    "skipped-line": (
        "a line that is no field, behind a version of its own",
        lambda t: [b"GET %2f FOO/1.0\r\nfoo bar\r\n" + fields(t)],
    ),
    "skipped-lines-in-pieces": (
        "lines that are no fields behind two words, and the Host in a segment of its own",
        lambda t: [b"GET x\r\n", b"foo bar\r\nx\r\n", fields(t)],
    ),
    "skipped-line-ended-by-cr": (
        "the same, ended by CR",
        lambda t: [b"GET %2f FOO/1.0\r\nfoo bar\r" + fields(t)],
    ),
    "half-a-preface": ("PRI without what follows it", lambda t: [b"PRI * HTTP/2.0\r\n\r\n" + request(t)]),
}


def http2(
    stream: Stream,
    target: Target,
    *,
    extra: tuple[tuple[str, str], ...] = (),
    path: str = "/",
    authority: str = "NAME",
) -> ServerReply:
    """HTTP/2 with prior knowledge (RFC 9113 §3.3).

    NAME is the target's, CAPITALS the same in capitals, ENCODED with %2e for its first dot.
    """
    http = _client()
    http.initiate_connection()
    spellings = {"NAME": target.name, "CAPITALS": target.name.upper(), "ENCODED": target.name.replace(".", "%2e", 1)}
    named = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", path), *extra]
    return _exchange(
        http, 1, [(field, _WORD.sub(lambda found: spellings[found[0]], value)) for field, value in named], stream
    )


def upgraded(stream: Stream, target: Target) -> ServerReply:
    """A harmless request that offers HTTP/2 (RFC 7540 §3.2); where a server takes it, one for the target's name."""
    http = _client()
    settings = http.initiate_upgrade_connection()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: " + (settings or b"") + b"\r\n"
    try:
        stream.send(b"GET / HTTP/1.1\r\n" + offer + b"Host: " + HARMLESS + b"\r\n\r\n")
        said = stream.receive()
        if not said.startswith(b"HTTP/1.1 101"):
            return ServerReply(Result.REFUSED if said else Result.CLOSED, "the offer was not taken", said)
        http.receive_data(said.partition(b"\r\n\r\n")[2])
    except (OSError, h2.exceptions.ProtocolError):
        return ServerReply(Result.CLOSED)
    named = [(":method", "GET"), (":scheme", "http"), (":authority", target.name), (":path", "/")]
    return _exchange(http, 3, named, stream)


def _client() -> h2.connection.H2Connection:
    """A client that sends what it is told, even where HTTP/2 forbids it."""
    return h2.connection.H2Connection(
        h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    )


def _exchange(
    http: h2.connection.H2Connection, number: int, named: list[tuple[str, str]], stream: Stream
) -> ServerReply:
    """Send a request as HTTP/2 stream `number` with the pseudo-fields and fields `named`; the server's reply to it."""
    http.send_headers(number, named, end_stream=True)
    said, status = b"", b""
    try:
        while True:
            stream.send(http.data_to_send())
            data = stream.receive()
            if not data:
                break
            said += data
            for event in http.receive_data(data):
                if getattr(event, "stream_id", number) not in (0, number):
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers or []).get(b":status", b"")
                if isinstance(event, h2.events.StreamEnded):
                    return judge(b"HTTP/2 " + status + b"\r\n\r\n" + said)
                if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    return ServerReply(Result.REFUSED, "HTTP/2 ended it", said)
    except h2.exceptions.ProtocolError:
        return judge(said)
    except OSError as error:
        return broken(error)
    return judge(said) if said.startswith(b"HTTP/") else ServerReply(Result.CLOSED, "", said)


_UNREAD: Final = frozenset({"comment-first", "field-first", "status-line-first", "gopher", "gemini-in-the-clear"})
"""What no server that is known takes for a request."""


_attempt = partial(Attempt, family=Family.HTTP_HEADS, opens=Opens.HTTP)


def attempts() -> Iterator[Attempt]:
    """Attempts by the form of a request's head."""
    for name, (what, pieces) in _INNOCENT.items():
        yield _attempt(name, what, partial(asked, pieces), innocent=name != "absolute-form")
    for name, (what, pieces) in _ODD.items():
        yield _attempt(name, what, partial(asked, pieces), limit=Limit.OTHER_BYTES if name in _UNREAD else None)
    yield _attempt("http2", "HTTP/2 with prior knowledge", http2, innocent=True, is_http2=True)
    yield _attempt("h2c-smuggled", "HTTP/2 inside a harmless connection that was upgraded", upgraded)
