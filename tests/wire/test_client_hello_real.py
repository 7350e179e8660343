"""The ClientHello reader on hellos that OpenSSL and Chromium wrote, side by side with mitmproxy's parser."""

from __future__ import annotations

import shutil
import ssl

import pytest
from mitmproxy.net.check import is_valid_host
from mitmproxy.proxy.layers.tls import parse_client_hello

from labs import hello_builder as build
from labs.hello_pieces import HelloPieces
from tokgate.wire.client_hello import ClientHello, is_ech_outer, is_grease
from tokgate.wire.hello_reader import read_client_hello
from tokgate.wire.host_names import NameStatus
from tokgate.wire.ja4 import ja4

LONG = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 49, "example.org"])

PYTHON_HELLOS = [
    pytest.param({"name": "www.example.org"}, id="default"),
    pytest.param({"name": None}, id="no_name"),
    pytest.param({"name": "WWW.Example.ORG"}, id="upper_case"),
    pytest.param({"name": "192.0.2.7"}, id="address_as_name"),
    pytest.param({"name": LONG}, id="longest_name"),
    pytest.param({"maximum_version": ssl.TLSVersion.TLSv1_2}, id="tls12"),
    pytest.param({"minimum_version": ssl.TLSVersion.TLSv1_3}, id="tls13_only"),
    pytest.param({"alpn": ["h2", "http/1.1"]}, id="alpn"),
    pytest.param({"alpn": ["x" * 255]}, id="long_alpn"),
    pytest.param(
        {"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}, id="one_cipher"
    ),
]


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


@pytest.mark.parametrize("settings", PYTHON_HELLOS)
def test_python_ssl(settings: dict[str, object]) -> None:
    """Whatever Python's ssl is set to, both readers see the same, and ours sees what was asked for."""
    data = build.openssl_hello(**settings)  # type: ignore[arg-type]
    seen = assert_same_as_mitmproxy(data)
    name = settings.get("name", "www.example.org")
    if name == "192.0.2.7":
        name = None  # OpenSSL keeps to RFC 6066 §3 and sends no address as a name
    assert seen.name == name
    assert seen.name_status is (NameStatus.VALID if name else NameStatus.ABSENT)
    assert seen.ech is False
    assert [protocol.decode() for protocol in seen.alpn] == settings.get("alpn", [])


@pytest.mark.parametrize(
    ("settings", "versions"),
    [
        ({}, (0x0304, 0x0303)),
        ({"minimum_version": ssl.TLSVersion.TLSv1_3}, (0x0304,)),
        ({"maximum_version": ssl.TLSVersion.TLSv1_2}, (0x0303,)),
    ],
)
def test_versions_of_python_ssl(settings: dict[str, object], versions: tuple[int, ...]) -> None:
    """The versions read are those that the client was allowed to speak."""
    seen = read_client_hello(build.openssl_hello(**settings))  # type: ignore[arg-type]
    assert seen is not None
    assert seen.versions == versions


def test_real_hello_split_at_every_octet() -> None:
    """A real hello is incomplete at every cut, for mitmproxy too, and complete at the end."""
    data = build.openssl_hello(alpn=["h2"])
    buffer = HelloPieces()
    for end in range(1, len(data)):
        assert read_client_hello(data[:end]) is None
        assert buffer.feed(data[end - 1 : end]) is None
    assert buffer.feed(data[-1:]) == read_client_hello(data)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        pytest.param(("-servername", "www.example.org", "-alpn", "h2,http/1.1"), "www.example.org", id="name_and_alpn"),
        pytest.param(("-noservername",), None, id="no_name"),
        pytest.param(("-servername", "www.example.org", "-tls1_2"), "www.example.org", id="tls12"),
        pytest.param(("-servername", "example.org."), "example.org.", id="trailing_dot"),
        pytest.param(("-servername", "two words"), None, id="invalid_name"),
    ],
)
def test_s_client(arguments: tuple[str, ...], name: str | None) -> None:
    """The same for the openssl command, which also sends names that are none."""
    seen = assert_same_as_mitmproxy(build.s_client_hello(*arguments))
    assert seen.name == name


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_post_quantum_key_share() -> None:
    """A hello with an X25519MLKEM768 key share passes one Ethernet segment; it is read however TCP cuts it."""
    data = build.s_client_hello("-servername", "www.example.org", "-groups", "X25519MLKEM768:X25519")
    seen = assert_same_as_mitmproxy(data)
    share = seen.extension(build.KEY_SHARE)
    assert share is not None
    assert share[2:4] == b"\x11\xec"
    assert len(data) > 1400
    for mss in (536, 1220, 1380):
        buffer = HelloPieces()
        results = [buffer.feed(data[i : i + mss]) for i in range(0, len(data), mss)]
        assert results[-1] == seen
        assert not any(results[:-1])


def test_chromium() -> None:
    """A browser's hello: more than a segment, GREASE left out, ECH seen but not mistaken for a hidden name."""
    data = build.chromium_hello()
    assert len(data) > 1460
    seen = assert_same_as_mitmproxy(data)
    assert (seen.name, seen.ech, is_ech_outer(seen)) == ("www.example.org", True, False)
    assert (seen.alpn, seen.versions) == ((b"h2", b"http/1.1"), (0x0304, 0x0303))
    share = seen.extension(build.KEY_SHARE)
    assert share is not None
    assert b"\x11\xec\x04\xc0" in share
    # the middle part is the one that FoxIO publishes for Chrome's ciphers
    assert ja4(seen) == "t13d1517h2_8daaf6152771_cb7bf5808d99"


def test_the_builder_makes_ordinary_hellos() -> None:
    """The hello that other tests take from the builder is one that mitmproxy reads just the same."""
    seen = assert_same_as_mitmproxy(build.hello_for("www.example.org", build.ech()))
    assert (seen.name, seen.ech, seen.alpn, seen.versions) == ("www.example.org", True, (b"h2",), (0x0304, 0x0303))


NAMES = [
    b"example.org",
    b"EXAMPLE.org.",
    b"a_b.example",
    b"192.0.2.1",
    b"2001:db8::1",
    b"a b",
    b"",
    b".",
    b"a..b",
    b"*.a",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_as_mitmproxy_sees_them(name: bytes) -> None:
    """Both readers agree which bytes are a host's name."""
    data = build.records(build.hello(build.server_name(name)))
    seen = read_client_hello(data)
    theirs = parse_client_hello(data)
    assert seen is not None
    assert theirs is not None
    assert seen.name == theirs.sni


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"example.org\n", id="newline_passes_a_dollar_sign"),
        pytest.param(b"fe80::1%eth0", id="zone"),
        pytest.param(".".join(["a" * 63] * 3 + ["b" * 62]).encode(), id="254_octets"),
    ],
)
def test_names_on_which_we_differ(name: bytes) -> None:
    """The known differences, each on purpose: names that DNS can't know."""
    seen = read_client_hello(build.records(build.hello(build.server_name(name))))
    assert seen is not None
    assert seen.name_status is not NameStatus.VALID
    assert is_valid_host(name)
