"""The ClientHello reader on handmade bytes: names, records, bounds, and what each kind of nonsense is called.

Outer hellos told from GREASE.
"""

from __future__ import annotations

import pytest

from labs.hello_builder import HelloPieces
from tokgate.evasion import hello as build
from tokgate.wire.client_hello import PUBLIC_NAMES, ClientHello, ClientHelloError, NotTlsError, is_ech_outer, is_grease
from tokgate.wire.hello_reader import (
    MAX_HELLO,
    HelloReader,
    end_of_hello,
    read_client_hello,
    unfinished_early_data,
)
from tokgate.wire.host_names import NameStatus

GREASE = [value << 8 | value for value in range(0x0A, 0x100, 0x10)]
PLAIN = build.hello(
    (0x0A0A, b""),
    build.server_name(b"www.Example.org"),
    build.alpn(b"h2", b"http/1.1"),
    build.supported_versions(0x1A1A, 0x0304, 0x0303),
    build.signature_algorithms(0x0403, 0x2A2A, 0x0804),
    (build.KEY_SHARE, build.vector(2, b"\x11\xec" + build.vector(2, b"q" * 1216))),
    (0x3A3A, b"\0"),
    ciphers=(0x4A4A, 0x1301, 0x1302, 0x00FF),
)


def read(data: bytes) -> ClientHello:
    result = read_client_hello(data)
    assert result is not None
    return result


def problem_of(data: bytes) -> type[ClientHelloError]:
    """Why `data` is refused, by the reader and by the buffer alike."""
    with pytest.raises(ClientHelloError) as whole:
        read_client_hello(data)
    with pytest.raises(ClientHelloError) as piecewise:
        feed_singly(HelloPieces(), data)
    assert piecewise.type is whole.type
    return whole.type


def feed_singly(buffer: HelloPieces, data: bytes) -> list[ClientHello | None]:
    return [buffer.feed(data[i : i + 1]) for i in range(len(data))]


def test_every_fact_of_an_ordinary_hello() -> None:
    """A browser-like hello gives its name as sent and its lists in order, without GREASE."""
    seen = read(build.records(PLAIN))
    assert (seen.name, seen.name_status) == ("www.Example.org", NameStatus.VALID)
    assert seen.ech is False
    assert seen.message == PLAIN
    assert seen.legacy_version == 0x0303
    assert seen.versions == (0x0304, 0x0303)
    assert seen.alpn == (b"h2", b"http/1.1")
    assert seen.ciphers == (0x1301, 0x1302, 0x00FF)
    assert seen.extension_types == (0, 16, 43, 13, 51)
    assert seen.signature_algorithms == (0x0403, 0x0804)
    assert seen.extension(build.KEY_SHARE) == b"\x04\xc4\x11\xec\x04\xc0" + b"q" * 1216
    assert seen.extension(0x9999) is None


LONGEST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    "name",
    [
        *("example.org", "EXAMPLE.org", "example.org.", "localhost", "a", "_dmarc.example.org", "-dash-.example.org"),
        *("xn--bcher-kva.example", "192.0.2.1", "192.0.2.1.", "2001:db8::1", LONGEST, LONGEST + "."),
    ],
)
def test_names_that_are_names(name: str) -> None:
    """A name that DNS could know is kept exactly as sent: case, trailing dot and address literals."""
    seen = read(build.records(build.hello(build.server_name(name.encode()))))
    assert (seen.name, seen.name_status) == (name, NameStatus.VALID)


NO_NAME: dict[NameStatus, tuple[tuple[build.Extension, ...], ...]] = {
    NameStatus.NONE: (
        *((), ((build.PADDING, b"\0" * 9),), ((0, b""),)),
        *((build.server_name(),), (build.server_name(b""),)),
    ),
    NameStatus.MALFORMED: (
        (build.server_name(b"a.example", b"b.example"),),
        (build.server_name(b"a.example", b"a.example"),),
        (build.server_name(b"a." * 150 + b"b", b"b.example"),),
        (build.server_name(b"a.example", b""),),
        (build.server_name(b"a.example"), build.server_name(b"b.example")),
        (build.server_name(b"a.example"),) * 3,
        (build.server_name(b"a.example", kind=1),),
        ((0, b"\0"),),
        ((0, b"\0\3\0\0"),),
        ((0, b"\0\7\0\0\5abcd"),),
        ((0, b"\0\6\0\0\2abcd"),),
        ((0, b"\0\7\0\0\4abcd!"),),
        ((0, b"\0\x09\0\0\4abcd"),),
    ),
    NameStatus.ODD: tuple(
        (build.server_name(name),)
        for name in (
            *(b"a b.example", b"a.example\n", b"a.example\0", b"a.example\0.example.org", b".", b".example.org"),
            *(b"a..example", b"a.example..", b"*.example.org", b"a/b.example", b"user@example.org", b"example.org:443"),
            *(b"[2001:db8::1]", b"fe80::1%eth0", b"1:2", b"8.8.8", b"2130706433", b"0x7f.1", b"www.example.0x10"),
            *(b"x" * 64 + b".example", LONGEST.encode() + b"e", LONGEST.encode() + b"e.", b"a." * 200 + b"example"),
        )
    ),
}


