"""What can be asked of a SOCKS proxy (RFC 1928), in the spellings that some servers take."""

from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tokgate.evasion.attempt import Attempt, Family, Opens, Result, ServerReply, Stream, Target, read_until, send_all
from tokgate.evasion.families.proxy_requests import SPELLINGS, embedded
from tokgate.evasion.families.tls_records import message
from tokgate.evasion.hello import records, vector
from tokgate.evasion.replies import read_answer

CONNECT: Final = 1
BIND: Final = 2
UDP_ASSOCIATE: Final = 3
_NO_PASSWORD: Final = b"\5\1\0"


def _spelled(spell: Callable[[Target], bytes]) -> Callable[[Target], bytes]:
    """A CONNECT request (RFC 1928 §4) with a domain name, spelled as `spell` says."""
    return lambda target: _request(CONNECT, b"\3" + vector(1, spell(target)), target.port)


def _by_name(form: bytes) -> Callable[[Target], bytes]:
    return _spelled(lambda target: target.fill(form))


def _by_address_as_name(spelling: str) -> Callable[[Target], bytes]:
    return _spelled(lambda target: SPELLINGS[spelling](target.host, int(IPv4Address(target.host))).encode())


_BY_NAME: Final = _by_name(b"NAME")


def _by_address(embed: str | None, command: int = CONNECT) -> Callable[[Target], bytes]:
    def ask(target: Target) -> bytes:
        if embed is None:
            return _request(command, b"\1" + IPv4Address(target.host).packed, target.port)
        return _request(command, b"\4" + IPv6Address(embedded(embed, target.host)).packed, target.port)

    return ask


def _request(command: int, address: bytes, port: int) -> bytes:
    return bytes([5, command, 0]) + address + port.to_bytes(2)


def _tunnelled(stream: Stream, target: Target, said: bytes, *, granted: bool, hello: bool = True) -> ServerReply:
    """Read the server's answer to a hello with the target's name, which is sent unless it was before."""
    if not granted:
        return ServerReply(Result.REFUSED if said else Result.CLOSED, f"said {said.hex()}", said)
    if hello:
        send_all(stream, [records(message(target))])
    return read_answer(stream, target)


def _socks(ask: Callable[[Target], bytes], stream: Stream, target: Target) -> ServerReply:
    """SOCKS 5 without a password; in the tunnel, a hello with the target's name."""
    stream.send(_NO_PASSWORD)
    said = _exactly(stream, 2)
    if said == b"\5\0":
        stream.send(ask(target))
        said += _exactly(stream, 10)
    return _tunnelled(stream, target, said, granted=said[:2] == b"\5\0" and said[3:4] == b"\0")


def _in_pieces(
    stream: Stream, target: Target, *, greeting: bytes = _NO_PASSWORD, cut: Callable[[bytes], list[bytes]]
) -> ServerReply:
    """A greeting, a request for the name and a hello, in pieces for which nothing is waited."""
    send_all(stream, cut(greeting + _BY_NAME(target) + records(message(target))))
    said = _exactly(stream, 12)
    return _tunnelled(stream, target, said, granted=said[:2] == b"\5\0" and said[3:4] == b"\0", hello=False)


def _with_password(stream: Stream, target: Target, *, insists: bool) -> ServerReply:
    """SOCKS 5 with a user name and a password (RFC 1929), offered beside none, or said though nobody asked."""
    stream.send(b"\5\1\2" if insists else b"\5\2\0\2")
    said = _exactly(stream, 2)
    if said == b"\5\2" or (insists and said[:1] == b"\5"):
        stream.send(b"\1\4user\4pass")
        said = _exactly(stream, 2)
    stream.send(_BY_NAME(target))
    reply = _exactly(stream, 10)
    return _tunnelled(stream, target, said + reply, granted=reply[1:2] == b"\0")


def _socks_4(stream: Stream, target: Target, *, with_name: bool) -> ServerReply:
    """A SOCKS 4 request for the target's address, or SOCKS 4a for its name; in the tunnel a hello with the name."""
    address = b"\0\0\0\1" if with_name else IPv4Address(target.host).packed
    name = target.octets + b"\0" if with_name else b""
    stream.send(b"\4\1" + target.port.to_bytes(2) + address + b"user\0" + name)
    reply = _exactly(stream, 8)
    return _tunnelled(stream, target, reply, granted=reply[1:2] == b"\x5a")


def _exactly(stream: Stream, count: int) -> bytes:
    return read_until(stream, lambda said: len(said) >= count)


_attempt = partial(Attempt, family=Family.SOCKS_REQUESTS, opens=Opens.SOCKS)


