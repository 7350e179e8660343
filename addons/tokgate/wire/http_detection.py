"""Tells from its first line whether a connection speaks HTTP, and whether everybody would read that line alike.

A request line by the book (RFC 9112 §3) is read by mitmproxy as any server reads it. What only some servers take for a
request is told apart: passed on unread it would be served. Each row was served by the servers named, or by one of them
(nginx 1.26, HAProxy 3.0, Caddy 2.6 = Go 1.19, Node 20, Python 3.11's http.server):

| first line                                                      | served by                     |
|-----------------------------------------------------------------|-------------------------------|
| CR, LF CR, CR CR LF before it                                   | nginx, Node                   |
| 70 KiB of empty lines before it                                 | nginx, Node                   |
| spaces, tabs, VT, FF, 0x1c-0x1f, 0x85, 0xa0 before it           | Python                        |
| the same between method, target and version                     | Python; tab: HAProxy too      |
| several spaces between them                                     | nginx, HAProxy, Node, Python  |
| a space at its end                                              | nginx, Python                 |
| `HTTP/1.10`, `HTTP/1.01` (`HTTP/01.1`: Python alone)            | nginx, Python                 |
| `RTSP/1.0`, `ICE/1.0`; `DESCRIBE` and others of RTSP            | Node                          |
| no version, as in HTTP/0.9: `GET /`, `GET http://host/`         | nginx, Node, Python           |
| the same with `POST`, `HEAD`, `OPTIONS`                         | Node                          |
| `GET HTTP/1.1`                                                  | Python                        |
| any version behind `/`, `*` or a URL: `GET / FOO/1.0`           | HAProxy                       |
| a method of 5,000 letters                                       | HAProxy                       |
| a target of 70 KiB                                              | Caddy                         |

And of lines that no server would serve as they stand, some still may with what follows (`UnreadLine`):

| any octets for a method, and a version (`GE[T / HTTP/1.1`)      | wsgiref, Werkzeug, gevent, Cheroot |
| a token and any target, no version, and fields or an empty line | Waitress; `GET`: Python            |
| `CONNECT` with any target and version, and the same             | HAProxy                            |
| `GET %2f` with any version, and the same behind any lines       | mini_httpd                         |

So that Redis (`GET x`), NATS (`CONNECT {…}`) and SIP (`OPTIONS sip:… SIP/2.0`) pass.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_LINE: Final = 65536
"""Octets within which the first line has to end."""
MAX_EMPTY: Final = 256
"""Octets of empty lines before a request that are taken for an accident (RFC 9112 §2.2)."""
_LONGEST_METHOD: Final = 32
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""How HTTP/2 with prior knowledge begins (RFC 9113 §3.4)."""
_PROXY_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""The PROXY protocol's signature, https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt: a request may follow."""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110 §5.6.2
_BLANK: Final = rb"\t-\r\x1c-\x20\x85\xa0"  # what Python's str.split takes for white space, in Latin-1
_IN_LINE: Final = rb"\t\v-\r\x1c-\x20\x85\xa0"  # the same but for LF
_BLANK_OCTETS: Final = b"\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0"
_request_line = re.compile(rb"%b+ [^\r\n]+ HTTP/[0-9]\.[0-9]\r?" % _TOKEN).fullmatch
_token = re.compile(rb"%b*" % _TOKEN).match
_blanks = re.compile(rb"[%b]*" % _BLANK).match
_empty_lines = re.compile(rb"(?:\r?\n)*").fullmatch
# Methods that llhttp (Node) knows.
_METHODS: Final = (
    b"GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI|COPY|LOCK|MKCOL|MOVE|PROPFIND|PROPPATCH|SEARCH|UNLOCK|"
    b"BIND|REBIND|UNBIND|ACL|REPORT|MKACTIVITY|CHECKOUT|MERGE|M-SEARCH|NOTIFY|SUBSCRIBE|UNSUBSCRIBE|PURGE|MKCALENDAR|"
    b"LINK|UNLINK|SOURCE|QUERY|DESCRIBE|ANNOUNCE|SETUP|PLAY|PAUSE|TEARDOWN|GET_PARAMETER|SET_PARAMETER|REDIRECT|RECORD|"
    b"FLUSH"
)
_known_method = re.compile(rb"(?i)(?:%b|PROXY)[%b]" % (_METHODS, _BLANK)).match
_might_be_served = re.compile(
    rb"(?i)PROXY[%b]|.*?(?:HTTP|RTSP|ICE)/|%b+[%b]+(?:/|\*|[^%b]*://)" % (_BLANK, _TOKEN, _BLANK, _BLANK), re.DOTALL
).match
_version = re.compile(rb"[%b]HTTP/" % _BLANK).search
_KEPT: Final = 5
"""Octets in which the beginning of such a version may stand."""
_method_and_blank = re.compile(rb"(?i:GET|HEAD|POST|CONNECT)[%b]" % _IN_LINE).match
_token_and_blank = re.compile(rb"%b+[%b]" % (_TOKEN, _IN_LINE)).match
_blanks_in_line = re.compile(rb"[%b]*" % _IN_LINE).match
_word = re.compile(rb"[^%b]*" % _BLANK).match
# An empty line, or one that Python's email.feedparser takes for a field, or for one of its continuation lines.
_goes_on = re.compile(rb"\r?\n|[ \t]|From |[!-9;-~]{,256}[ \t]{,16}:|[!-9;-~]{257}").match
_may_go_on = re.compile(rb"\r?|[!-9;-~]{,256}[ \t]{,16}").fullmatch
# Behind a line that is no field: a field with the name, also where CR ends lines, and the end of the head.
_names_host = re.compile(rb"(?i)[\r\n]host[ \t]*:").search
_ends_head = re.compile(rb"\n\r*\n").search
_begun = re.compile(rb"(?i)(?:\n\r*|[\r\n](?:h(?:o(?:st?)?)?|host[ \t]*)?)\Z").search
_repeated = re.compile(rb"(?<=\r)\r+|(?<=[ \t])[ \t]+").sub


