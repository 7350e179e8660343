"""Normalisation: every spelling of a host has one canonical form, and nothing raises."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.policy.values.hostname import (
    AddressLiteral,
    DomainName,
    InvalidName,
    is_canonical,
    normalise,
    parse_address,
)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("www.example.org", "www.example.org"),
        ("WWW.EXAMPLE.ORG.:8443", "www.example.org"),
        ("localhost", "localhost"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("a_b.example.org", "a_b.example.org"),
        ("p16-sign--va.example.org", "p16-sign--va.example.org"),
        ("ab--cd.example.org", "ab--cd.example.org"),
        ("-edge-.example.org", "-edge-.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),  # UTS 46 non-transitional: not fass.example
        ("ｗｗｗ．ｅｘａｍｐｌｅ．ｏｒｇ", "www.example.org"),
        ("www。example。org", "www.example.org"),
        ("www．example｡org", "www.example.org"),
        ("www.exam\u00adple.org", "www.example.org"),
        ("xn--a.example", "xn--a.example"),  # no valid A-label, but what the wire said: compared as ASCII
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        (".".join(["a" * 61] * 4) + ".abcde", ".".join(["a" * 61] * 4) + ".abcde"),
    ],
)
def test_domain_names(raw: str, value: str) -> None:
    """Case, dot, port and IDNA spelling make no difference."""
    assert normalise(raw) == DomainName(value)


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("192.0.2.1.", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("１９２.0.2.1", "192.0.2.1"),
    ],
)
def test_address_literals(raw: str, address: str) -> None:
    """Address literals are told apart from names; IPv4-mapped is IPv4."""
    assert normalise(raw) == AddressLiteral(ip_address(address))
    assert str(normalise(raw)) == address


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("", "empty"),
        (".", "a label is empty"),
        ("www..example.org", "a label is empty"),
        (".example.org", "a label is empty"),
        ("example.org..", "a label is empty"),
        ("a" * 64 + ".example", "longer than 63"),
        (".".join(["a" * 63] * 4), "longer than 253"),
        (".".join(["a" * 61] * 4) + ".abcdef", "longer than 253"),
        ("exa mple.org", "not allowed"),
        ("*.example.org", "not allowed"),
        ("https://example.org", "not allowed"),
        ("user@example.org", "not allowed"),
        ("example.org:port", "not allowed"),
        ("example.org\x00.example.net", "not allowed"),
        ("example.org\n", "not allowed"),
        ("1.2.3", "number"),
        ("256.1.1.1", "number"),
        ("0x7f.1", "number"),
        ("[192.0.2.1]", "brackets"),
        ("[2001:db8::1", "brackets"),
        ("[2001:db8::1]x", "brackets"),
        ("\ud800.example", "IDNA"),
        ("a\u0301\u200d.example", "IDNA"),
    ],
)
def test_invalid_names(raw: str, problem: str) -> None:
    """What can be neither is a value of its own that says why."""
    name = normalise(raw)
    assert isinstance(name, InvalidName)
    assert str(name) == name.raw == raw
    assert problem in name.problem


@given(st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9_.:\[\]%-]{0,40}", fullmatch=True))
def test_never_raises_and_is_idempotent(raw: str) -> None:
    """Any text gives a value, and the canonical form is a fixed point."""
    name = normalise(raw)
    if not isinstance(name, InvalidName):
        assert normalise(str(name)) == name
    if isinstance(name, DomainName):
        assert is_canonical(name.value)


@given(st.from_regex(r"([a-z0-9_-]{1,12}\.){0,4}[a-z]{1,12}", fullmatch=True), st.integers(0, 65535))
def test_case_dot_and_port_do_not_matter(name: str, port: int) -> None:
    canonical = normalise(name)
    assert normalise(name.upper()) == normalise(name + ".") == normalise(f"{name}:{port}") == canonical


@given(st.ip_addresses())
def test_every_address_is_read_back(address: object) -> None:
    """Addresses survive their text form; mapped ones come back as IPv4."""
    read = parse_address(str(address))
    assert read is not None
    assert parse_address(f"::ffff:{read}") == read if read.version == 4 else read == address
