"""Plain HTTP in raw octets: requests and answers that clients and servers of the internet send, well-formed and not.

`{t}` stands for what an explicit client puts before a path, `{h}` for the origin's name and port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class HttpCase:
    """A client's octets and a server's.

    `sends`: in pieces, each but the first once the server has answered something. `answers`: one for each request.
    `sizes`: 1 for a request in single octets, -1 for such an answer. `ends`: the server ends the connection behind its
    answers. `early`: it answers at the head, without the body. `first`: it speaks before any request. `tunnel`: what
    follows a 101, said back. `half_close`: the client ends its direction behind its octets.
    """

    name: str
    sends: tuple[bytes, ...]
    answers: tuple[bytes, ...]
    sizes: int = 0
    ends: bool = True
    early: bool = False
    first: bool = False
    tunnel: bytes = b""
    half_close: bool = False


def ask(
    target: bytes = b"/",
    *fields: bytes,
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
    body: bytes = b"",
    host: bytes = b"Host: {h}",
) -> bytes:
    """A request."""
    lines = [method + b" {t}" + target + b" " + version, *([host] if host else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(body: bytes, *fields: bytes, method: bytes = b"POST") -> bytes:
    """A request with a body, framed by its length unless a field frames it."""
    framed = any(field.lower().startswith((b"content-length", b"transfer-encoding")) for field in fields)
    return ask(b"/form", *fields, *(() if framed else (b"Content-Length: %d" % len(body),)), method=method, body=body)


def say(
    body: bytes = b"answer\n",
    *fields: bytes,
    status: bytes = b"200 OK",
    version: bytes = b"HTTP/1.1",
    length: bool = True,
) -> bytes:
    """An answer."""
    lines = [version + b" " + status, *fields, *((b"Content-Length: %d" % len(body),) if length else ())]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


OK: Final = say()
CHUNKED: Final = b"Transfer-Encoding: chunked"
CHUNKS: Final = b"4\r\nansw\r\n3\r\ner\n\r\n0\r\n\r\n"
CLOSE: Final = b"Connection: close"


def chunked(body: bytes = CHUNKS, *fields: bytes) -> bytes:
    """An answer in chunks."""
    return say(body, CHUNKED, *fields, length=False)


_METHODS = "HEAD POST PUT DELETE OPTIONS PATCH TRACE PROPFIND MKCOL REPORT QUERY M-SEARCH get Get PURGE X" + "y" * 30
_TARGETS: Final = {
    "query": b"/a?b=c&d=e",
    "empty query": b"/a?",
    "two question marks": b"/a?b?c",
    "encoded dots": b"/%2e%2e/a",
    "dots": b"/a/../b/./c",
    "double slash inside": b"/a//b",
    "double slash at the start": b"//a/b",
    "parameters": b"/a;b=c",
    "fragment": b"/a#b",
    "raw utf-8": "/grüße/日本".encode(),
    "raw latin-1": b"/gr\xfc\xdfe",
    "encoded utf-8": b"/gr%C3%BC%C3%9Fe",
    "space inside": b"/a b",
    "braces and pipe": b"/{a}|[b]^`",
    "quotes": b'/"a"<b>',
    "backslash inside": b"/a\\b",
    "encoded nul": b"/a%00b",
    "bad percent": b"/a%zz%",
    "colon and at": b"/a:b@c",
    "url inside": b"/proxy/http://www.example.net/a",
    "8 KiB": b"/" + b"a" * 8_000,
    "32 KiB": b"/" + b"a" * 32_000,
    "one letter": b"/x",
}
_FIELDS: Final = {
    "empty value": (b"X-Case:",),
    "no space behind the colon": (b"X-Case:value",),
    "tab behind the colon": (b"X-Case:\tvalue",),
    "spaces behind the value": (b"X-Case: value   ",),
    "space before the colon": (b"X-Case : value",),
    "no colon": (b"X-Case",),
    "no name": (b": value",),
    "folded": (b"X-Case: one", b" two"),
    "folded by a tab": (b"X-Case: one", b"\ttwo"),
    "lower case": (b"x-case: value",),
    "latin-1": (b"X-Case: gr\xfc\xdfe",),
    "utf-8": ("X-Case: grüße".encode(),),
    "odd name": (b"X-Case_1!#$%&'*+-.^`|~: value",),
    "space in a name": (b"X Case: value",),
    "control octet": (b"X-Case: a\x01b",),
    "a hundred": tuple(b"X-Case-%d: value" % number for number in range(100)),
    "a thousand": tuple(b"X-Case-%d: v" % number for number in range(1_000)),
    "the same twice": (b"X-Case: one", b"X-Case: two"),
    "two cookies": (b"Cookie: a=b", b"Cookie: c=d"),
    "8 KiB": (b"X-Case: " + b"a" * 8_000,),
    "32 KiB": (b"X-Case: " + b"a" * 32_000,),
    "range": (b"Range: bytes=0-3",),
    "te trailers": (b"TE: trailers",),
    "connection lists a field": (b"Connection: keep-alive, X-Hop", b"X-Hop: value"),
    "max-forwards": (b"Max-Forwards: 3",),
    "upgrade that is not taken": (b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    "authorization": (b"Authorization: Basic dXNlcjpwYXNz",),
    "same host twice": (b"Host: {h}",),
    "length 0": (b"Content-Length: 0",),
}
_HOSTS: Final = {
    "upper case": b"HOST: {H}",
    "no space": b"Host:{h}",
    "missing": b"",
    "empty": b"Host:",
    "behind others": b"X-Case: first\r\nHost: {h}",
}
_BODIES: Final = {
    "of 5": post(b"hello"),
    "of 1 MiB": post(b"a" * (1 << 20)),
    "of GET": post(b"hello", method=b"GET"),
    "of DELETE": post(b"hello", method=b"DELETE"),
    "like a request": post(b"GET / HTTP/1.1\r\nHost: www.example.net\r\n\r\n"),
    "like an access log": post(
        b'192.0.2.1 - - "GET http://www.example.net/ HTTP/1.1" 200\n', b"Content-Type: text/plain"
    ),
    "like TLS": post(bytes.fromhex("160301020001000200")),
    "same length twice": post(b"hello", b"Content-Length: 5", b"Content-Length: 5"),
    "list of lengths": post(b"hello", b"Content-Length: 5, 5"),
    "zeros before the length": post(b"hello", b"Content-Length: 0005"),
    "plus before the length": post(b"hello", b"Content-Length: +5"),
    "no length": ask(b"/form", method=b"POST"),
    "chunked": post(b"5\r\nhello\r\n0\r\n\r\n", CHUNKED),
    "chunked in capitals": post(b"5\r\nhello\r\n0\r\n\r\n", b"TRANSFER-ENCODING: CHUNKED"),
    "chunk extensions": post(b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n', CHUNKED),
    "space behind a chunk's size": post(b"5 \r\nhello\r\n0\r\n\r\n", CHUNKED),
    "zeros before a chunk's size": post(b"0005\r\nhello\r\n000\r\n\r\n", CHUNKED),
    "hexadecimal sizes": post(b"A\r\nhellohello\r\na\r\nhellohello\r\n0\r\n\r\n", CHUNKED),
    "trailers": post(b"5\r\nhello\r\n0\r\nX-Case-Trailer: value\r\n\r\n", CHUNKED, b"Trailer: X-Case-Trailer"),
    "a thousand chunks": post(b"1\r\na\r\n" * 1_000 + b"0\r\n\r\n", CHUNKED),
    "identity": post(b"hello", b"Transfer-Encoding: identity", b"Content-Length: 5"),
    "gzip, chunked": post(b"5\r\nhello\r\n0\r\n\r\n", b"Transfer-Encoding: gzip, chunked"),
    "length and chunked": post(b"5\r\nhello\r\n0\r\n\r\n", b"Content-Length: 15", CHUNKED),
    "bad chunk size": post(b"x\r\nhello\r\n0\r\n\r\n", CHUNKED),
    "bare line feeds in chunks": post(b"5\nhello\n0\n\n", CHUNKED),
}
_STATUSES: Final = (
    b"201 Created",
    b"206 Partial Content",
    b"299 Odd",
    b"301 Moved Permanently",
    b"400 Bad Request",
    b"401 No",
)
_STATUSES_MORE: Final = (
    b"407 Proxy",
    b"418 Teapot",
    b"451 Legal",
    b"500 Error",
    b"511 Network",
    b"599 Odd",
    b"600 x",
    b"999 x",
)
_ANSWERS: Final = {
    **{f"status {status.decode()}": say(status=status) for status in _STATUSES + _STATUSES_MORE},
    "no reason, with a space": say(status=b"200 "),
    "no reason, no space": b"HTTP/1.1 200\r\nContent-Length: 7\r\n\r\nanswer\n",
    "reason in latin-1": say(status=b"200 gr\xfc\xdfe"),
    "204": say(b"", status=b"204 No Content", length=False),
    "204 with a length": say(b"", status=b"204 No Content"),
    "205": say(b"", status=b"205 Reset Content"),
    "304": say(b"", b'ETag: "a"', status=b"304 Not Modified", length=False),
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    "length 0": say(b""),
    "chunked": chunked(),
    "chunk extensions": chunked(b"7;a=b\r\nanswer\n\r\n0;c\r\n\r\n"),
    "space behind a chunk's size": chunked(b"7  \r\nanswer\n\r\n0\r\n\r\n"),
    "zeros before a chunk's size": chunked(b"00000007\r\nanswer\n\r\n0000\r\n\r\n"),
    "trailers": chunked(b"7\r\nanswer\n\r\n0\r\nX-Case-Trailer: value\r\n\r\n", b"Trailer: X-Case-Trailer"),
    "chunked in capitals": say(CHUNKS, b"Transfer-Encoding: Chunked", length=False),
    "bad chunk size": chunked(b"7x\r\nanswer\n\r\n0\r\n\r\n"),
    "no last chunk": chunked(b"7\r\nanswer\n\r\n"),
    "to the end": say(length=False),
    "1.0 to the end": say(version=b"HTTP/1.0", length=False),
    "1.0 with a length": say(version=b"HTTP/1.0"),
    "1.0 that stays": say(b"answer\n", b"Connection: keep-alive", version=b"HTTP/1.0"),
    "version 1.2": say(version=b"HTTP/1.2"),
    "version in lower case": say(version=b"http/1.1"),
    "ICY": b"ICY 200 OK\r\nicy-name: radio\r\n\r\nmusic",
    "0.9": b"<html>of old</html>",
    "empty line first": b"\r\n" + OK,
    "identity": say(b"answer\n", b"Transfer-Encoding: identity"),
    "gzip, chunked": say(CHUNKS, b"Transfer-Encoding: gzip, chunked", length=False),
    "same length twice": say(b"answer\n", b"Content-Length: 7"),
    "list of lengths": say(b"answer\n", b"Content-Length: 7, 7", length=False),
    "length and chunked": say(CHUNKS, CHUNKED, b"Content-Length: 7", length=False),
    "less than its length": say(b"answer\n", b"Content-Length: 20", length=False),
    "more than its length": say(b"answer\n", b"Content-Length: 4", length=False),
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "102 first": b"HTTP/1.1 102 Processing\r\n\r\n" + OK,
    "103 first": b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" + OK,
    "103 twice": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + OK,
    "bare line feeds": OK.replace(b"\r\n", b"\n"),
    "folded field": say(b"answer\n", b"X-Case: one", b"  two"),
    "field without a colon": say(b"answer\n", b"X-Case"),
    "space before a colon": say(b"answer\n", b"X-Case : value"),
    "field without a name": say(b"answer\n", b": value"),
    "field in latin-1": say(b"answer\n", b"X-Case: gr\xfc\xdfe"),
    "field in utf-8": say(b"answer\n", "X-Case: grüße".encode()),
    "control octet in a field": say(b"answer\n", b"X-Case: a\x01b"),
    "30 cookies": say(b"answer\n", *(b"Set-Cookie: c%d=v" % number for number in range(30))),
    "300 fields": say(b"answer\n", *(b"X-Case-%d: v" % number for number in range(300))),
    "head of 16 KiB": say(b"answer\n", b"X-Case: " + b"a" * 16_000),
    "head of 64 KiB": say(b"answer\n", b"X-Case: " + b"a" * 64_000),
    "head of 200 KiB": say(b"answer\n", b"X-Case: " + b"a" * 200_000),
    "head of 300 KiB": say(b"answer\n", b"X-Case: " + b"a" * 300_000),
    "gzip": say(bytes.fromhex("1f8b08000000000000034bcc2b2e4f2de2020046a1a11307000000"), b"Content-Encoding: gzip"),
    "odd coding": say(b"answer\n", b"Content-Encoding: x-odd"),
    "1 MiB": say(b"a" * (1 << 20)),
    "connection: close": say(b"answer\n", CLOSE),
    "upgrade offered": say(b"answer\n", b"Connection: Upgrade", b"Upgrade: h2,h2c"),
    "NTLM": say(b"", b"WWW-Authenticate: NTLM", status=b"401 Unauthorized"),
    "proxy's authentication": say(
        b"", b"Proxy-Authenticate: Basic realm=a", status=b"407 Proxy Authentication Required"
    ),
}
_KEPT: Final = say(b"one\n")
_UPGRADE: Final = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
_SWITCH: Final = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"
_ACCEPT: Final = b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n"
_EXPECT: Final = ask(b"/form", b"Expect: 100-continue", b"Content-Length: 5", method=b"POST")

HTTP_CASES: Final = (
    HttpCase("GET", (ask(),), (OK,)),
    *(
        HttpCase(f"method {name}", (ask(method=name.encode()),), ((say(b"") if name != "HEAD" else OK[:-7]),))
        for name in _METHODS.split()
    ),
    HttpCase("HEAD of chunks", (ask(method=b"HEAD"),), (chunked(b""),)),
    HttpCase("OPTIONS *", (b"OPTIONS * HTTP/1.1\r\nHost: {h}\r\n\r\n",), (OK,)),
    HttpCase("absolute form", (b"GET http://{h}/a HTTP/1.1\r\nHost: {h}\r\n\r\n",), (OK,)),
    *(HttpCase(f"target: {name}", (ask(target),), (OK,)) for name, target in _TARGETS.items()),
    *(HttpCase(f"field: {name}", (ask(b"/", *fields),), (OK,)) for name, fields in _FIELDS.items()),
    *(HttpCase(f"host: {name}", (ask(host=host),), (OK,)) for name, host in _HOSTS.items()),
    *(HttpCase(f"body: {name}", (request,), (OK,)) for name, request in _BODIES.items()),
    *(HttpCase(f"answer: {name}", (ask(),), (answer,)) for name, answer in _ANSWERS.items()),
    HttpCase("empty line before the request", (b"\r\n" + ask(),), (OK,)),
    HttpCase("request in line feeds", (ask().replace(b"\r\n", b"\n"),), (OK,)),
    HttpCase("request in octets", (ask(),), (OK,), sizes=1),
    HttpCase("answer in octets", (ask(),), (OK,), sizes=-1),
    HttpCase("half-close behind the request", (ask(),), (OK,), half_close=True),
    HttpCase("request 1.0", (ask(version=b"HTTP/1.0"),), (OK,)),
    HttpCase("request 1.0 without a host", (ask(version=b"HTTP/1.0", host=b""),), (OK,)),
    HttpCase("request 1.0 that stays", (ask(b"/", b"Connection: keep-alive", version=b"HTTP/1.0"),), (OK,)),
    HttpCase("request 1.2", (ask(version=b"HTTP/1.2"),), (OK,)),
    HttpCase("request 0.9", (b"GET {t}/\r\n",), (b"<html>of old</html>",)),
    HttpCase("version in lower case", (ask(version=b"http/1.1"),), (OK,)),
    HttpCase("two spaces in the request line", (b"GET  {t}/  HTTP/1.1\r\nHost: {h}\r\n\r\n",), (OK,)),
    HttpCase("three in turn", (ask(b"/1"), ask(b"/2"), ask(b"/3")), (_KEPT, chunked(), OK), ends=False),
    HttpCase("two pipelined", (ask(b"/1") + ask(b"/2"),), (_KEPT, OK), ends=False),
    HttpCase("twenty pipelined", (b"".join(ask(b"/%d" % n) for n in range(20)),), (_KEPT,) * 20, ends=False),
    HttpCase("POST and GET pipelined", (post(b"hello") + ask(b"/2"),), (_KEPT, OK), ends=False),
    HttpCase("GET behind 204", (ask(b"/1"), ask(b"/2")), (say(b"", status=b"204 x", length=False), OK), ends=False),
    HttpCase("GET behind 304", (ask(b"/1"), ask(b"/2")), (say(b"", status=b"304 x", length=False), OK), ends=False),
    HttpCase("GET behind HEAD", (ask(method=b"HEAD"), ask(b"/2")), (OK[:-7], OK), ends=False),
    HttpCase("line feeds behind a body", (post(b"hello") + b"\r\n" + ask(b"/2"),), (_KEPT, OK), ends=False),
    HttpCase("expect 100", (_EXPECT, b"hello"), (OK,)),
    HttpCase("expect 100, refused", (_EXPECT,), (say(status=b"417 Expectation Failed"),), early=True),
    HttpCase("expect 100, not waited for", (_EXPECT + b"hello",), (OK,)),
    HttpCase("expect something else", (ask(b"/", b"Expect: x-odd"),), (say(status=b"417 No"),)),
    HttpCase("answer before the body", (post(b"a" * (1 << 20)),), (say(status=b"413 Too Large"),), early=True),
    HttpCase("answer before the request", (ask(),), (say(b"", CLOSE, status=b"408 Request Timeout"),), first=True),
    HttpCase(
        "WebSocket",
        (ask(b"/", *_UPGRADE),),
        (_SWITCH % b"websocket" + _ACCEPT + b"\r\n",),
        tunnel=b"\x81\x85abcd\t\a\x0f\b\x0e",
    ),
    HttpCase("WebSocket, refused", (ask(b"/", *_UPGRADE),), (say(status=b"403 Forbidden"),)),
    HttpCase(
        "upgrade to another protocol",
        (ask(b"/", b"Connection: upgrade", b"Upgrade: x-odd"),),
        (_SWITCH % b"x-odd" + b"\r\n",),
        tunnel=b"\x00odd words",
    ),
    HttpCase(
        "upgrade of a POST",
        (ask(b"/", b"Connection: Upgrade", b"Upgrade: tcp", b"Content-Length: 0", method=b"POST"),),
        (_SWITCH % b"tcp" + b"\r\n",),
        tunnel=b"docker attach",
    ),
)
"""Names are unique; 120 cases and more."""
