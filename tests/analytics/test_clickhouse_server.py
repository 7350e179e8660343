"""A server's address: what a URL says, and what it must not say."""

import pytest

from tokgate.analytics.clickhouse_server import ServerAddress


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://alice@ch.example.org", "https://alice@ch.example.org:8443/tokgate"),
        ("https://alice@ch.example.org:443/logs", "https://alice@ch.example.org:443/logs"),
        ("http://localhost", "http://default@localhost:8123/tokgate"),
        ("http://a%40b@[::1]:8123/x", "http://a@b@[::1]:8123/x"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    """Defaults are those of ClickHouse; the password is never shown."""
    address = ServerAddress.parse(text, "secret" if "localhost" in text else "")
    assert str(address) == shown
    assert "secret" not in repr(address)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://alice:secret@ch.example.org", "password does not belong"),
        ("http://ch.example.org", "in the clear"),
        ("clickhouse.example.org", "a server is https"),
        ("https://ch.example.org/a/b", "the database and nothing else"),
        ("https://ch.example.org/x?user=y", "the database and nothing else"),
        ("https://ch.example.org/a;DROP", "letters, digits"),
        ("https://ch.example.org:99999999", "port"),
    ],
)
def test_what_is_no_address(text: str, why: str) -> None:
    """It says what is wrong, and repeats nothing that might be a password."""
    with pytest.raises(ValueError, match=f"(?i){why}") as raised:
        ServerAddress.parse(text, "not-to-be-sent")
    assert "secret" not in str(raised.value)
