"""JA4 against the values in its specification."""

from __future__ import annotations

import ssl

import pytest
from mitmproxy.proxy.layers.tls import parse_client_hello

from labs.builders import present
from labs.hello_builder import chromium_hello, openssl_hello
from tokgate.evasion import hello as build
from tokgate.wire.client_hello import ClientHello, is_ech_outer, is_grease, ja4
from tokgate.wire.hello_reader import read_client_hello

# The example of https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md, with GREASE sprinkled in.
CIPHERS = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"
KINDS = "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"
SCHEMES = "0403,0804,0401,0503,0805,0501,0806,0601"


def numbers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split(",") if word]


def example(*, schemes: str = SCHEMES, without: tuple[int, ...] = ()) -> bytes:
    """The specification's example as a hello."""
    bodies = dict(
        [
            build.server_name(b"example.org"),
            build.alpn(b"h2", b"http/1.1"),
            build.supported_versions(0x0A0A, 0x0304, 0x0303),
            build.signature_algorithms(0x1A1A, *numbers(schemes)),
        ]
    )
    extensions = [(kind, bodies.get(kind, b"\0")) for kind in numbers(KINDS) if kind not in without]
    return build.records(build.hello((0x2A2A, b""), *extensions, (0xFAFA, b"\0"), ciphers=[0x3A3A, *numbers(CIPHERS)]))


def fingerprint(data: bytes) -> str:
    seen = present(read_client_hello(data))
    return ja4(seen)


def test_the_published_example() -> None:
    """The specification's hello has the specification's fingerprint, over TCP and over QUIC."""
    seen = present(read_client_hello(example()))
    assert ja4(seen) == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    assert ja4(seen, "q") == "q13d1516h2_8daaf6152771_e5627efa2ab1"


def test_the_published_example_without_signature_algorithms() -> None:
    """An empty list of signature algorithms leaves no underscore behind: the specification's second hash."""
    assert fingerprint(example(schemes="")) == "t13d1516h2_8daaf6152771_6d807ffa2a79"


def test_name_and_alpn_count_but_are_not_hashed() -> None:
    assert fingerprint(example(without=(0, 16))) == "t13i151400_8daaf6152771_e5627efa2ab1"


def test_nothing_to_hash() -> None:
    """Empty lists are twelve zeros, and counts stop at 99."""
    assert fingerprint(build.records(build.hello(with_extensions=False, ciphers=[0x0A0A]))) == (
        "t12i000000_000000000000_000000000000"
    )
    many = build.hello(*[(1000 + i, b"") for i in range(120)], ciphers=range(1, 200))
    assert fingerprint(build.records(many)).startswith("t12i999900_")


@pytest.mark.parametrize(
    ("protocol", "ends"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"x", "xx"),
        (b"", "00"),
        (b"\xab", "ab"),
        (b"\x20", "20"),
        (b"\xab\xcd", "ad"),
        (b"\x20\x61", "21"),
        (b"\x30\xab", "3b"),
        (b"\x61\x20", "60"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
    ],
)
def test_alpn_ends(protocol: bytes, ends: str) -> None:
    """First and last character of the first protocol, by the specification's own table."""
    assert fingerprint(build.records(build.hello(build.alpn(protocol, b"zz"))))[8:10] == ends


@pytest.mark.parametrize(
    ("legacy", "supported", "word"),
    [
        (0x0303, (0x0303, 0x0304), "13"),
        (0x0303, (0x0303, 0x0302, 0xFAFA), "12"),
        (0x0303, None, "12"),
        (0x0302, None, "11"),
        (0x0301, None, "10"),
        (0x0300, None, "s3"),
        (0x0002, None, "s2"),
        (0x0305, None, "00"),
        (0x0303, (0x0A0A,), "00"),
    ],
)
def test_version(legacy: int, supported: tuple[int, ...] | None, word: str) -> None:
    """The highest of supported_versions without GREASE, else the legacy version, else 00."""
    extensions = [build.supported_versions(*supported)] if supported else []
    assert fingerprint(build.records(build.hello(*extensions, version=legacy)))[1:3] == word


# The ClientHello reader on hellos that OpenSSL and Chromium wrote, side by side with mitmproxy's parser.


def assert_same_as_mitmproxy(data: bytes) -> ClientHello:
    """Compare every fact that both readers know."""
    ours, theirs = read_client_hello(data), parse_client_hello(data)
    assert ours is not None
    assert theirs is not None
    assert ours.name == theirs.sni
    assert ours.message[4:] == theirs.raw_bytes(wrap_in_record=False)
    assert list(ours.alpn) == theirs.alpn_protocols
    assert list(ours.ciphers) == [cipher for cipher in theirs.cipher_suites if not is_grease(cipher)]
    assert list(ours.extension_types) == [kind for kind, _ in theirs.extensions if not is_grease(kind)]
    return ours


@pytest.mark.parametrize("name", ["www.example.org", None])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_openssl(name: str | None, newest: ssl.TLSVersion) -> None:
    seen = assert_same_as_mitmproxy(openssl_hello(name, maximum_version=newest, alpn=["h2", "http/1.1"]))
    assert (seen.name, seen.alpn) == (name, (b"h2", b"http/1.1"))


def test_chromium() -> None:
    """A browser's hello: more than a segment, GREASE left out, ECH seen but not mistaken for a hidden name."""
    data = chromium_hello()
    assert len(data) > 1460
    seen = assert_same_as_mitmproxy(data)
    assert (seen.name, seen.ech, is_ech_outer(seen)) == ("www.example.org", True, False)
    assert (seen.alpn, seen.versions) == ((b"h2", b"http/1.1"), (0x0304, 0x0303))
    share = present(seen.extension(build.KEY_SHARE))
    assert b"\x11\xec\x04\xc0" in share
    # the middle part is the one that FoxIO publishes for Chrome's ciphers
    assert ja4(seen) == "t13d1517h2_8daaf6152771_cb7bf5808d99"