def attempts() -> Iterator[Attempt]:
    """Attempts by requests to a SOCKS proxy."""
    shapes: dict[str, tuple[str, Callable[[Target], bytes]]] = {
        "socks-name": ("the name", _by_name(b"NAME")),
        "socks-uppercase": ("the name in capitals", _spelled(lambda t: t.octets.upper())),
        "socks-dot": ("the root's dot", _by_name(b"NAME.")),
        "socks-nul-and-name": ("a NUL and a harmless name", _by_name(b"NAME\0.example.org")),
        "socks-utf-8": ("a letter in UTF-8", _by_name("café.NAME".encode())),
        "socks-leading-dot": ("a dot first", _by_name(b".NAME")),
        "socks-url": ("a URL", _by_name(b"https://NAME/")),
        "socks-zone": ("a mapped address with a zone", _by_name(b"::ffff:ADDRESS%lo")),
        "socks-octal": ("the address in octal", _by_address_as_name("octal-octets")),
        "socks-address-dot": ("the address with a dot behind it", _by_name(b"ADDRESS.")),
        "socks-empty-name": ("no name at all", _by_name(b"")),
        "socks-address": ("the address, and a hello with the name", _by_address(None)),
        "socks-address-as-name": ("the address as a name", _by_name(b"ADDRESS")),
        "socks-decimal": ("the address as a number", _by_address_as_name("decimal")),
        "socks-brackets": ("in brackets", _by_name(b"[::ffff:ADDRESS]")),
        "socks-mapped-as-name": ("as an IPv6 address for a name", _by_name(b"::ffff:ADDRESS")),
        **{
            f"socks-{prefix}": (f"the address in an IPv6 address: {prefix}", _by_address(prefix))
            for prefix in ("nat64", "6to4", "teredo", "mapped", "compatible")
        },
        "socks-underscore": ("a label with _", _by_name(b"a_b.BASE")),
        "socks-punycode": ("a label in punycode", _by_name(b"xn--caf-dma.NAME")),
        "socks-255": ("255 octets", _spelled(lambda t: (b"a." * 127 + t.octets)[-255:])),
        "socks-length-beyond": (
            "a length that takes the port in",
            lambda t: b"\5\1\0\3" + bytes([len(t.octets) + 2]) + t.octets + t.port.to_bytes(2),
        ),
        "socks-reserved": ("a reserved octet that is not zero", lambda t: b"\5\1\xff" + _BY_NAME(t)[3:]),
        "socks-port-0": ("port 0", lambda t: _BY_NAME(t)[:-2] + b"\0\0"),
        "socks-address-type-0": ("an unknown type of address", lambda t: b"\5\1\0\0" + _BY_NAME(t)[4:]),
        "socks-resolve": ("RESOLVE, as Tor has it", lambda t: b"\5\xf0" + _BY_NAME(t)[2:]),
        "socks-version-4-inside": ("version 4 in the request", lambda t: b"\4" + _BY_NAME(t)[1:]),
        "socks-udp-name": ("UDP ASSOCIATE to the name", lambda t: b"\5\3" + _BY_NAME(t)[2:]),
        "socks-bind-name": ("BIND for the name", lambda t: b"\5\2" + _BY_NAME(t)[2:]),
        "socks-isatap": ("an address of ISATAP", _by_address("isatap")),
        "socks-udp": ("UDP ASSOCIATE", _by_address(None, UDP_ASSOCIATE)),
        "socks-bind": ("BIND", _by_address(None, BIND)),
    }
    innocent = ("socks-name", "socks-uppercase", "socks-address", "socks-address-as-name", "socks-mapped")
    for name, (what, ask) in shapes.items():
        yield _attempt(name, what, partial(_socks, ask), innocent=name in innocent)
    cuts: dict[str, tuple[str, bytes, Callable[[bytes], list[bytes]]]] = {
        "socks-octet-by-octet": ("a segment for each octet", _NO_PASSWORD, lambda d: [bytes([o]) for o in d]),
        "socks-cut-in-name": ("cut in length and name", _NO_PASSWORD, lambda d: [d[:5], d[5:8], d[8:12], d[12:]]),
        "socks-at-once": ("everything sent without waiting", _NO_PASSWORD, lambda d: [d]),
        "socks-many-methods": ("255 methods offered", b"\5\xff" + bytes(range(255)), lambda d: [d]),
        "socks-no-methods": ("no method offered", b"\5\0", lambda d: [d]),
        "socks-two-greetings": ("two greetings", b"\5\1\0\5\1\0", lambda d: [d]),
    }
    for name, (what, greeting, cut) in cuts.items():
        play = partial(_in_pieces, greeting=greeting, cut=cut)
        yield _attempt(name, what, play, innocent=name in ("socks-octet-by-octet", "socks-cut-in-name"))
    offered, alone = (partial(_with_password, insists=insists) for insists in (False, True))
    yield _attempt("socks-password", "a user name and a password offered", offered, innocent=True)
    yield _attempt("socks-password-alone", "a user name and a password, and nothing else offered", alone)
    yield _attempt("socks-4", "SOCKS 4", partial(_socks_4, with_name=False))
    yield _attempt("socks-4a", "SOCKS 4a", partial(_socks_4, with_name=True))