@pytest.mark.parametrize(
    ("extensions", "status"), [(each, status) for status, shown in NO_NAME.items() for each in shown]
)
def test_no_name_and_why(extensions: tuple[build.Extension, ...], status: NameStatus) -> None:
    """A server_name from which no name can be taken is told apart from an absent one, by its own word."""
    seen = read(build.records(build.hello(*extensions)))
    assert (seen.name, seen.name_status) == (None, status)


@pytest.mark.parametrize(
    ("name", "is_host"),
    [(b"example.org", True), (b"192.0.2.1", False), (b"192.0.2.1.", False), (b"2001:db8::1", False)],
)
def test_an_address_names_no_host(name: bytes, is_host: bool) -> None:
    """An address in place of a name says no more than the destination does: a ban on nameless hellos holds."""
    said = read(build.records(build.hello(build.server_name(name))))
    assert (said.names_a_host, said.is_nameless, said.legible) == (is_host, not is_host, ())


LEGIBLE = [
    ((build.server_name(b"a!b.example.org"),), ("a", "b.example.org")),
    ((build.server_name(b"*.example.org"),), ("example.org",)),
    ((build.server_name(b".example.org"),), ("example.org",)),
    ((build.server_name(b"%77ww.example.org"),), ("77ww.example.org",)),
    ((build.server_name(b"x" * 64 + b".example.org"),), ("example.org",)),
    ((build.server_name(b"www.example.org:443"),), ("www.example.org",)),
    ((build.server_name(b"www.example.org/x"),), ("www.example.org", "x")),
    ((build.server_name(b"www..example.org"),), ("www", "example.org")),
    ((build.server_name(b"www.example.org.."),), ("www.example.org",)),
    ((build.server_name(b"www.example.org\0.example.net"),), ("www.example.org", "example.net")),
    ((build.server_name(b" www.example.org\n"),), ("www.example.org",)),
    ((build.server_name("wö.example.org".encode()),), ("wö.example.org", "w", "example.org")),
    ((build.server_name("www。example。org".encode()),), ("www。example。org", "www", "example", "org")),
    ((build.server_name(b"w\xf6.example.org"),), ("w", "example.org")),
    ((build.server_name(b"[2001:db8::1]"),), ("2001:db8::1", "db8")),
    ((build.server_name(b"0x7f.1"),), ()),
    ((build.server_name(b"x." + (b"a." * 200) + b"example"),), (("a." * 123) + "example",)),
    ((build.server_name(b"a.example", b"b.example"),), ("a.example", "b.example")),
    ((build.server_name(b"a.example"), build.server_name(b"b.example")), ("a.example", "b.example")),
    ((build.server_name(b"a.example", kind=1),), ("a.example",)),
    (((0, b"\0\x10\1\0\1x\0\0\x09a.example"),), ("x", "a.example")),
    (((0, b"\0\x09\0\0\4abcd"),), ("abcd",)),
    (((0, b"\0\7\0\0\5abcd"),), ("abcd",)),
    (((0, b"a.example"),), ("example",)),
    ((build.server_name(*(b"a%d.example" % i for i in range(9)), b"www.example.org"),), ("www.example.org",)),
    ((build.server_name(b"example.org"),), ()),
    ((), ()),
]


@pytest.mark.parametrize(("extensions", "parts"), LEGIBLE)
def test_what_is_legible_of_a_name_that_is_none(
    extensions: tuple[build.Extension, ...], parts: tuple[str, ...]
) -> None:
    """Each thing that a server could take for the name is there to be decided about; a valid name stands for itself."""
    seen = read(build.records(build.hello(*extensions)))
    assert set(parts) <= set(seen.legible)
    assert len(seen.legible) <= 8
    assert seen.legible == parts or len(seen.legible) == 8


