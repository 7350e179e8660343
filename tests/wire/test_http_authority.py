"""HTTP authorities: what names a host, what doesn't, and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.http_authority import (
    Authority,
    AuthorityProblem,
    InvalidAuthority,
    read_authority,
    read_connect_target,
)


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
    ("raw", "problem"),
    [
        ("", AuthorityProblem.EMPTY),
        (":443", AuthorityProblem.EMPTY),
        (":", AuthorityProblem.EMPTY),
        ("user@example.org", AuthorityProblem.USERINFO),
        ("user:secret@example.org:443", AuthorityProblem.USERINFO),
        ("example.org@", AuthorityProblem.USERINFO),
        ("@example.org", AuthorityProblem.USERINFO),
        ("bücher.example", AuthorityProblem.NOT_ASCII),
        ("example.org:４４３", AuthorityProblem.NOT_ASCII),
        ("example。org", AuthorityProblem.NOT_ASCII),
        ("\udcfcbercher.example", AuthorityProblem.NOT_ASCII),
        (" example.org", AuthorityProblem.INVALID_HOST),
        ("example.org ", AuthorityProblem.INVALID_HOST),
        ("example.org\r\nHost: other.example", AuthorityProblem.INVALID_HOST),
        ("example.org\n", AuthorityProblem.INVALID_HOST),
        ("a.example, b.example", AuthorityProblem.INVALID_HOST),
        ("a..example", AuthorityProblem.INVALID_HOST),
        ("www%2eexample.org", AuthorityProblem.INVALID_HOST),
        ("example.org/path", AuthorityProblem.INVALID_HOST),
        ("example.org?query", AuthorityProblem.INVALID_HOST),
        ("example.org#part", AuthorityProblem.INVALID_HOST),
        ("example.org\\", AuthorityProblem.INVALID_HOST),
        ("*", AuthorityProblem.INVALID_HOST),
        ("2130706433:443", AuthorityProblem.INVALID_HOST),
        ("0x7f.1", AuthorityProblem.INVALID_HOST),
        ("192.0.2.01", AuthorityProblem.INVALID_HOST),
        ("http://example.org", AuthorityProblem.INVALID_PORT),
        ("x" * 64 + ".example", AuthorityProblem.INVALID_HOST),
        ("[", AuthorityProblem.INVALID_HOST),
        ("[]", AuthorityProblem.INVALID_HOST),
        ("[]:443", AuthorityProblem.INVALID_HOST),
        ("[2001:db8::1", AuthorityProblem.INVALID_HOST),
        ("[2001:db8::1]443", AuthorityProblem.INVALID_HOST),
        ("[2001:db8::1]x:443", AuthorityProblem.INVALID_HOST),
        ("[[2001:db8::1]]", AuthorityProblem.INVALID_HOST),
        ("[fe80::1%25eth0]", AuthorityProblem.INVALID_HOST),
        ("[v1.fe]", AuthorityProblem.INVALID_HOST),
        ("[192.0.2.1]", AuthorityProblem.INVALID_HOST),
        ("[example.org]", AuthorityProblem.INVALID_HOST),
        ("2001:db8::1", AuthorityProblem.INVALID_HOST),
        ("::1", AuthorityProblem.EMPTY),
        ("example.org:0", AuthorityProblem.INVALID_PORT),
        ("example.org:65536", AuthorityProblem.INVALID_PORT),
        ("example.org:" + "9" * 5000, AuthorityProblem.INVALID_PORT),
        ("example.org:+443", AuthorityProblem.INVALID_PORT),
        ("example.org:-1", AuthorityProblem.INVALID_PORT),
        ("example.org:4 43", AuthorityProblem.INVALID_PORT),
        ("example.org:4_43", AuthorityProblem.INVALID_PORT),
        ("example.org:0x1bb", AuthorityProblem.INVALID_PORT),
        ("example.org:https", AuthorityProblem.INVALID_PORT),
        ("example.org:443:443", AuthorityProblem.INVALID_PORT),
        ("[2001:db8::1]:443x", AuthorityProblem.INVALID_PORT),
    ],
)
def test_no_host_and_why(raw: str, problem: AuthorityProblem) -> None:
    """What names no host is a value that says why, and keeps what was sent."""
    assert read_authority(raw) == InvalidAuthority(raw, problem)


def test_connect_needs_a_port() -> None:
    """CONNECT has no default port; otherwise its target reads like any authority."""
    assert read_connect_target("example.org:443") == Authority("example.org", 443)
    assert read_connect_target("[2001:db8::1]:443") == Authority("2001:db8::1", 443)
    for raw in ("example.org", "example.org:", "[2001:db8::1]"):
        assert read_connect_target(raw) == InvalidAuthority(raw, AuthorityProblem.MISSING_PORT)
    assert read_connect_target("example.org:0") == InvalidAuthority("example.org:0", AuthorityProblem.INVALID_PORT)
    assert read_connect_target("u@example.org") == InvalidAuthority("u@example.org", AuthorityProblem.USERINFO)


@given(raw=st.text(max_size=60) | st.text("ab.:[]@%0123456789 ", max_size=30))
def test_any_text_gives_a_value(raw: str) -> None:
    """Nothing raises; a host that comes out is readable again in the form that an authority wants."""
    result = read_authority(raw)
    if isinstance(result, InvalidAuthority):
        assert result.raw == raw
        return
    host = f"[{result.host}]" if ":" in result.host else result.host
    again = host if result.port is None else f"{host}:{result.port}"
    assert read_authority(again) == result
    assert again.lower() in raw.lower() or "0" in raw


@given(host=st.from_regex(r"([a-z0-9]{1,20}\.){0,3}[a-z][a-z0-9]{0,19}", fullmatch=True), port=st.integers(1, 65535))
def test_round_trip(host: str, port: int) -> None:
    """An ordinary host and port come back."""
    assert read_authority(f"{host}:{port}") == Authority(host, port) == read_connect_target(f"{host}:{port}")
