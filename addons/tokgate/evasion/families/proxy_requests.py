"""What can be asked of an explicit HTTP proxy itself: CONNECT, and requests with a URL."""

from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tokgate.evasion.attempt import (
    Attempt,
    Family,
    Limit,
    Opens,
    Result,
    SentPieces,
    ServerReply,
    Stream,
    Target,
    filled,
    read_until,
    send_all,
)
from tokgate.evasion.families.http_heads import FIELDS, asked, by_octet
from tokgate.evasion.families.tls_records import message
from tokgate.evasion.hello import records, vector
from tokgate.evasion.replies import read_answer

_HARMLESS: Final = b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org\r\n\r\n"
_AGENT: Final = b"User-Agent: tokgate-evasion\r\n\r\n"
_PLAIN: Final = b"CONNECT NAME:PORT HTTP/1.1\r\nHost: NAME:PORT\r\n" + _AGENT


def tunnel_and_hello(opening: SentPieces, stream: Stream, target: Target) -> ServerReply:
    """Ask for a tunnel in some spelling; where it is given, a hello with the target's name in it."""
    send_all(stream, opening(target))
    head = read_until(stream, lambda said: b"\r\n\r\n" in said)
    if b"\r\n\r\n" not in head:
        return ServerReply(Result.CLOSED, "", head)
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        return ServerReply(Result.REFUSED, f"status {b''.join(status).decode('latin-1')}", head)
    send_all(stream, [records(message(target))])
    return read_answer(stream, target)


def _connect(
    authority: bytes, line: bytes = b"CONNECT AUTHORITY HTTP/1.1", host: bytes = b"AUTHORITY", more: bytes = b""
) -> SentPieces:
    """CONNECT to this authority, with more fields behind Host."""
    head = line + b"\r\nHost: " + host + b"\r\n" + more + _AGENT
    return filled(head.replace(b"AUTHORITY", authority))


def _literal(prefix: str) -> SentPieces:
    """CONNECT to an IPv6 address in which the server's IPv4 address is embedded."""
    return lambda target: _connect(b"[" + embedded(prefix, target.host).encode() + b"]:PORT")(target)


def embedded(prefix: str, host: str) -> str:
    """An IPv6 address that stands for an IPv4 address: NAT64, 6to4, Teredo, mapped, compatible, ISATAP."""
    four = int(IPv4Address(host))
    bits = {
        "nat64": int(IPv6Address("64:ff9b::")) | four,
        "nat64-local": int(IPv6Address("64:ff9b:1::")) | four,
        "6to4": int(IPv6Address("2002::")) | four << 80 | 1,
        "teredo": int(IPv6Address("2001::")) | (four ^ 0xFFFFFFFF),
        "mapped": int(IPv6Address("::ffff:0:0")) | four,
        "compatible": four,
        "translated": int(IPv6Address("::ffff:0:0:0")) | four,
        "isatap": int(IPv6Address("2001:db8::5efe:0:0")) | four,
    }
    return str(IPv6Address(bits[prefix]))


SPELLINGS: Final[dict[str, Callable[[str, int], str]]] = {
    "decimal": lambda _, four: f"{four}",
    "octal-octets": lambda host, _: ".".join(f"0{int(octet):o}" for octet in host.split(".")),
    "zeros": lambda host, _: ".".join(f"{int(octet):03}" for octet in host.split(".")),
    "short": lambda host, four: f"{host.split('.')[0]}.{four & 0xFFFFFF}",
    "negative": lambda _, four: f"{four - 2**32}",
    "percent-dot": lambda host, _: host.replace(".", "%2e", 1),
    "zone": lambda host, _: f"{host}%lo",
    "ideographic-dots": lambda host, _: host.replace(".", "\u3002"),
    "double-dot": lambda host, _: host.replace(".", "..", 1),
    "dot-behind": lambda host, _: f"{host}.",
    "space-behind": lambda host, _: f"{host} ",
    "future": lambda host, _: f"[v1.{host}]",
    "mapped-capitals": lambda _, four: f"[::FFFF:{four >> 16:X}:{four & 0xFFFF:X}]",
    "mapped-zeros": lambda _, four: f"[0000:0000:0000:0000:0000:ffff:{four >> 16:04x}:{four & 0xFFFF:04x}]",
    "nat64-capitals": lambda _, four: f"[64:FF9B::{four >> 16:X}:{four & 0xFFFF:X}]",
    "mapped-brackets": lambda host, _: f"[[::ffff:{host}]]",
    "mapped-short": lambda _, four: f"[::ffff:{four}]",
}
"""An IPv4 address, in text and as a number, in ways in which programs read addresses, or don't."""


def _spelled(spell: Callable[[str, int], str]) -> SentPieces:
    return lambda target: _connect(spell(target.host, int(IPv4Address(target.host))).encode() + b":PORT")(target)