def test_another_message_in_the_same_record() -> None:
    """A second hello behind the first in its record could be the one that a server goes by: neither is read."""
    data = build.records(PLAIN + PLAIN)
    assert read_client_hello(data[:-1]) is None
    with pytest.raises(ClientHelloError, match="second message"):
        read_client_hello(data)
    bare = build.hello(with_extensions=False)
    assert problem_of(build.records(bare + b"\0\0")) is ClientHelloError  # no extensions of the hello's


def test_without_extensions() -> None:
    """A hello of old may end after its compression methods; then its version is the legacy one."""
    seen = read(build.records(build.hello(with_extensions=False, version=0x0301, session_id=b"")))
    assert (seen.name_status, seen.extension_types, seen.alpn) == (NameStatus.NONE, (), ())
    assert seen.versions == (0x0301,)
    assert seen.ciphers == (0x1301, 0x1302, 0xC02F)


ALERT = b"\x15\3\1\0\2\1\x70"
CHANGE = b"\x14\3\3\0\1\1"
SSLV2 = b"\x80\x2e\1\3\1\0\x15\0\0\0\x10" + b"c" * 37
"""A hello of the kind that servers once took from old clients (RFC 5246 E.2): three octets a cipher, a challenge."""

PASSED_OVER = [
    pytest.param(ALERT, id="warning"),
    pytest.param(ALERT * 16, id="warnings"),
    pytest.param(b"\x15\0\0\0\2\1\x70", id="warning_of_no_version"),
    pytest.param(b"\x15\3\1\0\2\2\x28", id="fatal"),
    pytest.param(b"\x15\3\1\0\0", id="empty_alert"),
    pytest.param(CHANGE, id="change_cipher_spec"),
    pytest.param(b"\x16\3\1\0\0", id="empty_handshake"),
    pytest.param(b"\x17\3\3\0\0", id="empty_data"),
    pytest.param(ALERT + CHANGE + b"\x16\3\1\0\0", id="all"),
]


@pytest.mark.parametrize("odd", PASSED_OVER)
@pytest.mark.parametrize("place", [0, 1, 3, 4, 50])
def test_records_that_some_server_passes_over(odd: bytes, place: int) -> None:
    """Records that don't belong before or inside a hello hide no name that a server behind them would serve."""
    before, after = build.records(PLAIN[:place]) if place else b"", build.records(PLAIN[place:])
    data = before + odd + after
    buffer = HelloPieces()
    assert read(data) == feed_singly(buffer, data)[-1] == read(build.records(PLAIN))
    assert buffer.received == data
    assert end_of_hello(data + CHANGE, read(data)) == len(data)


@pytest.mark.parametrize("version", [0, 2, 0x0200, 0x0300, 0x0304, 0x0401, 0x0FFF, 0x1000, 0x1603, 0x7F1C, 0xFFFF])
def test_record_versions_that_some_server_takes(version: int) -> None:
    """Go's reads records of any version below 0x1000, wolfSSL's a first one of any that holds a hello's beginning."""
    begun = build.records(PLAIN[:4], version=version) + build.records(PLAIN[4:])
    gone_on = build.records(PLAIN[:50]) + build.records(PLAIN[50:], version=version)
    for data in (build.records(PLAIN, version=version), begun, *([gone_on] if version < 0x1000 else [])):
        assert read(data).name == "www.Example.org"


@pytest.mark.parametrize("size", [1, 255, 256, 1000, len(PLAIN)])
def test_where_a_hello_ends(size: int) -> None:
    """What stands behind the records of a hello goes on to the server as it came: not an octet more or less."""
    data = build.records(PLAIN, size)
    assert [end_of_hello(data + rest, read(data)) for rest in (b"", DATA, build.records(PLAIN))] == [len(data)] * 3
    first = 5 + min(size, len(PLAIN))
    for part in (b"", data[:4], data[:first], data[: first + 4]):  # the rest was passed on before
        assert end_of_hello(part, read(data)) == (first if len(part) >= first else 0)


DATA = b"\x17\3\3\1\2" + b"e" * 258


@pytest.mark.parametrize(
    ("behind", "unfinished"),
    [
        (b"", b""),
        (DATA, b""),
        (CHANGE + DATA + DATA, b""),
        (b"\x17", b"\x17"),
        (DATA + DATA[:4], DATA[:4]),
        (CHANGE + DATA[:5], DATA[:5]),
        (DATA + DATA[:-1], DATA[:-1]),
        (build.records(PLAIN), None),
        (DATA + b"\x16", None),
        (ALERT, None),
        (b"GET / HTTP/1.1\r\n", None),
    ],
)
def test_early_data_that_goes_on(behind: bytes, unfinished: bytes | None) -> None:
    """A second hello is looked for behind the early data, where its last record ends, and nowhere in it."""
    assert unfinished_early_data(behind) == unfinished


