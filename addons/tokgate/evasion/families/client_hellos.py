"""The ClientHello itself: its versions, extensions and lengths (RFC 8446 §4.1.2)."""

from collections.abc import Iterator

from tokgate.evasion.attempt import Attempt, SentPieces, Target
from tokgate.evasion.families.tls_records import attempt, message
from tokgate.evasion.hello import (
    PADDING,
    SECP256R1,
    X25519,
    Extension,
    alpn,
    ech,
    hello,
    hello_12,
    key_shares,
    record,
    records,
    server_name,
    signature_algorithms,
    supported_groups,
    supported_versions,
    uint16s,
    vector,
)

_OTHER = b"www.example.org"
_PSK = vector(2, vector(2, _OTHER) + bytes(4)) + vector(2, vector(1, bytes(32)))


def _padded(size: int) -> SentPieces:
    """A hello of at least `size` octets, in records as large as they may be."""
    return lambda target: [records(hello_12((PADDING, bytes(min(size, 65000))), server_name(target.octets)))]


def _legacy(version: int) -> SentPieces:
    return lambda target: [records(hello_12(server_name(target.octets), version=version))]


def _sslv2(_: Target) -> list[bytes]:
    """A hello in the format of SSL 2.0, for TLS 1.2 (RFC 5246 E.2). It can't carry a name."""
    ciphers = b"".join(b"\0" + uint16s([suite]) for suite in (0xC02F, 0xC02B, 0x009C, 0x002F))
    body = b"\1\3\3" + uint16s([len(ciphers), 0, 32]) + ciphers + b"c" * 32
    return [(0x8000 | len(body)).to_bytes(2) + body]


def _long_vector(target: Target) -> list[bytes]:
    """A hello message with octets after its extensions, counted in the length of the message."""
    whole = message(target) + b"\0\0"
    return [record(b"\1" + vector(3, whole[4:]))]


def _session_id(target: Target) -> list[bytes]:
    return [records(hello(server_name(target.octets), session_id=b"s" * 33))]


def _odd_ciphers(target: Target) -> list[bytes]:
    whole = bytearray(message(target))
    whole[4 + 2 + 32 + 1 + 32 + 1] -= 1
    return [record(bytes(whole))]


def _compressions(methods: bytes) -> SentPieces:
    def pieces(target: Target) -> list[bytes]:
        whole = message(target)[4:]
        at = 2 + 32 + 1 + 32
        at += 2 + int.from_bytes(whole[at : at + 2])
        return [record(b"\1" + vector(3, whole[:at] + vector(1, methods) + whole[at + 2 :]))]

    return pieces


def _shorter(octets: int) -> SentPieces:
    """A hello message whose length says less than there is."""

    def pieces(target: Target) -> list[bytes]:
        whole = message(target)
        return [record(whole[:1] + (len(whole) - 4 - octets).to_bytes(3) + whole[4:])]

    return pieces


def _extensions(*first: Extension) -> SentPieces:
    return lambda target: [records(hello_12(*first, server_name(target.octets)))]


def _name_last(target: Target) -> bytes:
    """The extension with the name behind all others."""
    whole = message(target)
    kind, content = server_name(target.octets)
    named = kind.to_bytes(2) + vector(2, content)
    at = whole.index(named)
    return whole[:at] + whole[at + len(named) :] + named


_SHAPES: dict[str, tuple[str, SentPieces, bool]] = {
    "hello-version-0505": ("a hello of a version to come", _legacy(0x0505), False),
    "sslv2": ("a hello in the format of SSL 2.0", _sslv2, False),
    "padded-16k": ("padded to over a record", _padded(17000), True),
    "padded-64k": ("padded to 64 KiB", _padded(65000), False),
    "octets-behind-extensions": ("octets behind its extensions", _long_vector, False),
    "long-session-id": ("a session id of 33 octets", _session_id, False),
    "odd-ciphers": ("an odd length of cipher suites", _odd_ciphers, False),
    "hello-version-0300": ("a hello of SSL 3.0", _legacy(0x0300), False),
    "hello-version-0301": ("a hello of TLS 1.0", _legacy(0x0301), False),
    "hello-version-0200": ("a hello of version 2.0", _legacy(0x0200), False),
    "hello-version-0101": ("a hello of version 1.1, as of TLCP", _legacy(0x0101), False),
    "hello-version-0304": ("a hello of version 3.4", _legacy(0x0304), False),
    "two-compressions": ("deflate and null compression", _compressions(b"\1\0"), False),
    "deflate-alone": ("deflate alone", _compressions(b"\1"), False),
    "no-compressions": ("no compression at all", _compressions(b""), False),
    "message-too-short": ("a length that leaves octets behind the hello", _shorter(2), False),
    "two-hundred-extensions": (
        "two hundred extensions before the name",
        _extensions(*((0x7000 + number, b"x") for number in range(200))),
        False,
    ),
    "ticket-of-another-name": ("a session ticket with another name", _extensions((35, _OTHER)), True),
    "psk-of-another-name": (
        "a pre-shared key of another name, behind all else",
        lambda t: [records(hello_12(server_name(t.octets), (45, b"\1\1"), (41, _PSK)))],
        False,
    ),
    "alpn-of-another-name": ("another name in ALPN", _extensions(alpn(b"h2", _OTHER)), True),
    "post-quantum": ("a key share of 1,216 octets", _extensions(key_shares([(0x11EC, bytes(1216))])), True),
    "grease-everywhere": (
        "GREASE in groups, versions, key shares, ALPN and extensions",
        lambda t: [
            records(
                hello(
                    *((0x1A1A, b""), server_name(t.octets), supported_groups(0x2A2A, X25519, SECP256R1)),
                    *(supported_versions(0x3A3A, 0x0303), key_shares([(0x2A2A, b"\0")]), alpn(b"\x4a\x4a", b"h2")),
                    *(signature_algorithms(0x0403, 0x0804, 0x0401), (0x5A5A, b"\0"), ech()),
                    ciphers=(0x6A6A, 0xC02B, 0xC02F),
                )
            )
        ],
        True,
    ),
    "name-last": ("the name behind all else", lambda t: [records(_name_last(t))], True),
}


def attempts() -> Iterator[Attempt]:
    """Attempts by the content of the hello."""
    for name, (what, pieces, innocent) in _SHAPES.items():
        yield attempt(name, what, pieces, innocent=innocent)
