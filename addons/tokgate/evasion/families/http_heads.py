"""Plain HTTP whose first octets a strict reader doesn't take for HTTP, and a lenient server does."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from tokgate.evasion.attempt import (
    Attempt,
    Family,
    Limit,
    Opens,
    SentPieces,
    ServerReply,
    Stream,
    Target,
    filled,
    send_all,
)
from tokgate.evasion.replies import read_page


def asked(pieces: SentPieces, stream: Stream, target: Target, *, wanted: int = 1) -> ServerReply:
    """Send the pieces, and read the page; `wanted`: which of several."""
    send_all(stream, pieces(target))
    return read_page(stream.receive, wanted)


FIELDS: Final = b"Host: NAME\r\nConnection: close\r\n\r\n"
REQUEST: Final = b"GET / HTTP/1.1\r\n" + FIELDS
"""The head of a request for the target, without a body."""


def _line(line: bytes) -> SentPieces:
    return filled(line + b"\r\n" + FIELDS)


def _ends(end: bytes) -> SentPieces:
    return filled(REQUEST.replace(b"\r\n", end))


def by_octet(form: bytes) -> SentPieces:
    """A segment for each octet."""
    return lambda target: [bytes((octet,)) for octet in target.fill(form)]


_INNOCENT: Final[dict[str, tuple[str, SentPieces]]] = {
    "plain-request": ("an ordinary request", _line(b"GET / HTTP/1.1")),
    "http-1.0": ("HTTP/1.0 with a Host field", _line(b"GET / HTTP/1.0")),
    "empty-line-first": ("an empty line first", filled(b"\r\n" + REQUEST)),
    "line-feeds": ("lines that end with LF alone", _ends(b"\n")),
    "options": ("OPTIONS *", _line(b"OPTIONS * HTTP/1.1")),
    "octet-by-octet": ("a segment for each octet", by_octet(REQUEST)),
    "h2c-upgrade": (
        "a request that offers HTTP/2",
        filled(
            b"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQA\r\n"
            b"Host: NAME\r\n\r\n"
        ),
    ),
    "websocket": (
        "a request that offers WebSocket",
        filled(
            b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost: NAME\r\n\r\n"
        ),
    ),
    "absolute-form": ("a URL for the target", _line(b"GET http://NAME/ HTTP/1.1")),
}

_ODD: Final[dict[str, tuple[str, SentPieces]]] = {
    "cr-first": ("CR first", filled(b"\r" + REQUEST)),
    "cr-cr-lf-first": ("CR CR LF first", filled(b"\r\r\n" + REQUEST)),
    "lf-cr-first": ("LF CR first", filled(b"\n\r" + REQUEST)),
    "70k-of-empty-lines": ("70 KiB of empty lines first", filled(b"\r\n" * 35840 + REQUEST)),
    "space-first": ("a space first", filled(b" " + REQUEST)),
    "space-line-first": ("a line with a space first", filled(b" \r\n" + REQUEST)),
    "nul-first": ("a NUL first", filled(b"\0" + REQUEST)),
    "bom-first": ("a byte order mark first", filled(b"\xef\xbb\xbf" + REQUEST)),
    "carriage-returns": ("lines that end with CR alone", _ends(b"\r")),
    "cr-cr-lf": ("lines that end with CR CR LF", _ends(b"\r\r\n")),
    "two-spaces": ("two spaces in the line", _line(b"GET  /  HTTP/1.1")),
    "tabs": ("tabs in the line", _line(b"GET\t/\tHTTP/1.1")),
    "tab-after-method": ("a tab behind the method", _line(b"GET\t/ HTTP/1.1")),
    "space-after-version": ("a space behind the version", _line(b"GET / HTTP/1.1 ")),
    "tab-after-version": ("a tab behind the version", _line(b"GET / HTTP/1.1\t")),
    "nul-after-version": ("a NUL behind the version", _line(b"GET / HTTP/1.1\0")),
    "version-1.10": ("HTTP/1.10", _line(b"GET / HTTP/1.10")),
    "version-01.1": ("HTTP/01.1", _line(b"GET / HTTP/01.1")),
    "version-1.01": ("HTTP/1.01", _line(b"GET / HTTP/1.01")),
    "version-11": ("HTTP/11", _line(b"GET / HTTP/11")),
    "version-+1.1": ("HTTP/+1.1", _line(b"GET / HTTP/+1.1")),
    "version-2.0": ("HTTP/2.0 in the line", _line(b"GET / HTTP/2.0")),
    "version-0.9": ("HTTP/0.9 in the line", _line(b"GET / HTTP/0.9")),
    "lower-case-version": ("http/1.1", _line(b"GET / http/1.1")),
    "https-version": ("HTTPS/1.1", _line(b"GET / HTTPS/1.1")),
    "rtsp": ("RTSP/1.0", _line(b"GET / RTSP/1.0")),
    "no-version": ("no version, and fields", _line(b"GET /")),
    "lower-case-method": ("get", _line(b"get / HTTP/1.1")),
    "long-method": ("a method of 100 octets", _line(b"G" * 100 + b" / HTTP/1.1")),
    "no-target": ("no target", _line(b"GET HTTP/1.1")),
    "no-method": ("no method", _line(b"/ HTTP/1.1")),
    "cr-in-target": ("CR in the target", _line(b"GET /\r HTTP/1.1")),
    "nul-in-target": ("a NUL in the target", _line(b"GET /\0 HTTP/1.1")),
    "latin-1-target": ("a letter of Latin-1 in the target", _line(b"GET /\xe9 HTTP/1.1")),
    "long-target": ("a target of 70 KiB", _line(b"GET /" + b"a" * 71680 + b" HTTP/1.1")),
    "http-0.9": ("HTTP/0.9 with a URL", filled(b"GET http://NAME/\r\n")),
    "http-0.9-tab": ("the same with a tab", filled(b"GET\thttp://NAME/\r\n")),
    "http-0.9-post": ("POST without a version", filled(b"POST http://NAME/\r\n\r\n")),
    "connect-to-server": ("CONNECT to a server that is no proxy", filled(b"CONNECT NAME:80 HTTP/1.1\r\n\r\n")),
    "bell-first": ("a control character first", filled(b"\x07" + REQUEST)),
    "no-break-space-first": ("a no-break space first", filled(b"\xc2\xa0" + REQUEST)),
    "dot-first": ("a dot first", filled(b"." + REQUEST)),
    "two-empty-lines-first": ("two empty lines first", filled(b"\r\n\r\n" + REQUEST)),
    "line-feed-first": ("a line feed first", filled(b"\n" + REQUEST)),
    "many-line-feeds-first": ("a thousand line feeds first", filled(b"\n" * 1000 + REQUEST)),
    "comment-first": ("a line with a comment first", filled(b"# x\r\n" + REQUEST)),
    "field-first": ("a field before the request line", filled(b"X: y\r\n" + REQUEST)),
    "telnet-first": ("a command of Telnet first", filled(b"\xff\xfb\x1f" + REQUEST)),
    "proxy-1-first": ("the PROXY protocol first", filled(b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 80\r\n" + REQUEST)),
    "proxy-2-first": ("its second version first", filled(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0" + REQUEST)),
    "alert-first": ("a TLS alert first", filled(b"\x15\3\1\0\2\1\x70" + REQUEST)),
    "status-line-first": ("a status line first", filled(b"HTTP/1.1 200 OK\r\n\r\n" + REQUEST)),
    "no-space-before-version": ("no space before the version", _line(b"GET /HTTP/1.1")),
    "no-break-space": ("no-break spaces in the line", _line(b"GET\xa0/\xa0HTTP/1.1")),
    "word-behind-version": ("a word behind the version", _line(b"GET / HTTP/1.1 x")),
    "two-versions": ("two versions", _line(b"GET / HTTP/1.1 HTTP/1.1")),
    "version-4294967297.1": ("a version that overflows", _line(b"GET / HTTP/4294967297.1")),
    "version-word": ("HTTP alone", _line(b"GET / HTTP")),
    "shttp": ("Secure-HTTP/1.4", _line(b"SECURE * Secure-HTTP/1.4")),
    "shoutcast": ("SOURCE with ICE/1.0", _line(b"SOURCE /x ICE/1.0")),
    "webdav": ("PROPFIND", _line(b"PROPFIND / HTTP/1.1")),
    "unknown-method": ("a method that nobody knows", _line(b"FROBNICATE / HTTP/1.1")),
    "bracket-method": ("a method with a bracket", _line(b"GE[T / HTTP/1.1")),
    "utf-8-method": ("a method in UTF-8", _line("GÉT / HTTP/1.1".encode())),
    "star-target": ("* for GET", _line(b"GET * HTTP/1.1")),
    "word-target": ("a target without a slash", _line(b"GET x HTTP/1.1")),
    "dot-target": ("a target with dots", _line(b"GET /../../ HTTP/1.1")),
    "tab-target": ("a tab in the target", _line(b"GET /a\tb HTTP/1.1")),
    "space-target": ("a space in the target", _line(b"GET /a b HTTP/1.1")),
    "lf-cr": ("lines that end with LF CR", _ends(b"\n\r")),
    "next-lines": ("lines that end with NEL", _ends(b"\xc2\x85")),
    "http-0.9-word": ("HTTP/0.9 with a path", filled(b"GET /NAME\r\n")),
    "http-0.9-cr": ("HTTP/0.9 ended by CR", filled(b"GET http://NAME/\r")),
    "http-0.9-space": ("HTTP/0.9 with a space behind", filled(b"GET http://NAME/ \r\n")),
    "connect-lower-to-server": ("connect to a server", filled(b"connect NAME:80 HTTP/1.1\r\n\r\n")),
    "preface-line-feeds": ("the preface of HTTP/2 with LF", filled(b"PRI * HTTP/2.0\n\nSM\n\n" + REQUEST)),
    "preface-behind-line": ("the preface behind a line", filled(b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + REQUEST)),
    "gopher": ("Gopher", filled(b"/NAME\r\n")),
    "gemini-in-the-clear": ("Gemini without TLS", filled(b"gemini://NAME/\r\n")),
    "frame-first": ("a frame of HTTP/2 first", filled(b"\0\0\0\4\0\0\0\0\0" + REQUEST)),
    "brace-method": ("a method of 9,000 braces", _line(b"{" * 9000 + b" / HTTP/1.1")),
    "bracket-method-in-pieces": ("a bracketed method in segments", filled(b"GE[T ", b"/ HTT", b"P/1.1\r\n" + FIELDS)),
    "bell-first-octet-by-octet": ("a control character first, a segment for each octet", by_octet(b"\x07" + REQUEST)),
    "two-words": ("an unknown method, a target that is none, no version", _line(b"X #")),
    "own-version": ("a version of its own", _line(b"GET / FOO/1.0")),
    "connect-own-version": ("CONNECT with a target and a version that are none", _line(b"CONNECT x FOO/1.0")),
    "connect-own-version-in-pieces": (
        "the same, and the fields in a segment",
        filled(b"CONNECT x FOO/1.0\r\n", FIELDS),
    ),
    "encoded-slash": ("an encoded slash, and a version of its own", _line(b"GET %2f FOO/1.0")),
    "get-word": ("GET and a word, and fields", _line(b"get x")),
    "two-words-in-pieces": ("the same, and the fields in a segment of their own", filled(b"X #\r\n", FIELDS)),
    "nul-target-octet-by-octet": (
        "an unknown method and a NUL in the target, without a version, by the octet",
        by_octet(b"X /\0y\r\n" + FIELDS),
    ),
    "skipped-line": ("a line that is no field, behind a version of its own", _line(b"GET %2f FOO/1.0\r\nfoo bar")),
    "skipped-lines-in-pieces": (
        "lines that are no fields behind two words, and the Host in a segment of its own",
        filled(b"GET x\r\n", b"foo bar\r\nx\r\n", FIELDS),
    ),
    "half-a-preface": ("PRI without what follows it", filled(b"PRI * HTTP/2.0\r\n\r\n" + REQUEST)),
}


_UNREAD: Final = frozenset({"comment-first", "field-first", "status-line-first", "gopher", "gemini-in-the-clear"})
"""What no server that is known takes for a request."""


def attempts() -> Iterator[Attempt]:
    """Attempts by the form of a request's head."""
    attempt = partial(Attempt, family=Family.HTTP_HEADS, opens=Opens.HTTP)
    for name, (what, pieces) in _INNOCENT.items():
        yield attempt(name, what, partial(asked, pieces), innocent=name != "absolute-form")
    for name, (what, pieces) in _ODD.items():
        yield attempt(name, what, partial(asked, pieces), limit=Limit.OTHER_BYTES if name in _UNREAD else None)
