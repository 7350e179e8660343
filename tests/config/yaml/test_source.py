"""Bytes to text: encodings, and what YAML does not allow."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.config.diagnostics import Code
from tokgate.config.yaml.source import Report, decode


def test_utf_8_with_and_without_mark() -> None:
    """A byte-order mark makes no difference, not even to columns."""
    for mark in (b"", b"\xef\xbb\xbf"):
        source = decode(Path("x"), mark + "título: é\n".encode(), Report())
        assert source is not None
        assert source.text == "título: é\n"
        assert source.line(1) == "título: é"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_unicode_encodings(encoding: str) -> None:
    """UTF-16 and UTF-32, with or without a mark, are refused with a hint at UTF-8."""
    report = Report()
    assert decode(Path("x"), "version: 1\n".encode(encoding), report) is None
    assert [each.code for each in report.diagnostics] == [Code.ENCODING]
    assert "UTF-8" in report.diagnostics[0].message


@pytest.mark.parametrize(
    ("data", "line", "column", "said"),
    [
        (b"a: 1\nb: \xff\n", 2, 4, "0xff"),
        (b"\xef\xbb\xbf\xc3\xa9: \xe9\n", 1, 4, "0xe9"),
        (b"a: \x00b\n", 1, 4, "NUL"),
        (b"a: 1\r\nb: \x1b[31m\n", 2, 4, "U+001B"),
        ("a: \ufeff\n".encode(), 1, 4, "U+FEFF"),
    ],
)
def test_what_yaml_does_not_allow(data: bytes, line: int, column: int, said: str) -> None:
    """Invalid bytes and control characters are shown by place and name."""
    report = Report()
    assert decode(Path("x"), data, report) is None
    (found,) = report.diagnostics
    assert (found.code, found.origin.line, found.origin.column) == (Code.ENCODING, line, column)
    assert said in found.message
    assert found.line == data.decode("utf-8-sig", "replace").splitlines()[line - 1]


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Bytes are text, or one error: never an exception."""
    report = Report()
    source = decode(Path("x"), data, report)
    assert (source is None) == (len(report.diagnostics) == 1)
