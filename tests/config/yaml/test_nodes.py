"""YAML to nodes: positions, text as written, and files that are made to hurt."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tokgate.config.diagnostics import Code, Diagnostic
from tokgate.config.yaml import nodes
from tokgate.config.yaml.nodes import MAX_DEPTH, MAX_EXPANSION, Mapping, Scalar, Sequence, compose, plain
from tokgate.config.yaml.source import Report, Source


def read(text: str) -> tuple[Any, list[Code]]:
    """The plain value of a text, and the kinds of diagnostics."""
    report = Report()
    node = compose(Source("x", text), report)
    return None if node is None else plain(node), [each.code for each in report.diagnostics]


@pytest.mark.parametrize(
    "written",
    ["22:00", "2023-03-10", "2023-03-10T00:00", "NO", "on", "0x1f", "1_000", "1e3", "08", "=", ".inf", "0o7"],
)
def test_text_as_written(written: str) -> None:
    """Nothing that YAML 1.1 resolves implicitly is changed."""
    assert read(f"a: {written}\n") == ({"a": written}, [])


def test_nothing_is_none() -> None:
    """An empty value and YAML's words for nothing are None; quoted they are text."""
    assert read("{a: , b: ~, c: null, d: '', e: 'null'}")[0] == {"a": None, "b": None, "c": None, "d": "", "e": "null"}


def test_positions() -> None:
    """Keys, values and items know their line, column and length, in characters."""
    node = compose(Source("x", "é: [ü, 'x y']\nb:\n  c: d\n"), Report())
    assert isinstance(node, Mapping)
    key, value = node.entries["é"]
    assert (key.place.line, key.place.column, key.place.length) == (1, 1, 1)
    assert isinstance(value, Sequence)
    assert [(item.place.column, item.place.length) for item in value.items] == [(5, 1), (8, 5)]
    inner = node.get("b")
    assert isinstance(inner, Mapping)
    assert inner.entries["c"][1].place.line == 3


def test_merge_keys() -> None:
    """What a mapping says itself goes before what it merges; of several, the first."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 3}\nd:\n  <<: *b\n"
    assert read(text)[0]["c"] == {"x": "3", "y": "1", "z": "2"}
    assert read(text)[0]["d"] == {"y": "2", "z": "2"}


def test_merge_does_not_hide_duplicates() -> None:
    """A merged key may be overridden, one that is written twice may not."""
    assert read("a: &a {x: 1}\nb: {<<: *a, x: 2, x: 3}\n")[1] == [Code.DUPLICATE_KEY]


def test_merge_bomb_is_not_expanded() -> None:
    """Nor does it help to multiply by merging."""
    keys = ", ".join(f"k{n}: {{a: b}}" for n in range(1000))
    lines = [f"m: &m {{{keys}}}"] + [f"m{n}: {{<<: *m}}" for n in range(MAX_EXPANSION // 3000 + 1)]
    assert read("\n".join(lines)) == (None, [Code.EXPANSION])


def test_aliases_in_reason_are_fine() -> None:
    """A list of names that many bans share is what anchors are for."""
    lines = ["a: &a [" + ", ".join(f"n{n}" for n in range(1000)) + "]"] + [f"b{n}: *a" for n in range(200)]
    value, codes = read("\n".join(lines))
    assert codes == []
    assert value["b199"] == value["a"]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 100_000])
def test_depth(opening: str, depth: int) -> None:
    assert read(opening * depth)[1] in ([Code.TOO_DEEP], [Code.SYNTAX])


def test_pure_python_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &x [1, 'b c', {d: e}]\nf: *x\ng: 22:00\n"
    expected = read(text)
    monkeypatch.setattr(nodes, "_LOADER", yaml.SafeLoader)
    assert read(text) == expected
    assert read("a:\n\tb: c\n")[1] == [Code.TAB]
    assert read("a: [b\n")[1] == [Code.SYNTAX]


_VALUES = st.recursive(
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(_VALUES)
def test_same_as_json(value: Any) -> None:
    """JSON is YAML: what is quoted comes back as it was."""
    assert read(json.dumps(value, ensure_ascii=False)) == (value, [])


@given(st.text(st.sampled_from("abc:-[]{}&*!#|>'\"%@`?,<~ \n\t0\\"), max_size=60))
def test_any_text(text: str) -> None:
    """Whatever the text, there is a node, a diagnostic, or nothing in it: never an exception. PyYAML agrees."""
    report = Report()
    node = compose(Source("x", text), report)
    try:
        theirs = yaml.compose(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except yaml.YAMLError:
        assert report.diagnostics
        return
    if not report.diagnostics:
        assert (node is None) == (theirs is None)
        assert not isinstance(node, Scalar) or (theirs is not None and node.text == theirs.value)


def complaint(text: str) -> Diagnostic:
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
        (KEYS.format("title: TikTok\n      description: x"), 4, 18, "or mend the indentation"),
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
        ("networks: {a: {cidrs: [2001:db8::/32, ::1]}}\n", 1, 39, "an IPv6 address"),
        (
            "services: {a: {title: [x\nbans: {b: c}}}\n",
            1,
            23,
            "opened with `[` is not closed, or lacks a comma, before line 2",
        ),
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