def test_early_data_before_a_second_hello() -> None:
    """What a client said too early stands between a HelloRetryRequest and the second hello, and is passed over."""
    received = bytearray(b"\x17\3\3\0\5early" + CHANGE)
    reader = HelloReader(received, early_data=True)
    assert reader.read() is None
    received += build.records(PLAIN) + b"more"
    assert reader.read() == read(build.records(PLAIN))
    assert received[reader.end :] == b"more"


def body(octets: bytes) -> bytes:
    """A hello of these octets, in a record."""
    return build.records(b"\1" + build.vector(3, octets))


NO_HELLO = [
    (b"GET / HTTP/1.1\r\n", NotTlsError),
    (b"\x17\x03\x03\x00\x05", ClientHelloError),
    (b"\x17" + build.records(PLAIN)[1:], ClientHelloError),
    (build.records(build.hello((build.PADDING, bytes(16384))), size=32768), ClientHelloError),
    (b"\x18\x03\x01\x00\x03\1\0\0", ClientHelloError),
    (b"\x15\x03\x01\x00\x03\x02\x28\0", ClientHelloError),
    (b"\x15\x02\x01\x00\x03\x02\x28\0", NotTlsError),
    (b"\x14\x03\x01\x00\x02\1\1", ClientHelloError),
    (b"\x19\x03\x01\x00\x01\1", NotTlsError),
    (b"\x16\x02\x00\x00\x05\x02", NotTlsError),
    (b"\x16\x04\x00\x40\x01", NotTlsError),
    (b"\x16\x10\0\0\3", NotTlsError),
    (b"\x16\x10\0\0\x20\2", NotTlsError),
    (b"\x15\x10", NotTlsError),
    (b"\x16\xfe\xfd\x00\x00\x00\x00", NotTlsError),
    (b"\x00", NotTlsError),
    (SSLV2[:11], ClientHelloError),
    (b"\x80\x3e\1\3\1\0\x15\0\x10\0\x10" + b"c" * 53, ClientHelloError),
    (SSLV2[:1] + b"\x2f" + SSLV2[2:], NotTlsError),
    (b"\x80\x2e\x02", NotTlsError),
    (b"\xff\xff\xff\xff", NotTlsError),
    (b"\x16\x03\x01\x00\x00" * 14_000, ClientHelloError),
    (build.records(PLAIN[:50]) + b"\x17\x03\x03\x00\x01x", ClientHelloError),
    (build.records(PLAIN[:50]) + b"\x80", ClientHelloError),
    (build.records(PLAIN[:50]) + b"\x16\x10", ClientHelloError),
    (ALERT + b"GET / HTTP/1.1", ClientHelloError),
    (b"\x16\x03\x01\x40\x01", ClientHelloError),
    (build.records(PLAIN[:50]) + b"\x16\x03\x01\x40\x01", ClientHelloError),
    (b"\x15\0\0\0\2\1\x70\x16\x03\x01\x40\x01", ClientHelloError),
    (build.records(b"\2\0\0\4\0\0\0\0"), ClientHelloError),
    (build.records(b"\0\0\0\0" + PLAIN), ClientHelloError),
    (b"\x16\x03\x01\x10\x00\x02", ClientHelloError),
    (build.records(PLAIN + bytes(16384), size=32768), ClientHelloError),
    (b"\x16\x03\x01\x10\x00\x01\x01\x00\x00", ClientHelloError),
    (b"\x16\x02\x01\x40\x00\x01\x00\xff\xff", ClientHelloError),
    (b"\x16\x03\x01\x00\x01\x01" * 4, ClientHelloError),
    (build.records(b"\1\0\0\0"), ClientHelloError),
    (body(b"\3\3" + b"r" * 31), ClientHelloError),
    (build.records(build.hello(session_id=b"s" * 33)), ClientHelloError),
    (build.records(build.hello(ciphers=())), ClientHelloError),
    (build.records(build.hello(compressions=b"")), ClientHelloError),
    (body(build.hello()[4:] + b"\0"), ClientHelloError),
    (body(build.hello()[4:] + b"\0\0\0\0"), ClientHelloError),
    (body(build.hello()[4:-2] + b"\0"), ClientHelloError),
    (body(build.hello()[4:-2] + b"\0\1"), ClientHelloError),
    (body(build.hello()[4:-2] + build.vector(2, b"\0\0\0")), ClientHelloError),
    (body(build.hello()[4:-2] + build.vector(2, b"\0\0\0\5\0\2\0\0")), ClientHelloError),
    (body(b"\3\3" + b"r" * 32 + b"\0" + build.vector(2, b"\x13\1\x13") + b"\1\0"), ClientHelloError),
]