class HttpKind(StrEnum):
    """Classes of a connection's first line."""

    REQUEST = "request"
    """A request line of HTTP/1 that mitmproxy reads as all servers do."""
    HTTP2 = "http2"
    """The preface of HTTP/2, with prior knowledge."""
    LENIENT = "lenient"
    """Some servers read it as a request, others refuse it."""
    NONE = "none"
    """No server reads it as HTTP."""


class HttpStartReader:
    """Reads the first line from a buffer that grows, each octet once. The octets are the caller's."""

    __slots__ = ("_received", "_seen", "_word", "line")

    def __init__(self, received: bytearray) -> None:
        self._received: Final = received
        self.line = -1
        """Where the line begins, behind white space, once its first octet is there."""
        self._word = 0  # where its first word ends, once something follows it
        self._seen = 0  # octets in which there is nothing more to find

    def read(self) -> HttpKind | None:
        """The class of the line; None while it is not known. Not to be called after that."""
        received = self._received
        if self.line < 0:
            self._seen = _end(_blanks, received, self._seen)
            if self._seen < len(received):
                self.line = self._seen
            if self._seen > MAX_EMPTY:  # nginx and Node pass over any number
                return HttpKind.LENIENT
            if self.line < 0:
                return None
        if received[self.line] == 0:
            return self._of_proxy_signature()
        if not self._word:
            told = self._read_word()
            if not self._word:
                return told
        end = received.find(b"\n", self._seen, MAX_LINE)
        last = end if end >= 0 else min(len(received), MAX_LINE)
        has_nul = received.find(b"\0", self._seen, last) >= 0
        self._seen = last
        if has_nul and not _known_method(received, self.line):  # as in Git's first words, which end without a line
            return HttpKind.NONE
        if end >= 0:
            return self._of_line(end)
        return None if last < MAX_LINE else HttpKind.LENIENT

    def ended(self) -> HttpKind:
        """What it is, now that no more will come: some servers read a last line without its end."""
        self._seen = len(self._received)
        return HttpKind.LENIENT if self._is_served() else HttpKind.NONE

    def _of_proxy_signature(self) -> HttpKind | None:
        received = self._received
        if not _PROXY_V2.startswith(received[: len(_PROXY_V2)]):
            return HttpKind.NONE
        return HttpKind.LENIENT if len(received) >= len(_PROXY_V2) else None

    def _read_word(self) -> HttpKind | None:
        """Look at the first word, which must be a method: of other protocols it mostly isn't."""
        received = self._received
        self._seen = _end(_token, received, self._seen)
        if self._seen - self.line > _LONGEST_METHOD:
            return HttpKind.LENIENT
        if self._seen == len(received):
            return None
        if received[self._seen] not in _BLANK_OCTETS:
            return HttpKind.NONE
        self._word = self._seen
        return None

    def _of_line(self, end: int) -> HttpKind | None:
        received = self._received
        if not (_empty_lines(received, 0, self.line) and _request_line(received, self.line, end)):
            return HttpKind.LENIENT if self._is_served() else HttpKind.NONE
        if received[self.line : self._word] != b"PRI":
            return HttpKind.REQUEST
        if not PREFACE.startswith(received[: len(PREFACE)]):
            return HttpKind.LENIENT
        return HttpKind.HTTP2 if len(received) >= len(PREFACE) else None

    def _is_served(self) -> bool:
        """Whether some server might serve a line that is none by the book, up to where was looked."""
        return _might_be_served(self._received, self.line, self._seen) is not None


