"""What a client asks a proxy for: requests to be connected, in pieces and malformed; authorities; credentials."""

from __future__ import annotations

import base64
import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.proxy_request import (
    MAX_HEAD,
    Authority,
    ConnectReader,
    ConnectRequest,
    ConnectRequestError,
    Credentials,
    read_authority,
    read_basic,
    read_password,
)

HEAD = b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\nProxy-Authorization: Basic YTpi\r\n\r\n"


@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"Host: www.example.org:443\r\n", b"")], ids=["", "no-host"])
def test_a_head_whole_and_in_pieces(head: bytes) -> None:
    """Where it goes, who asks, and what came behind it, however the head is cut; old programs name no Host."""
    expected = ConnectRequest("www.example.org", 443, b"Basic YTpi", b"\x16\3")
    assert ConnectReader().feed(head + b"\x16\3") == expected
    reader = ConnectReader()
    assert not any(reader.feed(head[i : i + 1]) for i in range(len(head) - 1))
    assert reader.feed(head[-1:] + b"\x16\3") == expected


@pytest.mark.parametrize(
    ("host", "named"),
    [
        (b"WWW.example.org", ""),
        (b"www.example.org:80", ""),
        (b"clips.example.org:443", "clips.example.org"),
        (b"a b", ""),
        (b"", ""),
    ],
)
def test_another_host(host: bytes, named: str) -> None:
    """A field that names another host is told: some proxy might follow it."""
    request = ConnectReader().feed(b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert request is not None
    assert request.named == named


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT www.example.org HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT www.example.org:443 HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET www.example.org:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://www.example.org/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nX: " + b"x" * MAX_HEAD,
    ],
)
def test_what_is_no_connect(head: bytes) -> None:
    """A head that names no host and port, or has no end, gets no tunnel."""
    with pytest.raises(ConnectRequestError):
        ConnectReader().feed(head)


def test_the_cost_of_an_octet_is_constant() -> None:
    """A head in single octets costs as much for each octet at its end as at its beginning."""
    costs = []
    for length in (6_000, 60_000):
        runs = []
        for _ in range(3):
            reader = ConnectReader()
            started = time.process_time()
            reader.feed(HEAD[:-2] + b"X: ")
            for _ in range(length):
                reader.feed(b"x")
            runs.append((time.process_time() - started) / length)
        costs.append(min(runs))
    assert costs[1] < 4 * costs[0]


@pytest.mark.parametrize(
    ("raw", "host", "port"),
    [
        ("example.org", "example.org", None),
        ("example.org:8080", "example.org", 8080),
        ("example.org:", "example.org", None),
        ("Example.ORG.:443", "Example.ORG.", 443),
        ("a_b.example.org", "a_b.example.org", None),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
        ("192.0.2.1:80", "192.0.2.1", 80),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("[2001:DB8::1]:443", "2001:DB8::1", 443),
        ("[::ffff:192.0.2.1]:443", "::ffff:192.0.2.1", 443),
        ("[2001:db8::1]:", "2001:db8::1", None),
        ("example.org:00443", "example.org", 443),
        ("example.org:1", "example.org", 1),
        ("example.org:65535", "example.org", 65535),
    ],
)
def test_host_and_port(raw: str, host: str, port: int | None) -> None:
    """A host comes out as it was sent, an IPv6 address without brackets; a port only if there is one."""
    assert read_authority(raw) == Authority(host, port)


@pytest.mark.parametrize(
    "raw",
    [
        *("", ":443", ":", "user@example.org", "user:secret@example.org:443", "example.org@", "@example.org"),
        *("bücher.example", "example.org:４４３", "example。org", "\udcfcbercher.example", " example.org"),
        *("example.org ", "example.org\r\nHost: other.example", "example.org\n", "a.example, b.example"),
        *("a..example", "www%2eexample.org", "example.org/path", "example.org?query", "example.org#part"),
        *("example.org\\", "*", "2130706433:443", "0x7f.1", "192.0.2.01", "http://example.org"),
        *("x" * 64 + ".example", "[", "[]", "[]:443", "[2001:db8::1", "[2001:db8::1]443", "[2001:db8::1]x:443"),
        *("[[2001:db8::1]]", "[fe80::1%25eth0]", "[v1.fe]", "[192.0.2.1]", "[example.org]", "2001:db8::1", "::1"),
        *("example.org:0", "example.org:65536", "example.org:+443", "example.org:-1", "example.org:4 43"),
        *("example.org:4_43", "example.org:0x1bb", "example.org:https", "example.org:443:443"),
        *("[2001:db8::1]:443x", "example.org:" + "9" * 5000),
    ],
)
def test_no_host(raw: str) -> None:
    """What names no host, or no port, is nothing to decide about."""
    assert read_authority(raw) is None


@given(raw=st.text(max_size=60) | st.text("ab.:[]@%0123456789 ", max_size=30))
def test_any_text_gives_a_value(raw: str) -> None:
    """Nothing raises; a host that comes out is readable again in the form that an authority wants."""
    result = read_authority(raw)
    if result is None:
        return
    host = f"[{result.host}]" if ":" in result.host else result.host
    again = host if result.port is None else f"{host}:{result.port}"
    assert read_authority(again) == result
    assert again.lower() in raw.lower() or "0" in raw


def basic(said: str) -> str:
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


@pytest.mark.parametrize(
    ("said", "credentials"),
    [
        (b"\x01\x05alice\x06secret", Credentials("alice", "secret")),
        (b"\x01\x05alice\x00", Credentials("alice", "")),
        (b"\x01\x00\x00", Credentials("", "")),
    ],
)
def test_passwords_in_pieces(said: bytes, credentials: Credentials) -> None:
    """Complete with anything behind it, also if it is empty; incomplete at every shorter length."""
    assert read_password(said) == read_password(said + b"more") == (credentials, len(said))
    assert all(read_password(said[:length]) is None for length in range(len(said)))


@pytest.mark.parametrize("said", [b"\x05\x01\x00", b"\x01\x01\xff\x01x"])
def test_wrong_passwords(said: bytes) -> None:
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
