"""How diagnostics are shown."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tokgate.config.diagnostics import Code, Diagnostic, Level, render
from tokgate.policy.values import Origin


def shown(line: str | None, column: int, length: int = 1, *, color: bool = False) -> str:
    """A diagnostic at a column of a line, rendered."""
    diagnostic = Diagnostic(Level.ERROR, Origin("p/a.yaml", 3, column), "no", Code.SYNTAX, line, length)
    return render(diagnostic, color=color)


def test_tabs_and_wide_characters() -> None:
    """The caret stands under what is meant on a terminal."""
    assert shown("\ta: b", 5).endswith("3 | \ta: b\n  | \t   ^")
    assert shown("日本: x", 5).endswith("3 | 日本: x\n  |       ^")
    assert shown("a: 日本", 4, 2).endswith("\n  |    ^~~~")


def test_long_lines_are_cut() -> None:
    """Of a line of a megabyte only the part around the caret is shown."""
    line = "x" * 500_000 + "HERE" + "y" * 500_000
    head, source, caret = shown(line, 500_001, 4).splitlines()
    assert len(source) < 160
    assert source[caret.index("^") : caret.index("^") + 4] == "HERE"
    assert head.startswith("p/a.yaml:3:500001")


def test_control_characters_are_not_passed_on() -> None:
    """A policy file can't drive the terminal of whoever checks it."""
    assert "\x1b" not in shown("a: \x1b[31m\u202e", 4)


def test_color() -> None:
    colored = shown("a: bcd", 4, 3, color=True)
    assert colored != shown("a: bcd", 4, 3)
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == shown("a: bcd", 4, 3)


@given(st.text(max_size=300), st.integers(1, 400), st.integers(0, 400))
def test_any_line(line: str, column: int, length: int) -> None:
    """Positions outside the line are shown at its end: never an exception, never a line too many."""
    assert len(shown(line, column, length).split("\n")) == 3