class LinePart(StrEnum):
    """How far a head has come that no server serves as yet."""

    BEFORE_TARGET = "before-target"
    """In its first line, in the blanks after the method."""
    TARGET = "target"
    """In the target."""
    AFTER_TARGET = "after-target"
    """In the blanks after the target, where a version would begin."""
    KNOWN = "known"
    """In a first line with GET, HEAD, POST or CONNECT: some server reads fields after it, whatever else it holds."""
    OTHER = "other"
    """In any other first line: no server reads fields after it."""
    FIELDS = "fields"
    """In the line after the first, as long as that may be a field."""
    KNOWN_FIELDS = "known-fields"
    """The same after a `KNOWN` line."""
    REST = "rest"
    """After a line that is no field."""
    KNOWN_REST = "known-rest"


_THEN: Final = {
    LinePart.TARGET: LinePart.FIELDS,
    LinePart.AFTER_TARGET: LinePart.FIELDS,
    LinePart.KNOWN: LinePart.KNOWN_FIELDS,
}
"""What follows the end of a first line."""


@dataclass(frozen=True, slots=True)
class UnreadLine:
    """A head that no server serves as far as it has come. Of all its octets, whatever pieces they came in."""

    part: LinePart
    unfinished: bytes
    """Its last octets, as many as may begin what is looked for."""
    length: int = 0
    """Of its first line, as long as that goes on."""


def begin_unread_line(received: bytearray, start: int) -> UnreadLine | bool:
    """Read what has come of the line at `start`, whose first word has ended; the result is that of `read_on`."""
    if _method_and_blank(received, start):
        part, at = LinePart.KNOWN, start
    elif found := _token_and_blank(received, start):
        part, at = LinePart.BEFORE_TARGET, found.end()
    else:
        part, at = LinePart.OTHER, start
    return _read_first_line(UnreadLine(part, b""), received[start:], at - start)


def read_on(line: UnreadLine, data: bytes | bytearray) -> UnreadLine | bool:
    """Whether some server serves the line with `data` after it; the state as long as that depends on what follows."""
    match line.part:
        case LinePart.FIELDS | LinePart.KNOWN_FIELDS:
            return _read_fields(line.part, line.unfinished + data)
        case LinePart.REST | LinePart.KNOWN_REST:
            return _read_rest(line.part, line.unfinished + data)
        case _:
            return _read_first_line(line, data, 0)


def _read_first_line(line: UnreadLine, data: bytes | bytearray, at: int) -> UnreadLine | bool:
    """`at`: where `data` goes on from what `line.part` says."""
    most = MAX_LINE - line.length
    end = data.find(b"\n", 0, most)
    last = end if end >= 0 else min(len(data), most)
    text = line.unfinished + data[:last]
    if _version(text):
        return True
    part = line.part
    if part is LinePart.BEFORE_TARGET and (at := _end(_blanks_in_line, data, at)) < last:
        part = LinePart.TARGET
    if part is LinePart.TARGET and (at := _end(_word, data, at)) < last:
        part = LinePart.AFTER_TARGET
    if part is LinePart.AFTER_TARGET and _end(_blanks_in_line, data, at) < last:
        part = LinePart.OTHER
    if end >= 0:
        return part in _THEN and _read_fields(_THEN[part], data[end + 1 :])
    return last < most and UnreadLine(part, bytes(text[-_KEPT:]), line.length + last)


def _read_fields(part: LinePart, text: bytes | bytearray) -> UnreadLine | bool:
    if _goes_on(text):
        return True
    if _may_go_on(text):
        return UnreadLine(part, bytes(text))
    return _read_rest(LinePart.REST if part is LinePart.FIELDS else LinePart.KNOWN_REST, b"\n" + text)


def _read_rest(part: LinePart, text: bytes | bytearray) -> UnreadLine | bool:
    """After a line that is no field: served for a Host field, and of a `KNOWN` line at the end of the head."""
    if _names_host(text) or (part is LinePart.KNOWN_REST and _ends_head(text)):
        return True
    found = _begun(text)
    return UnreadLine(part, b"" if found is None else _repeated(b"", found[0]))


def _end(
    match: Callable[[bytes | bytearray, int], re.Match[bytes] | None], data: bytes | bytearray, position: int
) -> int:
    """The end of the match of `match` at `position`."""
    found = match(data, position)
    return position if found is None else found.end()
