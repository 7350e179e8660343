"""Files that are no YAML: the place that has to be mended, and what to do there."""

import pytest

from tokgate.config.diagnostics import Code, Diagnostic
from tokgate.config.yaml.nodes import compose
from tokgate.config.yaml.source import Report, Source


def complaint(text: str) -> Diagnostic:
    """The one diagnostic of a text that is no YAML."""
    report = Report()
    assert compose(Source("x", text), report) is None
    (found,) = report.diagnostics
    return found


KEYS = "services:\n  tiktok:\n    {}\n    names: {{suffix: [tiktok.com]}}\n"
ITEMS = "services:\n  tiktok:\n    names:\n      suffix:\n      {}\n      - example.org\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        (KEYS.format("title"), 3, 5, "`title` is no key without a `:` after it"),
        (KEYS.format("title:TikTok"), 3, 5, "a space is missing after the `:`"),
        (KEYS.format("title: TikTok: banned"), 3, 18, "a `: ` is not allowed here: put the value in quotes"),
        (KEYS.format("title: TikTok\n      description: x"), 4, 18, "or mend the indentation"),
        (KEYS.format("title: @TikTok"), 3, 12, "a value can't begin with `@`: put it in quotes"),
        (KEYS.format('title: "TikTok'), 3, 12, "these quotes are never closed"),
        (
            KEYS.format("title: TikTok\n   # here\n   description: x"),
            5,
            4,
            "indented by 3, while the keys above are by 0, 2, 4:",
        ),
        (
            "bans:\n  a:\n\u00a0\u00a0title: x\n    action: warn\n",
            3,
            1,
            "U+00A0, no-break space, looks like a space and is none",
        ),
        (KEYS.format("title: 'it's'"), 3, 16, "the quotes before this place are not right"),
        (KEYS.format("\ttitle: TikTok"), 3, 5, "a tab"),
        ("services:\n  a:\n    title: x\n  b\n  c:\n    title: y\n", 4, 3, "`b` is neither a key"),
        (ITEMS.format("-tiktok.com"), 5, 7, "a space is missing after the `-`"),
        (ITEMS.format("- tiktok.com\n      example.net"), 6, 7, "nor a list item"),
        ("tests:\n  -{client: 192.0.2.1, host: a.example}\n", 2, 3, "a space is missing after the `-`"),
        ("networks: {a: {cidrs: [2001:db8::/32, ::1]}}\n", 1, 39, "an IPv6 address"),
        ("services: {a: {names: {suffix: [a.example\n", 1, 32, "opened with `[` is not closed"),
        ("services: {a: {names: {suffix: [a.example]\nbans: {}\n", 2, 1, "is not closed, or lacks a comma"),
        (
            "services: {a: {title: [x\nbans: {b: c}}}\n",
            1,
            23,
            "opened with `[` is not closed, or lacks a comma, before line 2",
        ),
        ("services: {a: {title: x,\n  description: x: y}}\n", 2, 17, "a second `: ` in one value"),
        (KEYS.format("title: x\n\tdescription: y"), 4, 1, "a tab: YAML is indented with spaces only"),
        ("networks: {a: {cidrs: [2001:db8::]}}\n", 1, 33, "can't end with `:` here"),
        (KEYS.format("title: x\n<<<<<<< HEAD\n    description: y\n=======\n"), 4, 1, "the mark of a merge conflict"),
        ("bans: *\n", 1, 8, "the name of an anchor"),
    ],
)
def test_place_and_words(text: str, line: int, column: int, said: str) -> None:
    """The caret is where the mistake is, also where the parser only stumbled over it later."""
    found = complaint(text)
    assert (found.origin.line, found.origin.column) == (line, column), found.message
    assert said in found.message
    assert found.code in (Code.SYNTAX, Code.TAB)
