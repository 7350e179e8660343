"""What can be asked of a SOCKS proxy (RFC 1928), in the spellings that some servers take."""

from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tokgate.evasion.attempt import Attempt, Family, Opens, Result, ServerReply, Stream, Target, broken, send_all
from tokgate.evasion.families.proxy_requests import embedded
from tokgate.evasion.families.tls_records import message
from tokgate.evasion.hello import records, vector
from tokgate.evasion.replies import read_answer

CONNECT: Final = 1
BIND: Final = 2
UDP_ASSOCIATE: Final = 3


def by_name(spell: Callable[[Target], bytes]) -> Callable[[Target], bytes]:
    """A CONNECT request (RFC 1928 §4) with a domain name, spelled as `spell` says."""
    return lambda target: _request(CONNECT, b"\3" + vector(1, spell(target)), target.port)


def _by_address(embed: str | None, command: int = CONNECT) -> Callable[[Target], bytes]:
    def ask(target: Target) -> bytes:
        if embed is None:
            return _request(command, b"\1" + IPv4Address(target.host).packed, target.port)
        return _request(command, b"\4" + IPv6Address(embedded(embed, target.host)).packed, target.port)

    return ask


def _request(command: int, address: bytes, port: int) -> bytes:
    return bytes([5, command, 0]) + address + port.to_bytes(2)


def socks_and_hello(
    ask: Callable[[Target], bytes], stream: Stream, target: Target, *, waits: bool = True
) -> ServerReply:
    """SOCKS 5 without a password; in the tunnel, a hello with the target's name."""
    try:
        if waits:
            stream.send(b"\5\1\0")
            said = _exactly(stream, 2)
            if said == b"\5\0":
                stream.send(ask(target))
                said += _exactly(stream, 10)
        else:
            send_all(stream, [b"\5\1\0" + ask(target) + records(message(target))])
            said = _exactly(stream, 12)
        if said[:2] != b"\5\0" or said[3:4] != b"\0":
            return ServerReply(Result.REFUSED if said else Result.CLOSED, f"said {said.hex()}", said)
        if waits:
            send_all(stream, [records(message(target))])
    except OSError as error:
        return broken(error)
    return read_answer(stream, target)


def socks_in_pieces(
    stream: Stream, target: Target, *, greeting: bytes = b"\5\1\0", cut: Callable[[bytes], list[bytes]]
) -> ServerReply:
    """A greeting, a request for the name and a hello, in pieces for which nothing is waited."""
    try:
        send_all(stream, cut(greeting + by_name(lambda t: t.octets)(target) + records(message(target))))
        said = _exactly(stream, 12)
        if said[:2] != b"\5\0" or said[3:4] != b"\0":
            return ServerReply(Result.REFUSED if said else Result.CLOSED, f"said {said.hex()}", said)
    except OSError as error:
        return broken(error)
    return read_answer(stream, target)


def socks_with_password(stream: Stream, target: Target, *, insists: bool) -> ServerReply:
    """SOCKS 5 with a user name and a password (RFC 1929), offered beside none, or said though nobody asked."""
    try:
        stream.send(b"\5\1\2" if insists else b"\5\2\0\2")
        said = _exactly(stream, 2)
        if said == b"\5\2" or (insists and said[:1] == b"\5"):
            stream.send(b"\1\4user\4pass")
            said = _exactly(stream, 2)
        stream.send(by_name(lambda t: t.octets)(target))
        reply = _exactly(stream, 10)
        if reply[1:2] != b"\0":
            return ServerReply(Result.REFUSED if said else Result.CLOSED, f"said {said.hex()} {reply.hex()}", reply)
        send_all(stream, [records(message(target))])
    except OSError as error:
        return broken(error)
    return read_answer(stream, target)


def socks_4(stream: Stream, target: Target, *, with_name: bool) -> ServerReply:
    """A SOCKS 4 request for the target's address, or SOCKS 4a for its name; in the tunnel a hello with the name."""
    port = target.port.to_bytes(2)
    address = b"\0\0\0\1" if with_name else IPv4Address(target.host).packed
    try:
        stream.send(b"\4\1" + port + address + b"user\0" + (target.octets + b"\0" if with_name else b""))
        reply = _exactly(stream, 8)
        if len(reply) < 2 or reply[1] != 90:
            return ServerReply(Result.REFUSED if reply else Result.CLOSED, f"reply {reply[1:2].hex()}")
        send_all(stream, [records(message(target))])
    except OSError as error:
        return broken(error)
    return read_answer(stream, target)