_TUNNELS: Final[dict[str, tuple[str, SentPieces]]] = {
    "connect-name": ("CONNECT to the name", _connect(b"NAME:PORT")),
    "connect-uppercase": ("in capitals", lambda t: [_connect(b"UPPER:PORT")(t)[0].replace(b"UPPER", t.octets.upper())]),
    "connect-dot": ("the root's dot", _connect(b"NAME.:PORT")),
    "connect-zeros": ("zeros before the port", _connect(b"NAME:00PORT")),
    "connect-no-port": ("no port", _connect(b"NAME")),
    "connect-empty-port": ("an empty port", _connect(b"NAME:")),
    "connect-userinfo": ("a user name", _connect(b"www.example.org@NAME:PORT")),
    "connect-url": ("a URL for the target", _connect(b"https://NAME:PORT/")),
    "connect-slash": ("a slash behind the port", _connect(b"NAME:PORT/")),
    "connect-percent": ("a percent-encoded letter", _connect(b"%77NAME:PORT")),
    "connect-nul": ("a NUL behind the name", _connect(b"NAME\0:PORT")),
    "connect-harmless-host": ("a harmless Host field", _connect(b"NAME:PORT", host=b"www.example.org:443")),
    "connect-lower-case": ("connect", _connect(b"NAME:PORT", b"connect AUTHORITY HTTP/1.1")),
    "connect-tab": ("a tab behind CONNECT", _connect(b"NAME:PORT", b"CONNECT\tAUTHORITY HTTP/1.1")),
    "connect-two-spaces": ("two spaces behind it", _connect(b"NAME:PORT", b"CONNECT  AUTHORITY HTTP/1.1")),
    "connect-1.0": ("HTTP/1.0", _connect(b"NAME:PORT", b"CONNECT AUTHORITY HTTP/1.0")),
    "connect-1.10": ("HTTP/1.10", _connect(b"NAME:PORT", b"CONNECT AUTHORITY HTTP/1.10")),
    "connect-no-version": ("no version", _connect(b"NAME:PORT", b"CONNECT AUTHORITY")),
    "connect-empty-line": ("an empty line first", _connect(b"NAME:PORT", b"\r\nCONNECT AUTHORITY HTTP/1.1")),
    "connect-cr": ("CR first", _connect(b"NAME:PORT", b"\rCONNECT AUTHORITY HTTP/1.1")),
    "connect-line-feeds": ("lines that end with LF", filled(_PLAIN.replace(b"\r\n", b"\n"))),
    "connect-octet-by-octet": ("a segment for each octet", by_octet(_PLAIN)),
    "connect-with-length": ("a length, as if it had a body", _connect(b"NAME:PORT", more=b"Content-Length: 9\r\n")),
    "connect-chunked": ("an encoding of a body", _connect(b"NAME:PORT", more=b"Transfer-Encoding: chunked\r\n")),
    "connect-address-with-length": (
        "CONNECT to the address with a length, and a hello with the name",
        _connect(b"ADDRESS:PORT", more=b"Content-Length: 9\r\n"),
    ),
    "connect-two-dots": ("two dots behind the name", _connect(b"NAME..:PORT")),
    "connect-leading-dot": ("a dot first", _connect(b".NAME:PORT")),
    "connect-wildcard": ("* for a label", _connect(b"*.NAME:PORT")),
    "connect-space": ("a space behind the name", _connect(b"NAME :PORT")),
    "connect-huge-port": ("a port beyond 65535", _connect(b"NAME:65979")),
    "connect-brackets": ("the name in brackets", _connect(b"[NAME]:PORT")),
    "connect-address-brackets": ("an IPv4 address in brackets", _connect(b"[ADDRESS]:PORT")),
    "connect-zone": ("a mapped address with a zone", _connect(b"[::ffff:ADDRESS%lo]:PORT")),
    "connect-mapped-dotted": ("a mapped address in dots", _connect(b"[::ffff:ADDRESS]:PORT")),
    "connect-mapped-long": ("a mapped address in full", _connect(b"[0:0:0:0:0:ffff:ADDRESS]:PORT")),
    "connect-compatible-dotted": ("a compatible address in dots", _connect(b"[::ADDRESS]:PORT")),
    "connect-nat64-dotted": ("an address of NAT64 in dots", _connect(b"[64:ff9b::ADDRESS]:PORT")),
    "connect-unbracketed": ("a mapped address without brackets", _connect(b"::ffff:ADDRESS:PORT")),
    "connect-utf-8": ("a letter in UTF-8", _connect("café.NAME:PORT".encode())),
    "connect-fullwidth-dot": ("the fullwidth dot", _connect("www\uff0eNAME:PORT".encode())),
    "connect-version-2": ("HTTP/2.0", _connect(b"NAME:PORT", b"CONNECT AUTHORITY HTTP/2.0")),
    "connect-version-0.9": ("HTTP/0.9", _connect(b"NAME:PORT", b"CONNECT AUTHORITY HTTP/0.9")),
    "connect-two-hosts": ("two fields Host", _connect(b"NAME:PORT", more=b"Host: www.example.org\r\n")),
    "connect-no-host": ("no Host", filled(b"CONNECT NAME:PORT HTTP/1.1\r\n\r\n")),
    "connect-many-fields": ("behind 200 fields", _connect(b"NAME:PORT", more=b"X: y\r\n" * 200)),
    "connect-harmless-first": ("a harmless Host, a URL", _connect(b"http://NAME:PORT", host=b"www.example.org:443")),
    "connect-udp": ("connect-udp", _connect(b"NAME:PORT", b"GET /.well-known/masque/udp/AUTHORITY/443/ HTTP/1.1")),
    "connect-address": ("CONNECT to the address, and a hello with the name", _connect(b"ADDRESS:PORT")),
    **{
        f"connect-{prefix}": (f"the address in an IPv6 address: {prefix}", _literal(prefix))
        for prefix in ("nat64", "nat64-local", "6to4", "teredo", "mapped", "compatible", "translated", "isatap")
    },
    **{
        f"connect-address-{name}": (f"the address in another spelling: {name}", _spelled(spell))
        for name, spell in SPELLINGS.items()
    },
}


