"""TLS that does not show where it goes: no name, an address for a name, ECH, and another name inside."""

import ssl
from collections.abc import Callable, Iterator
from functools import partial

from tokgate.evasion.attempt import Attempt, Family, Limit, Opens, Result, SentPieces, ServerReply, Stream, Target
from tokgate.evasion.families.tls_records import said
from tokgate.evasion.hello import ECH, SERVER_NAME, Extension, ech, hello, hello_12, records, server_name
from tokgate.evasion.replies import read_page

HARMLESS = "www.example.org"
PROVIDER = b"cloudflare-ech.com"
"""The public name of a provider of ECH."""


def fronting(stream: Stream, target: Target) -> ServerReply:
    """Domain fronting: a TLS handshake with a harmless name, and in it a request whose Host is the target's name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = context.wrap_bio(incoming, outgoing, server_hostname=HARMLESS)

    def carried[T](act: Callable[[], T]) -> T:
        """What `act` gives once the server has said enough; an SSLError where it says no more."""
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                stream.send(outgoing.read())
                if data := stream.receive():
                    incoming.write(data)
                else:
                    incoming.write_eof()

    def page() -> bytes:
        try:
            return carried(lambda: secure.read(1 << 16))
        except ssl.SSLEOFError:
            return b""

    try:
        carried(secure.do_handshake)
        secure.write(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % target.octets)
        return read_page(page)
    except ssl.SSLError as error:
        alert = error.reason is not None and "ALERT" in error.reason
        return ServerReply(Result.REFUSED if alert else Result.CLOSED, str(error.reason))


def _fixed(octets: bytes) -> SentPieces:
    return lambda _: [octets]


_attempt = partial(Attempt, family=Family.HIDDEN_NAMES, opens=Opens.TLS)


def attempts() -> Iterator[Attempt]:
    """Attempts whose name is hidden, missing or another than the request's."""
    shapes: dict[str, tuple[str, list[Extension], Limit | None]] = {
        "no-name": ("no server_name", [], Limit.NO_NAME),
        "empty-extension": ("an empty server_name", [(SERVER_NAME, b"")], Limit.NO_NAME),
        "empty-list": ("server_name with an empty list", [(SERVER_NAME, b"\0\0")], Limit.NO_NAME),
        "empty-name": ("a name of no octets", [server_name(b"")], Limit.NO_NAME),
        "ipv4-for-name": ("the address 8.8.8.8 for a name", [server_name(b"8.8.8.8")], Limit.NO_NAME),
        "ipv6-for-name": ("the address ::1 for a name", [server_name(b"::1")], Limit.NO_NAME),
        "bracketed-for-name": ("the address [::1] for a name", [server_name(b"[::1]")], None),
        "ipv6-zone-for-name": ("an address with a zone", [server_name(b"fe80::1%lo")], None),
        "mapped-for-name": ("the address ::ffff:8.8.8.8 for a name", [server_name(b"::ffff:8.8.8.8")], Limit.NO_NAME),
        "hex-for-name": ("an address in hexadecimal", [server_name(b"0x08080808")], None),
        "address-dot-for-name": ("an address with a dot behind it", [server_name(b"8.8.8.8.")], Limit.NO_NAME),
        "five-numbers-for-name": ("five numbers", [server_name(b"8.8.8.8.8")], None),
        "dots-for-name": ("dots alone", [server_name(b"...")], None),
        "star-for-name": ("* alone", [server_name(b"*")], None),
        "nul-for-name": ("a NUL", [server_name(b"\0")], None),
        "esni": ("ESNI as in its first drafts, and no name", [(0xFFCE, bytes(300))], Limit.NO_NAME),
        "ech-inner-type": ("ECH of the inner type, and no name", [(ECH, b"\1")], Limit.NO_NAME),
        "ech-alone": ("ECH, and no name", [ech()], Limit.NO_NAME),
        "ech-outer": ("ECH, with a provider's public name", [server_name(PROVIDER), ech()], Limit.ECH),
        "ech-elsewhere": ("ECH, with another public name", [server_name(HARMLESS.encode()), ech()], Limit.ECH),
    }
    for name, (what, extensions, limit) in shapes.items():
        yield _attempt(name, what, partial(said, _fixed(records(hello_12(*extensions)))), limit=limit)
    bare = records(hello(ciphers=(0xC02B, 0xC02F, 0xC013, 0x009C, 0x002F), with_extensions=False))
    yield _attempt("no-extensions", "a hello without any extensions", partial(said, _fixed(bare)), limit=Limit.NO_NAME)
    yield _attempt(
        "ech-and-name",
        "the name, and an ECH extension without meaning",
        partial(said, lambda target: [records(hello_12(server_name(target.octets), ech()))]),
        innocent=True,
    )
    yield _attempt("fronting", "a harmless name in the hello, the banned one in Host", fronting, limit=Limit.FRONTING)