def _octets(target: Target) -> bytes:
    return target.octets


def _exactly(stream: Stream, count: int) -> bytes:
    """At least `count` octets from the stream, fewer only if it ends before."""
    data = b""
    while len(data) < count and (piece := stream.receive()):
        data += piece
    return data


_attempt = partial(Attempt, family=Family.SOCKS_REQUESTS, opens=Opens.SOCKS)


def attempts() -> Iterator[Attempt]:
    """Attempts by requests to a SOCKS proxy."""
    shapes: dict[str, tuple[str, Callable[[Target], bytes]]] = {
        "socks-name": ("the name", by_name(lambda t: t.octets)),
        "socks-uppercase": ("the name in capitals", by_name(lambda t: t.octets.upper())),
        "socks-dot": ("the root's dot", by_name(lambda t: t.octets + b".")),
        "socks-nul": ("a NUL behind the name", by_name(lambda t: t.octets + b"\0")),
        "socks-nul-and-name": ("a NUL and a harmless name", by_name(lambda t: t.octets + b"\0.example.org")),
        "socks-space": ("a space behind the name", by_name(lambda t: t.octets + b" ")),
        "socks-percent": ("a percent-encoded letter", by_name(lambda t: b"%77" + t.octets[1:])),
        "socks-port-in-name": ("a port behind the name", by_name(lambda t: t.octets + b":443")),
        "socks-utf-8": ("a letter in UTF-8", by_name(lambda t: "café.".encode() + t.octets)),
        "socks-two-dots": ("two dots behind the name", by_name(lambda t: t.octets + b"..")),
        "socks-leading-dot": ("a dot first", by_name(lambda t: b"." + t.octets)),
        "socks-wildcard": ("* for a label", by_name(lambda t: b"*." + t.base)),
        "socks-exclamation": ("a label with !", by_name(lambda t: b"a!b." + t.base)),
        "socks-userinfo": ("a user name", by_name(lambda t: b"a@" + t.octets)),
        "socks-url": ("a URL", by_name(lambda t: b"https://" + t.octets + b"/")),
        "socks-slash": ("a slash behind it", by_name(lambda t: t.octets + b"/")),
        "socks-comma": ("two names", by_name(lambda t: b"www.example.org," + t.octets)),
        "socks-tab": ("a tab first", by_name(lambda t: b"\t" + t.octets)),
        "socks-newline": ("a line feed behind it", by_name(lambda t: t.octets + b"\n")),
        "socks-fullwidth-dot": ("the fullwidth dot", by_name(lambda t: "www\uff0e".encode() + t.base)),
        "socks-latin-1": ("a letter of Latin-1", by_name(lambda t: b"caf\xe9." + t.base)),
        "socks-zone": ("a mapped address with a zone", by_name(lambda t: b"::ffff:" + t.host.encode() + b"%lo")),
        "socks-octal": (
            "the address in octal",
            by_name(lambda t: ".".join(f"0{int(o):o}" for o in t.host.split(".")).encode()),
        ),
        "socks-short": (
            "the address in two parts",
            by_name(lambda t: b"%d.%d" % (int(t.host.split(".")[0]), int(IPv4Address(t.host)) & 0xFFFFFF)),
        ),
        "socks-address-dot": ("the address with a dot behind it", by_name(lambda t: t.host.encode() + b".")),
        "socks-empty-name": ("no name at all", by_name(lambda t: b"")),
        "socks-address": ("the address, and a hello with the name", _by_address(None)),
        "socks-address-as-name": ("the address as a name", by_name(lambda t: t.host.encode())),
        "socks-decimal": ("the address as a number", by_name(lambda t: b"%d" % int(IPv4Address(t.host)))),
        "socks-hex": ("and in hexadecimal", by_name(lambda t: b"0x%x" % int(IPv4Address(t.host)))),
        "socks-brackets": ("in brackets", by_name(lambda t: b"[::ffff:" + t.host.encode() + b"]")),
        "socks-mapped-as-name": ("as an IPv6 address for a name", by_name(lambda t: b"::ffff:" + t.host.encode())),
        **{
            f"socks-{prefix}": (f"the address in an IPv6 address: {prefix}", _by_address(prefix))
            for prefix in ("nat64", "6to4", "teredo", "mapped", "compatible")
        },
        "socks-double-percent": ("a letter encoded twice", by_name(lambda t: b"%2577" + t.octets[1:])),
        "socks-percent-dot": ("an encoded dot", by_name(lambda t: t.octets.replace(b".", b"%2e", 1))),
        "socks-underscore": ("a label with _", by_name(lambda t: b"a_b." + t.base)),
        "socks-backslash": ("a backslash", by_name(lambda t: b"www.example.org\\." + t.octets)),
        "socks-query": ("a question mark behind it", by_name(lambda t: t.octets + b"?")),
        "socks-hash": ("# behind it", by_name(lambda t: t.octets + b"#.example.org")),
        "socks-punycode": ("a label in punycode", by_name(lambda t: b"xn--caf-dma." + t.octets)),
        "socks-long-label": ("a label of 64 octets", by_name(lambda t: b"a" * 64 + b"." + t.base)),
        "socks-255": ("255 octets", by_name(lambda t: (b"a." * 127 + t.octets)[-255:])),
        "socks-length-beyond": (
            "a length that takes the port in",
            lambda t: b"\5\1\0\3" + bytes([len(t.octets) + 2]) + t.octets + t.port.to_bytes(2),
        ),
        "socks-reserved": ("a reserved octet that is not zero", lambda t: b"\5\1\xff" + by_name(_octets)(t)[3:]),
        "socks-port-0": ("port 0", lambda t: by_name(_octets)(t)[:-2] + b"\0\0"),
        "socks-address-type-0": ("an unknown type of address", lambda t: b"\5\1\0\0" + by_name(_octets)(t)[4:]),
        "socks-command-0": ("an unknown command", lambda t: b"\5\0" + by_name(_octets)(t)[2:]),
        "socks-resolve": ("RESOLVE, as Tor has it", lambda t: b"\5\xf0" + by_name(_octets)(t)[2:]),
        "socks-version-4-inside": ("version 4 in the request", lambda t: b"\4" + by_name(_octets)(t)[1:]),
        "socks-udp-name": ("UDP ASSOCIATE to the name", lambda t: b"\5\3" + by_name(_octets)(t)[2:]),
        "socks-bind-name": ("BIND for the name", lambda t: b"\5\2" + by_name(_octets)(t)[2:]),
        "socks-isatap": ("an address of ISATAP", _by_address("isatap")),
        "socks-udp": ("UDP ASSOCIATE", _by_address(None, UDP_ASSOCIATE)),
        "socks-bind": ("BIND", _by_address(None, BIND)),
    }
    innocent = ("socks-name", "socks-uppercase", "socks-address", "socks-address-as-name", "socks-mapped")
    for name, (what, ask) in shapes.items():
        yield _attempt(name, what, partial(socks_and_hello, ask), innocent=name in innocent)
    at_once = partial(socks_and_hello, by_name(lambda t: t.octets), waits=False)
    yield _attempt("socks-at-once", "everything sent without waiting", at_once)
    cuts: dict[str, tuple[str, bytes, Callable[[bytes], list[bytes]]]] = {
        "socks-octet-by-octet": ("a segment for each octet", b"\5\1\0", lambda d: [bytes([o]) for o in d]),
        "socks-cut-in-name": ("cut in the length and the name", b"\5\1\0", lambda d: [d[:5], d[5:8], d[8:12], d[12:]]),
        "socks-many-methods": ("255 methods offered", b"\5\xff" + bytes(range(255)), lambda d: [d]),
        "socks-no-methods": ("no method offered", b"\5\0", lambda d: [d]),
        "socks-two-greetings": ("two greetings", b"\5\1\0\5\1\0", lambda d: [d]),
    }
    for name, (what, greeting, cut) in cuts.items():
        play = partial(socks_in_pieces, greeting=greeting, cut=cut)
        yield _attempt(name, what, play, innocent=name in ("socks-octet-by-octet", "socks-cut-in-name"))
    for insists in (False, True):
        yield _attempt(
            "socks-password-alone" if insists else "socks-password",
            "a user name and a password, and nothing else offered" if insists else "a user name and a password offered",
            partial(socks_with_password, insists=insists),
            innocent=not insists,
        )
    yield _attempt("socks-4", "SOCKS 4", partial(socks_4, with_name=False))
    yield _attempt("socks-4a", "SOCKS 4a", partial(socks_4, with_name=True))