_URLS: Final[dict[str, tuple[str, bytes]]] = {
    "url": ("a request with a URL", b"http://NAME:PORT/"),
    "url-uppercase": ("HTTP:// in capitals", b"HTTP://NAME:PORT/"),
    "url-userinfo": ("a user name in it", b"http://www.example.org@NAME:PORT/"),
    "url-dot": ("the root's dot", b"http://NAME.:PORT/"),
    "url-no-path": ("no path", b"http://NAME:PORT"),
    "url-percent": ("a percent-encoded letter", b"http://%77%77%77.NAME:PORT/"),
    "url-backslash": ("a backslash for the last slash", b"http://NAME:PORT\\"),
    "url-https": ("an https URL", b"https://NAME:PORT/"),
    "url-ftp": ("an ftp URL", b"ftp://NAME:PORT/"),
}


_NESTED: Final[dict[str, tuple[str, SentPieces]]] = {
    "nested-connect": (
        "CONNECT inside the tunnel, for a proxy behind it",
        filled(b"CONNECT NAME:443 HTTP/1.1\r\nHost: NAME\r\n\r\n"),
    ),
    "nested-url": ("a URL inside the tunnel, for a proxy behind it", filled(b"GET http://NAME/ HTTP/1.1\r\n" + FIELDS)),
    "nested-connect-address": (
        "CONNECT to an address inside the tunnel, the name in Host",
        filled(b"CONNECT 203.0.113.9:443 HTTP/1.1\r\nHost: NAME\r\n\r\n"),
    ),
    "nested-connect-odd": (
        "CONNECT with tabs inside the tunnel",
        filled(b"CONNECT\tNAME:443\tHTTP/1.1\r\nHost: www.example.org\r\n\r\n"),
    ),
    "nested-twice": (
        "CONNECT to another proxy inside the tunnel, and in that for the name",
        filled(_HARMLESS, b"CONNECT NAME:443 HTTP/1.1\r\nHost: NAME\r\n\r\n"),
    ),
    "nested-hello": ("CONNECT to a harmless name, and a hello", lambda t: [_HARMLESS + records(message(t))]),
    "nested-socks": ("SOCKS in the tunnel", lambda t: [b"\5\1\0", b"\5\1\0\3" + vector(1, t.octets) + b"\x01\xbb"]),
}
_INNOCENT: Final = frozenset(
    {"connect-name", "connect-uppercase", "connect-1.0", "connect-address", "connect-zeros"}
    | {"url", "url-uppercase", "url-no-path"}
)


def attempts() -> Iterator[Attempt]:
    """Attempts by requests to an HTTP proxy."""
    attempt = partial(Attempt, family=Family.PROXY_REQUESTS)
    for name, (what, opening) in _TUNNELS.items():
        play = partial(tunnel_and_hello, opening)
        yield attempt(name, what, play, opens=Opens.PROXY, innocent=name in _INNOCENT)
    for name, (what, form) in _URLS.items():
        url = filled(b"GET " + form + b" HTTP/1.1\r\n" + FIELDS)
        yield attempt(name, what, partial(asked, url), opens=Opens.URL, innocent=name in _INNOCENT)
    for name, (what, pieces) in _NESTED.items():
        limit = Limit.VPN if name == "nested-socks" else None
        yield attempt(name, what, partial(asked, pieces), opens=Opens.HTTP, limit=limit)
