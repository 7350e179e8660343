"""Plain HTTP in which the name is spelled, or placed, so that proxy and server may read different ones."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from tokgate.evasion.attempt import Attempt, Family, Limit, Opens, filled
from tokgate.evasion.families.http_heads import asked

_HARMLESS: Final = b"Host: www.example.org\r\n"
_CLOSE: Final = b"Connection: close\r\n\r\n"


_HOSTS: Final[dict[str, tuple[str, bytes]]] = {
    "host-uppercase-field": ("HOST", b"HOST: NAME"),
    "host-without-space": ("no space behind the colon", b"Host:NAME"),
    "host-tab": ("a tab behind the colon", b"Host:\tNAME"),
    "host-many-spaces": ("many spaces around it", b"Host:     NAME    "),
    "host-space-before-colon": ("a space before the colon", b"Host : NAME"),
    "host-tab-before-colon": ("a tab before the colon", b"Host\t: NAME"),
    "host-nul-before-colon": ("a NUL before the colon", b"Host\0: NAME"),
    "host-trailing-dot": ("the root's dot", b"Host: NAME."),
    "host-two-dots": ("two dots behind it", b"Host: NAME.."),
    "host-port": ("a port", b"Host: NAME:80"),
    "host-other-port": ("another port", b"Host: NAME:8080"),
    "host-empty-port": ("an empty port", b"Host: NAME:"),
    "host-huge-port": ("port 99999", b"Host: NAME:99999"),
    "host-word-port": ("a word for a port", b"Host: NAME:http"),
    "host-two-colons": ("two colons", b"Host: NAME:80:80"),
    "host-dot-and-port": ("a dot and a port", b"Host: NAME.:80"),
    "host-percent": ("a percent-encoded letter", b"Host: %77ww.BASE"),
    "host-percent-dot": ("a percent-encoded dot", b"Host: www%2eBASE"),
    "host-userinfo": ("a user name", b"Host: www.example.org@NAME"),
    "host-url": ("a URL", b"Host: http://NAME/"),
    "host-slash": ("a slash behind it", b"Host: NAME/"),
    "host-query": ("a question mark behind it", b"Host: NAME?"),
    "host-backslash": ("a backslash", b"Host: www\\.BASE"),
    "host-exclamation": ("a label with !", b"Host: a!b.BASE"),
    "host-wildcard": ("* for a label", b"Host: *.BASE"),
    "host-leading-dot": ("a dot first", b"Host: .BASE"),
    "host-utf-8": ("a letter in UTF-8", "Host: café.BASE".encode()),
    "host-ideographic-dot": ("the dot of Japanese", "Host: www。BASE".encode()),
    "host-nul": ("a NUL behind it", b"Host: NAME\0"),
    "host-nul-and-name": ("a NUL and a harmless name", b"Host: NAME\0.www.example.org"),
    "host-vertical-tab": ("a vertical tab before it", b"Host: \x0bNAME"),
    "host-quotes": ("in quotes", b'Host: "NAME"'),
    "host-brackets": ("in brackets", b"Host: [NAME]"),
    "host-comma": ("two names with a comma", b"Host: www.example.org, NAME"),
    "host-twice": ("two fields", b"Host: www.example.org\r\nHost: NAME"),
    "host-twice-reversed": ("and the other way round", b"Host: NAME\r\nHost: www.example.org"),
    "host-folded": ("folded onto the next line", b"Host:\r\n NAME"),
    "host-folded-behind": ("behind a harmless name on the next line", b"Host: www.example.org\r\n NAME"),
    "host-after-fold": ("behind a folded field", b"X: a\r\n b\r\nHost: NAME"),
    "host-first-space": ("a space before the field's name", b" Host: NAME"),
    "host-cr": ("behind a lone CR", b"X: a\rHost: NAME"),
    "host-lf": ("behind a lone LF", b"X: a\nHost: NAME"),
    "host-underscore": ("Host_ beside it", b"Host_: x\r\nHost: NAME"),
    "host-no-colon": ("a line without a colon before it", b"X\r\nHost: NAME"),
    "host-many-fields": ("behind 60 other fields", b"X: y\r\n" * 60 + b"Host: NAME"),
    "host-long-field": ("behind a field of 30 KiB", b"X: " + b"y" * 30720 + b"\r\nHost: NAME"),
    "host-angle-brackets": ("in angle brackets", b"Host: <NAME>"),
    "host-space-name": ("two names with a space", b"Host: www.example.org NAME"),
    "host-comma-behind": ("a comma behind it", b"Host: NAME,"),
    "host-comma-first": ("a comma first", b"Host: ,NAME"),
    "host-path": ("a path behind a harmless name", b"Host: www.example.org/NAME"),
    "host-userinfo-name": ("the name for a user name", b"Host: NAME@www.example.org"),
    "host-ipv6": ("an IPv6 address before it", b"Host: [::1]NAME"),
    "host-zone": ("an IPv6 address with the name for a zone", b"Host: [fe80::1%NAME]"),
    "host-percent-nul": ("an encoded NUL", b"Host: NAME%00.www.example.org"),
    "host-percent-name": ("all encoded", b"Host: %77%77%77.BASE"),
    "host-zero-width": ("a space of no width", "Host: w\u200bww.BASE".encode()),
    "host-delete": ("DEL inside", b"Host: a\x7fb.BASE"),
    "host-form-feed": ("a form feed before it", b"Host: \x0cNAME"),
    "host-twice-equal": ("the same twice", b"Host: NAME\r\nHost: NAME"),
    "host-twice-cases": ("two spellings of the field", b"Host: www.example.org\r\nhOST: NAME"),
    "host-twice-underscore": ("a field with a space and one without", b"Host : www.example.org\r\nHost: NAME"),
    "host-empty-first": ("an empty field before it", b"Host:\r\nHost: NAME"),
    "host-empty-behind": ("an empty field behind it", b"Host: NAME\r\nHost:"),
    "host-folded-tab": ("folded with a tab", b"Host:\r\n\tNAME"),
    "host-folded-lf": ("folded with LF", b"Host:\n NAME"),
    "host-cr-inside": ("CR inside it", b"Host: www\r.BASE"),
    "host-lf-cr": ("behind LF CR", b"X: a\n\rHost: NAME"),
    "host-cr-cr-lf": ("behind CR CR LF", b"X: a\r\r\nHost: NAME"),
    "host-nul-line": ("behind a line with a NUL", b"X: a\0b\r\nHost: NAME"),
    "host-colon-first": ("a colon first in the line", b":Host: NAME\r\nHost: www.example.org"),
    "host-no-name-line": ("an empty field name before it", b": x\r\nHost: NAME"),
    "host-utf-8-field": ("a field in UTF-8 before it", "é: x\r\nHost: NAME".encode()),
    "host-long-name-field": ("behind a field name of 10,000 octets", b"X" * 10000 + b": y\r\nHost: NAME"),
    "host-1000-fields": ("behind 1,000 fields", b"X: y\r\n" * 1000 + b"Host: NAME"),
    "host-punycode": ("a label in punycode", b"Host: xn--caf-dma.BASE"),
    "host-pipe": ("two names with |", b"Host: www.example.org|NAME"),
    "host-empty-label": ("an empty label", b"Host: www..BASE"),
    "host-label-of-64": ("a label of 64 octets", b"Host: " + b"a" * 64 + b".BASE"),
    "host-in-connection": ("Host named by Connection", b"Connection: host\r\nHost: NAME"),
    "host-300k": ("behind fields of 300 KiB", (b"X: " + b"y" * 1000 + b"\r\n") * 300 + b"Host: NAME"),
}

_ORDINARY: Final = frozenset(
    {"host-uppercase-field", "host-without-space", "host-tab", "host-port", "host-many-fields", "host-empty-port"}
)

_TARGETS: Final[dict[str, tuple[str, bytes]]] = {
    "target-url": ("a URL for the target, a harmless Host", b"http://NAME/"),
    "target-https-url": ("an https URL", b"https://NAME/"),
    "target-upper-scheme": ("HTTP:// in capitals", b"HTTP://NAME/"),
    "target-userinfo": ("a URL with a user name", b"http://www.example.org@NAME/"),
    "target-port": ("a URL with a port", b"http://NAME:80/"),
    "target-dot": ("a URL with the root's dot", b"http://NAME./"),
    "target-query": ("a URL with a query alone", b"http://NAME?x"),
    "target-other-scheme": ("a URL of another scheme", b"ws://NAME/"),
    "target-backslashes": ("backslashes for slashes", b"http:\\\\NAME\\"),
    "target-authority": ("an authority for the target", b"NAME:80"),
    "target-name": ("the name alone", b"NAME"),
    "target-three-slashes": ("a URL with three slashes", b"http:///NAME/"),
    "target-fragment": ("a URL with a fragment", b"http://NAME#x"),
    "target-percent": ("a URL with an encoded letter", b"http://%77ww.BASE/"),
    "target-password": ("a URL with a password", b"http://a:b@NAME/"),
    "target-backslash-user": ("a URL with a backslash before @", b"http://www.example.org\\@NAME/"),
    "target-name-backslash": ("the name before a backslash and @", b"http://NAME\\@www.example.org/"),
    "target-bad-port": ("a URL with a port that is none", b"http://NAME:x/"),
    "target-empty-port": ("a URL with an empty port", b"http://NAME:/"),
    "target-spaced-port": ("a URL with a tab behind it", b"http://NAME\t/"),
    "target-space-first": ("a space in the URL", b"http:// NAME/"),
    "target-ftp": ("an ftp URL", b"ftp://NAME/"),
    "target-view-source": ("a scheme in a scheme", b"view-source:http://NAME/"),
    "target-scheme-space": ("a space behind http", b"http ://NAME/"),
    "target-brackets": ("a URL with the name in brackets", b"http://[NAME]/"),
    "target-two-dots": ("a URL with two dots", b"http://NAME../"),
    "target-h2c": ("a URL of h2c", b"h2c://NAME/"),
    "target-zero-port": ("a URL with port 00080", b"http://NAME:00080/"),
    "target-at-behind": ("@ behind the name", b"http://NAME@/"),
    "target-nul": ("a URL with a NUL", b"http://NAME\0/"),
}


_PATHS: Final[dict[str, tuple[str, bytes]]] = {
    "path-authority": ("a path with two slashes and the name", b"//NAME/"),
    "path-backslash": ("with a slash and a backslash", b"/\\NAME/"),
    "path-userinfo": ("with a user name", b"//www.example.org@NAME"),
    "path-exclamation": ("with a label with !", b"//a!b.BASE/"),
}
"""Targets from which servers that resolve them like a reference take a host (RFC 3986 §4.2)."""


_SECOND: Final[dict[str, tuple[str, bytes]]] = {
    "request": ("the banned one", b"GET / HTTP/1.1"),
    "odd-request": ("one with tabs", b"GET\t/\tHTTP/1.1"),
    "bracket-method": ("one with a bracket in its method", b"GE[T / HTTP/1.1"),
    "nul-first": ("one with a NUL first", b"\0GET / HTTP/1.1"),
    "cr-first": ("one with CR first", b"\rGET / HTTP/1.1"),
    "many-lines-first": ("one with a thousand empty lines first", b"\r\n" * 1000 + b"GET / HTTP/1.1"),
    "version-1.10": ("one of HTTP/1.10", b"GET / HTTP/1.10"),
    "no-version": ("one without a version", b"GET /"),
    "two-words": ("one of two words", b"X #"),
    "http-0.9": ("one of HTTP/0.9", b"GET http://NAME/\r\n"),
    "url": ("a URL", b"GET http://NAME/ HTTP/1.1"),
    "rtsp": ("one of RTSP", b"DESCRIBE / RTSP/1.0"),
    "preface": ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1"),
    "connect": ("CONNECT", b"CONNECT NAME:80 HTTP/1.1"),
    "empty-lines": ("one behind two empty lines", b"\r\n\r\nGET / HTTP/1.1"),
    "version-2.0": ("one of HTTP/2.0", b"GET / HTTP/2.0"),
    "long-method": ("one with a method of 1,000 octets", b"G" * 1000 + b" / HTTP/1.1"),
    "https-url": ("an https URL", b"GET https://NAME/ HTTP/1.1"),
    "skipped-line": ("a line that is no field", b"GET %2f FOO/1.0\r\nfoo bar"),
    "proxy-line": ("the PROXY protocol", b"PROXY UNKNOWN\r\nGET / HTTP/1.1"),
}


def attempts() -> Iterator[Attempt]:
    """Attempts by the spelling of the host."""
    attempt = partial(Attempt, family=Family.HTTP_HOSTS, opens=Opens.HTTP)
    for name, (what, field) in _HOSTS.items():
        pieces = filled(b"GET / HTTP/1.1\r\n" + field + b"\r\n" + _CLOSE)
        yield attempt(name, what, partial(asked, pieces), innocent=name in _ORDINARY)
    for name, (what, form) in _TARGETS.items():
        yield attempt(name, what, partial(asked, filled(b"GET " + form + b" HTTP/1.1\r\n" + _HARMLESS + _CLOSE)))
    for name, (what, path) in _PATHS.items():
        for host, field in (("a harmless", _HARMLESS), ("an empty", b"Host:\r\n")):
            pieces = filled(b"GET " + path + b" HTTP/1.1\r\n" + field + _CLOSE)
            yield attempt(f"{name}-{host.split()[-1]}-host", f"{what}, {host} Host", partial(asked, pieces))
    nameless = partial(asked, filled(b"GET / HTTP/1.0\r\n\r\n"))
    yield attempt("no-host", "HTTP/1.0 without any name", nameless, limit=Limit.NO_NAME)
    forwarded = partial(asked, filled(b"GET / HTTP/1.1\r\n" + _HARMLESS + b"X-Forwarded-Host: NAME\r\n" + _CLOSE))
    what = "a harmless Host, the banned name in X-Forwarded-Host"
    yield attempt("forwarded-host", what, forwarded, limit=Limit.FRONTING)
    for name, (what, line) in _SECOND.items():
        pieces = filled(b"GET / HTTP/1.1\r\n" + _HARMLESS + b"\r\n" + line + b"\r\nHost: NAME\r\n" + _CLOSE)
        play = partial(asked, pieces, wanted=2)
        yield attempt(f"second-{name}", f"a harmless request, and {what} behind it", play, innocent=name == "request")
