"""The ClientHello reader on hellos that OpenSSL and Chromium wrote, side by side with mitmproxy's parser."""

from __future__ import annotations

import shutil
import ssl

import pytest
from mitmproxy.proxy.layers.tls import parse_client_hello

from labs import hello_builder as build
from labs.hello_pieces import HelloPieces
from tokgate.wire.client_hello import REFUSAL, ClientHello, is_ech_outer, is_grease, ja4
from tokgate.wire.hello_reader import read_client_hello
from tokgate.wire.host_names import NameStatus

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
    assert seen.name_status is (NameStatus.VALID if name else NameStatus.NONE)
    assert seen.ech is False
    assert [protocol.decode() for protocol in seen.alpn] == settings.get("alpn", [])


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


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_understands_a_refusal(version: ssl.TLSVersion) -> None:
    """OpenSSL, offering TLS 1.2 or 1.3, gives up at the record and names the alert."""
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="example.org")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(REFUSAL)
    with pytest.raises(ssl.SSLError) as caught:
        client.do_handshake()
    assert "UNRECOGNIZED_NAME" in caught.value.reason


def test_no_alert_leaves_a_client_waiting() -> None:
    """Without the record the same client goes on waiting: the test above measures the alert."""
    incoming = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="example.org")
    for _ in range(2):
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
