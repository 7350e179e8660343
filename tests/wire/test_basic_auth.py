"""Names and passwords as clients say them: whole, in pieces, and wrong."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.basic_auth import Credentials, read_basic, read_password


def basic(said: str) -> str:
    """A field's value."""
    return "Basic " + base64.b64encode(said.encode()).decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (basic("alice:secret"), Credentials("alice", "secret")),
        (basic("alice:se:cret:"), Credentials("alice", "se:cret:")),
        (basic("alice:"), Credentials("alice", "")),
        (basic("Zoë:pässword"), Credentials("Zoë", "pässword")),
        ("bAsIc  " + basic("alice:secret")[6:] + " ", Credentials("alice", "secret")),
        (basic(":secret"), None),
        (basic("alice"), None),
        ("Basic", None),
        ("Basic !!!", None),
        ("Basic YWxpY2U6c2VjcmV0=", None),
        ("Basic " + base64.b64encode(b"\xff\xfe:x").decode(), None),
        ("Bearer YWxpY2U6c2VjcmV0", None),
        ("", None),
        (None, None),
    ],
)
def test_basic(value: str | None, expected: Credentials | None) -> None:
    """The first colon ends the name; what can't be read is nothing."""
    assert read_basic(value) == expected


def test_password_in_pieces() -> None:
    """Complete with anything behind it; incomplete at every shorter length."""
    said = b"\x01\x05alice\x06secret"
    assert read_password(said) == read_password(said + b"more") == (Credentials("alice", "secret"), len(said))
    assert all(read_password(said[:length]) is None for length in range(len(said)))


def test_an_empty_password() -> None:
    """A client that sends none is answered, and not waited for."""
    assert read_password(b"\x01\x05alice\x00") == (Credentials("alice", ""), 8)
    assert read_password(b"\x01\x00\x00") == (Credentials("", ""), 3)


@pytest.mark.parametrize("said", [b"\x05\x01\x00", b"\x01\x01\xff\x01x"])
def test_wrong_passwords(said: bytes) -> None:
    """Another version, and what is no text, are errors."""
    with pytest.raises(ValueError, match=r"."):
        read_password(said)


def test_passwords_are_not_shown() -> None:
    """Whoever prints credentials prints no password."""
    assert "secret" not in repr(read_basic(basic("alice:secret")))


@given(st.text(), st.binary(max_size=40))
def test_garbage(text: str, data: bytes) -> None:
    """Nothing that anybody can send is more than nothing, or a ValueError."""
    read_basic(text)
    read_basic(f"Basic {text}")
    with contextlib.suppress(ValueError):
        read_password(b"\x01" + data)