@pytest.mark.parametrize(("data", "problem"), NO_HELLO)
def test_what_can_never_become_a_hello(data: bytes, problem: type[ClientHelloError]) -> None:
    """Bytes that no continuation can save are refused under the same word however they arrive."""
    assert problem_of(data) is problem


def padded_to(stream_octets: int) -> bytes:
    """A hello for example.org that takes exactly this many octets of stream in records of full size."""
    message = stream_octets - 5 * -(-stream_octets // (16384 + 5))
    bare = len(build.hello(build.server_name(b"example.org"), (build.PADDING, b"")))
    return build.records(build.hello(build.server_name(b"example.org"), (build.PADDING, b"\0" * (message - bare))))


def test_the_cap_to_the_octet() -> None:
    """A hello that ends with the 65,536th octet of the stream is read, one that ends a single octet later is not."""
    data = padded_to(MAX_HELLO)
    assert len(data) == MAX_HELLO
    assert read(data).name == "example.org"
    too_long = padded_to(MAX_HELLO + 1)
    assert len(too_long) == MAX_HELLO + 1
    assert problem_of(too_long) is ClientHelloError


def test_an_endless_hello_is_refused_at_the_cap() -> None:
    """Tiny records can't stretch a hello past the cap, although its own length is within it."""
    buffer = HelloPieces()
    with pytest.raises(ClientHelloError, match=r"^too long$"):
        feed_singly(buffer, build.records(b"\1\0\xf0\0" + b"\0" * 0xF000, size=1))
    assert len(buffer.received) == MAX_HELLO // 6 * 6 + 5  # the header of the record that would pass it


def test_grease_is_exactly_the_reserved_values() -> None:
    assert [value for value in range(0x10000) if is_grease(value)] == GREASE


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\5\2h2", b"\0\4\2h2", b"\0\3\5h2", b"\0\1"])
def test_unreadable_lists_are_empty(body: bytes) -> None:
    """Lists with wrong lengths inside give an empty tuple: the log does without, and nothing raises."""
    seen = read(
        build.records(
            build.hello((build.ALPN, body), (build.SIGNATURE_ALGORITHMS, body), (build.SUPPORTED_VERSIONS, body))
        )
    )
    assert (seen.alpn, seen.signature_algorithms, seen.versions) == ((), (), ())


def test_alpn_keeps_empty_names_and_drops_grease() -> None:
    """GREASE among the protocols (RFC 8701 §2) is left out; an odd but readable list is shown as it is."""
    seen = read(build.records(build.hello(build.alpn(b"\x0a\x0a", b"", b"h2", b"\xff"))))
    assert seen.alpn == (b"", b"h2", b"\xff")


NAMED, ECH = build.server_name, build.ech()


@pytest.mark.parametrize(
    ("extensions", "outer"),
    [
        *(((NAMED(name.encode()), ECH), True) for name in (*sorted(PUBLIC_NAMES), "Cloudflare-ECH.com")),
        ((NAMED(b"cloudflare-ech.com."), ECH), True),
        *(((NAMED(name.encode()),), False) for name in sorted(PUBLIC_NAMES)),
        *(((NAMED(name), ECH), False) for name in (b"www.cloudflare-ech.com", b"notcloudflare-ech.com")),
        ((NAMED(b"www.example.org"), ECH), False),
        ((ECH,), False),
        ((NAMED(b"cloudflare-ech.com", b"cloudflare-ech.com"), ECH), False),
        ((NAMED(b"ech.example.org"), ECH), False),
    ],
)
def test_outer_hellos(extensions: tuple[build.Extension, ...], outer: bool) -> None:
    """A known public name together with the extension hides another; beside other names that is GREASE."""
    seen = read(build.records(build.hello(*extensions)))
    assert is_ech_outer(seen) is outer
    assert is_ech_outer(seen, frozenset({"ech.example.org"})) is (seen.name == "ech.example.org")
