"""Alert records, octet by octet and as a real TLS client takes them."""

from __future__ import annotations

import ssl

import pytest

from tokgate.wire.tls_alert import Alert


def test_octets() -> None:
    """Content type, version, length, level and description stand where RFC 8446 puts them."""
    assert Alert.UNRECOGNIZED_NAME.record == bytes.fromhex("15 03 03 00 02 02 70")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("alert", Alert)
def test_a_client_understands(alert: Alert, version: ssl.TLSVersion) -> None:
    """OpenSSL, offering TLS 1.2 or 1.3, gives up at the record and names the alert."""
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="example.org")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(alert.record)
    with pytest.raises(ssl.SSLError) as caught:
        client.do_handshake()
    assert alert.name in caught.value.reason


def test_no_alert_leaves_a_client_waiting() -> None:
    """Without the record the same client goes on waiting: the test above measures the alert."""
    incoming = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="example.org")
    for _ in range(2):
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
