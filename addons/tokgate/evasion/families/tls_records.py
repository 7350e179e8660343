"""The ClientHello (RFC 8446 §4.1.2), records before and inside it, and how records and TCP segments cut it (§5.1)."""

from collections.abc import Iterator
from functools import partial
from itertools import batched, pairwise

from tokgate.evasion.attempt import Attempt, Family, Limit, Opens, SentPieces, ServerReply, Stream, Target, send_all
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
from tokgate.evasion.replies import read_answer

ALERT = 21
CHANGE_CIPHER_SPEC = 20
APPLICATION_DATA = 23
HEARTBEAT = 24


def said(pieces: SentPieces, stream: Stream, target: Target) -> ServerReply:
    """Send the pieces, and read from the server's TLS handshake whether it answers for the target's name."""
    send_all(stream, pieces(target))
    return read_answer(stream, target)


def message(target: Target) -> bytes:
    """The hello that all attempts here carry: TLS 1.2, with the target's name."""
    return hello_12(server_name(target.octets))


def _before(octets: bytes) -> SentPieces:
    return lambda target: [octets + records(message(target))]


def _version(version: int) -> SentPieces:
    return lambda target: [records(message(target), version=version)]


def _inside(octets: bytes) -> SentPieces:
    """A hello in two records, with another record between them."""
    return lambda target: _in_two(target, len(message(target)) // 2, octets)


def _behind(*lines: bytes) -> SentPieces:
    """A hello after another protocol's commands, as with STARTTLS."""
    return lambda target: [*lines, records(message(target))]


def _in_two(target: Target, at: int, between: bytes = b"", first: int = 0x0301, second: int = 0x0301) -> list[bytes]:
    """A hello in two records of these versions, cut at an offset."""
    whole = message(target)
    return [record(whole[:at], version=first) + between + record(whole[at:], version=second)]


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


def _extensions(*first: Extension) -> SentPieces:
    return lambda target: [records(hello_12(*first, server_name(target.octets)))]


def _name_last(target: Target) -> bytes:
    """The extension with the name behind all others."""
    whole = message(target)
    kind, content = server_name(target.octets)
    named = kind.to_bytes(2) + vector(2, content)
    at = whole.index(named)
    return whole[:at] + whole[at + len(named) :] + named


_PROXY_1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\n"
_PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
_SHAPES: dict[str, tuple[str, SentPieces]] = {
    "alert-before": ("a warning alert before the hello", _before(record(b"\1\x70", ALERT))),
    "alert-before-1.2": ("the same in a record of TLS 1.2", _before(record(b"\1\x70", ALERT, 0x0303))),
    "alert-of-one-octet": ("half an alert before it", _before(record(b"\1", ALERT))),
    "close-notify-before": ("an alert that closes before it", _before(record(b"\1\0", ALERT))),
    "ccs-before": ("ChangeCipherSpec before it", _before(record(b"\1", CHANGE_CIPHER_SPEC, 0x0303))),
    "alert-and-ccs": (
        "an alert and ChangeCipherSpec",
        _before(record(b"\1\x70", ALERT) + record(b"\1", CHANGE_CIPHER_SPEC)),
    ),
    "data-before": ("application data before it", _before(record(b"hello", APPLICATION_DATA, 0x0303))),
    "empty-data-before": ("an empty record of application data", _before(record(b"", APPLICATION_DATA, 0x0303))),
    "heartbeat-before": ("a heartbeat before it", _before(record(b"\1\0\0" + bytes(16), HEARTBEAT, 0x0303))),
    "unknown-record-before": ("a record of no known type", _before(record(b"\1", 99, 0x0303))),
    "empty-handshake-before": ("an empty handshake record before it", _before(record(b""))),
    "hello-request-before": ("HelloRequest before it", _before(record(b"\0\0\0\0"))),
    "newline-before": ("an empty line before it", _before(b"\r\n")),
    "nul-before": ("a NUL before it", _before(b"\0")),
    "version-0200": ("record version 2.0", _version(0x0200)),
    "version-0000": ("record version 0.0", _version(0x0000)),
    "version-feff": ("record version of DTLS", _version(0xFEFF)),
    "version-0300": ("record version 3.0", _version(0x0300)),
    "version-0304": ("record version 3.4", _version(0x0304)),
    "records-of-one-octet": ("a record for each octet", lambda t: [records(message(t), 1)]),
    "cut-in-header": ("the first record ends inside the message's header", lambda t: _in_two(t, 2)),
    "cut-in-name": ("the name in two records", lambda t: _in_two(t, message(t).index(t.octets) + 4)),
    "mixed-versions": ("two records of different versions", lambda t: _in_two(t, 9, second=0x0303)),
    "alert-inside": ("an alert between its records", _inside(record(b"\1\x70", ALERT))),
    "ccs-inside": ("ChangeCipherSpec between its records", _inside(record(b"\1", CHANGE_CIPHER_SPEC, 0x0303))),
    "empty-inside": ("an empty record between its records", _inside(record(b""))),
    "garbage-inside": ("a record of no known type between them", _inside(record(b"\0", 99))),
    "padded-in-odd-records": (
        "the longest, in records of version 2.1",
        lambda t: [records(hello_12(server_name(t.octets), (PADDING, bytes(65366))), version=0x0201)],
    ),
    "proxy-1-before": ("the PROXY protocol's first version before it", _before(_PROXY_1)),
    "proxy-2-before": ("and its second", _before(_PROXY_2)),
    "smtp-before": ("SMTP's STARTTLS before it", _behind(b"EHLO a.example.org\r\n", b"STARTTLS\r\n")),
    "pop-before": ("POP's STLS before it", _behind(b"STLS\r\n")),
    "postgresql-before": ("PostgreSQL's request for TLS before it", _behind(b"\0\0\0\x08\x04\xd2\x16\x2f")),
    "mysql-before": ("MySQL's request for TLS before it", _behind(b"\x20\0\0\1\x85\xae\xff\0" + bytes(28))),
    "trailing-message": ("another message behind it in its record", lambda t: [record(message(t) + b"\x0e\0\0\0")]),
    "two-in-a-record": (
        "a harmless hello before it in its record",
        lambda t: [record(hello_12(server_name(_OTHER)) + message(t))],
    ),
    "version-1603": ("record version 22.3", _version(0x1603)),
    "fatal-alert-before": ("a fatal alert before it", _before(record(b"\2\x28", ALERT))),
    "two-alerts-in-a-record": ("a record with two alerts", _before(record(b"\1\x70\1\x70", ALERT))),
    "empty-alert-before": ("an alert record without an alert", _before(record(b"", ALERT))),
    "alert-of-0.0": ("an alert in a record of version 0.0", _before(record(b"\1\x70", ALERT, 0))),
    "sixteen-alerts": ("sixteen warning alerts", _before(record(b"\1\x5a", ALERT) * 16)),
    "forty-alerts": ("forty of them", _before(record(b"\1\x5a", ALERT) * 40)),
    "ccs-of-two-octets": ("ChangeCipherSpec with two octets", _before(record(b"\1\1", 20, 0x0303))),
    "empty-ccs": ("ChangeCipherSpec with nothing", _before(record(b"", 20, 0x0303))),
    "ccs-of-2.0": ("ChangeCipherSpec in a record of version 2.0", _before(record(b"\1", 20, 0x0200))),
    "forty-ccs": ("forty ChangeCipherSpec", _before(record(b"\1", 20, 0x0303) * 40)),
    "ack-record-before": ("an ACK record of DTLS 1.3", _before(record(b"\0\0", 26, 0x0303))),
    "hello-request-joined": ("a HelloRequest in its record", lambda t: [record(b"\0\0\0\0" + message(t))]),
    "unknown-message-before": ("a message of no known type", _before(record(b"\xfe\0\0\1\0"))),
    "alert-of-2.0-inside": ("an alert of version 2.0 inside", _inside(record(b"\1\x70", ALERT, 0x0200))),
    "data-inside": ("application data inside", _inside(record(b"x", APPLICATION_DATA, 0x0303))),
    "record-too-long": (
        "one record of 16,400 octets",
        lambda t: [record(hello_12((PADDING, bytes(16300)), server_name(t.octets)))],
    ),
    "mixed-odd-versions": ("a second record of version 2.0", lambda t: _in_two(t, 20, second=0x0200)),
    "odd-first-version": ("a first record of version 22.3", lambda t: _in_two(t, 20, first=0x1603)),
    "empty-between-octets": (
        "empty records between those of an octet",
        lambda t: [record(b"").join(record(bytes((octet,))) for octet in message(t))],
    ),
    "ftp-before": ("FTP's AUTH TLS before it", _behind(b"AUTH TLS\r\n")),
    "ldap-before": ("LDAP's StartTLS", _behind(b"\x30\x1d\2\1\1\x77\x18\x80\x161.3.6.1.4.1.1466.20037")),
    "rdp-before": ("RDP's request for TLS", _behind(b"\3\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\1\0\0\0")),
    "xmpp-before": ("XMPP's starttls", _behind(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")),
    "hello-version-0505": ("a hello of a version to come", _legacy(0x0505)),
    "sslv2": ("a hello in the format of SSL 2.0", _sslv2),
    "padded-16k": ("padded to over a record", _padded(17000)),
    "padded-64k": ("padded to 64 KiB", _padded(65000)),
    "octets-behind-extensions": (
        "octets behind its extensions",
        lambda t: [record(b"\1" + vector(3, message(t)[4:] + b"\0\0"))],
    ),
    "long-session-id": (
        "a session id of 33 octets",
        lambda t: [records(hello(server_name(t.octets), session_id=b"s" * 33))],
    ),
    "odd-ciphers": ("an odd length of cipher suites", _odd_ciphers),
    "hello-version-0300": ("a hello of SSL 3.0", _legacy(0x0300)),
    "hello-version-0301": ("a hello of TLS 1.0", _legacy(0x0301)),
    "hello-version-0200": ("a hello of version 2.0", _legacy(0x0200)),
    "hello-version-0101": ("a hello of version 1.1, as of TLCP", _legacy(0x0101)),
    "hello-version-0304": ("a hello of version 3.4", _legacy(0x0304)),
    "two-compressions": ("deflate and null compression", _compressions(b"\1\0")),
    "deflate-alone": ("deflate alone", _compressions(b"\1")),
    "no-compressions": ("no compression at all", _compressions(b"")),
    "message-too-short": (
        "a length too short for the hello",
        lambda t: [record(b"\1" + (len(message(t)) - 6).to_bytes(3) + message(t)[4:])],
    ),
    "two-hundred-extensions": (
        "two hundred extensions before the name",
        _extensions(*((0x7000 + number, b"x") for number in range(200))),
    ),
    "ticket-of-another-name": ("a session ticket with another name", _extensions((35, _OTHER))),
    "psk-of-another-name": (
        "a pre-shared key of another name, behind all else",
        lambda t: [records(hello_12(server_name(t.octets), (45, b"\1\1"), (41, _PSK)))],
    ),
    "alpn-of-another-name": ("another name in ALPN", _extensions(alpn(b"h2", _OTHER))),
    "post-quantum": ("a key share of 1,216 octets", _extensions(key_shares([(0x11EC, bytes(1216))]))),
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
    ),
    "name-last": ("the name behind all else", lambda t: [records(_name_last(t))]),
}


_INNOCENT = (
    *("version-0300", "version-0304", "records-of-one-octet", "cut-in-header", "cut-in-name", "mixed-versions"),
    *("padded-16k", "ticket-of-another-name", "alpn-of-another-name", "post-quantum", "grease-everywhere", "name-last"),
)
_UNREAD = frozenset(
    {
        # No server that is known takes these for TLS.
        *("nul-before", "newline-before", "unknown-record-before", "ack-record-before"),
        # Servers of their own protocols do, behind what they answer in it.
        *("smtp-before", "pop-before", "postgresql-before", "mysql-before"),
        *("ftp-before", "ldap-before", "rdp-before", "xmpp-before"),
    }
)


def _cut(*at: int) -> SentPieces:
    """Segments that end at these offsets; negative ones count from the name's end."""

    def pieces(target: Target) -> list[bytes]:
        whole = records(message(target))
        behind = whole.index(target.octets) + len(target.octets)
        edges = [0, *sorted(edge if edge > 0 else behind + edge for edge in at), len(whole)]
        return [whole[start:end] for start, end in pairwise(edges)]

    return pieces


_SEGMENTS: dict[str, tuple[str, SentPieces]] = {
    "one-octet-first": ("one octet, then the rest", _cut(1)),
    "header-first": ("the record's header, then the rest", _cut(5)),
    "cut-in-the-name": ("in two segments, cut inside the name", _cut(-5)),
    "cut-around-the-name": ("in three, cut around the name", _cut(-12, 0)),
    "octet-segments": ("a segment for each octet", lambda t: [bytes((each,)) for each in records(message(t))]),
    "octet-records-in-segments": (
        "records of one octet, in segments of three",
        lambda t: [bytes(three) for three in batched(records(message(t), 1), 3)],
    ),
    "hello-and-more": ("more than the hello at once", lambda t: [records(message(t)) + b"\x14\x03\x03\0\1\1" * 40]),
}
"""An ordinary ClientHello by how its octets are cut into TCP segments, which must not matter."""

_attempt = partial(Attempt, opens=Opens.TLS)


def attempts() -> Iterator[Attempt]:
    """Attempts by the content of the hello, the form of TLS records, what comes before it, and TCP segments."""
    for name, (what, pieces) in _SHAPES.items():
        limit = Limit.OTHER_BYTES if name in _UNREAD else None
        yield _attempt(
            name, what, partial(said, pieces), family=Family.TLS_RECORDS, innocent=name in _INNOCENT, limit=limit
        )
    for name, (what, pieces) in _SEGMENTS.items():
        innocent = name != "hello-and-more"
        yield _attempt(name, what, partial(said, pieces), family=Family.SEGMENTS, innocent=innocent)
