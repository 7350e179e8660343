"""Parses YAML text to a graph of nodes with positions. Scalars keep their text; each key decides what it means.

So `22:00`, `2023-03-10` and `NO` are text, never a sexagesimal number, a timestamp or a boolean (YAML 1.1). The graph
is built from the parser's events without recursion, so no file can exhaust the stack. Aliases are counted, not copied.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from tokgate.config.diagnostics import Code
from tokgate.config.yaml.source import Report, Source, TextSpan, odd_space

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH: Final = 32
"""Deepest nesting; the format needs 6."""
MAX_EXPANSION: Final = 500_000
"""Most nodes that all aliases of a file stand for together, against anchor bombs."""

MAX_NODES: Final = 1_000_000
"""Most keys and values of a file: several times what 100,000 names take."""

_STANDARD: Final = "tag:yaml.org,2002:"
"""The expansion of `!!` in YAML."""
_STRING_TAGS: Final = {None, "!", f"{_STANDARD}str"}
_MAY_BE_CUT: Final = re.compile(r"[ \t]#\w")
_CUT: Final = re.compile(r"[ \t]+(?P<cut>#\w\S*)")
_NULLS: Final = {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text as written; `null` if it is empty or one of YAML's words for null."""

    text: str
    null: bool
    place: TextSpan
    size: int = 1


@dataclass(slots=True)
class Sequence:
    """A list of nodes; `size` counts them, aliases expanded."""

    place: TextSpan
    items: "list[Node]" = field(default_factory=list)
    size: int = 1


@dataclass(slots=True)
class Mapping:
    """Keys and values in order; each key has its own place."""

    place: TextSpan
    entries: "dict[str, tuple[Scalar, Node]]" = field(default_factory=dict)
    size: int = 1

    def get(self, key: str) -> "Node | None":
        """The value of a key; None if it is absent."""
        found = self.entries.get(key)
        return found[1] if found else None


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """The node as dicts, lists, text and None. Its size is bounded by MAX_NODES and MAX_EXPANSION."""
    if isinstance(node, Scalar):
        return None if node.null else node.text
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, (_, value) in node.entries.items()}


def led_to(node: Node, path: "tuple[str | int, ...]") -> Node | None:
    """The node at a path of keys and indices; None if there is none."""
    found: Node | None = node
    for step in path:
        if isinstance(found, Mapping):
            found = found.get(str(step))
        elif isinstance(found, Sequence) and isinstance(step, int) and step < len(found.items):
            found = found.items[step]
        else:
            return None
    return found


class _Fatal(Exception):
    """The rest of the file can't be read."""


def compose(source: Source, report: Report) -> Node | None:
    """The file's only document; None if it is empty, or, with a diagnostic, if it can't be read."""
    composer = _Composer(source, report)
    try:
        return composer.document()
    except _Fatal:
        return None
    except yaml.MarkedYAMLError as error:
        report.error(source, *explained(error, source))
    except yaml.YAMLError as error:
        report.error(source, TextSpan(1, 1), Code.SYNTAX, f"not YAML: {error}".splitlines()[0])
    return None


@dataclass(slots=True)
class _Open:
    """A collection that is being read; for a mapping, also the key whose value comes next."""

    node: Sequence | Mapping
    anchor: str | None
    key: Scalar | None = None
    at_key: bool = True
    merges: list[tuple[Node, TextSpan]] = field(default_factory=list)


class _Composer:
    """One pass over the events of one file, with a stack of open collections."""

    def __init__(self, source: Source, report: Report) -> None:
        self._source = source
        self._report = report
        self._anchors: dict[str, Node | None] = {}  # None while the anchored collection is open
        self._stack: list[_Open] = []
        self._root: Node | None = None
        self._expanded = 0
        self._may_be_cut = _MAY_BE_CUT.search(source.text) is not None

    def document(self) -> Node | None:
        """Read all events; after an error in one node reading goes on."""
        started = False
        for number, event in enumerate(yaml.parse(self._source.text, Loader=_LOADER)):
            if number > MAX_NODES:
                self._error(_place(event), Code.TOO_LARGE, f"more than {MAX_NODES:,} keys and values: split the file")
                raise _Fatal
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent):
                self._open(event, Mapping(_place(event)))
            elif isinstance(event, yaml.SequenceStartEvent):
                self._open(event, Sequence(_place(event)))
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                if started:
                    self._error(_place(event), Code.SEVERAL_DOCUMENTS, "a second document: a policy file holds one")
                    raise _Fatal
                started = True
        return self._root

    def _error(self, place: TextSpan, code: Code, message: str) -> None:
        self._report.error(self._source, place, code, message)

    def _scalar(self, event: Any) -> None:
        self._check_tag(event)
        bare = event.style in (None, "") and event.tag is None
        node = Scalar(event.value, bare and event.value in _NULLS, _place(event))
        if event.anchor:
            self._anchors[event.anchor] = node
        if bare and self._may_be_cut and not node.null:  # `title: Ban #1`: as people write it, a comment begins `# `
            mark = event.end_mark
            found = _CUT.match(self._source.line(mark.line + 1) or "", mark.column)
            if found is not None:
                place = TextSpan(mark.line + 1, found.start("cut") + 1, len(found["cut"]))
                message = "a comment begins here, and the value ends before it: put the value in quotes, or write `# `"
                self._report.warning(self._source, place, Code.CUT_VALUE, message)
        self._add(node)

    def _check_tag(self, event: Any) -> None:
        if event.tag not in _STRING_TAGS:
            tag = event.tag.replace(_STANDARD, "!!", 1)
            message = f"the tag `{tag}` is not allowed: policies hold text, lists and mappings"
            self._error(_place(event), Code.TAG, message)
        elif event.tag == f"{_STANDARD}str" and not isinstance(event, yaml.ScalarEvent):
            kind = "a list" if isinstance(event, yaml.SequenceStartEvent) else "a mapping"
            self._error(_place(event), Code.TAG, f"`!!str` says that text follows, and it is {kind}: leave the tag out")

    def _open(self, event: Any, node: Sequence | Mapping) -> None:
        self._check_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            self._error(node.place, Code.TOO_DEEP, f"nested more than {MAX_DEPTH} levels deep")
            raise _Fatal
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Open(node, event.anchor))

    def _close(self) -> None:
        top = self._stack.pop()
        for merged, place in top.merges:  # https://yaml.org/type/merge.html: the mapping's own keys take precedence
            for each in merged.items if isinstance(merged, Sequence) else [merged]:
                if not isinstance(each, Mapping) or not isinstance(top.node, Mapping):
                    self._error(place, Code.ALIAS, "`<<` takes a mapping, or a list of mappings")
                    break
                for key, entry in each.entries.items():
                    top.node.entries.setdefault(key, entry)
        if top.anchor:
            self._anchors[top.anchor] = top.node
        self._add(top.node)

    def _alias(self, event: Any) -> None:
        place, name = _place(event), event.anchor
        if name not in self._anchors:
            known = ", ".join(f"`&{anchor}`" for anchor in self._anchors) or "none"
            self._error(place, Code.ALIAS, f"`*{name}` has no anchor before it (anchors so far: {known})")
            raise _Fatal
        node = self._anchors[name]
        if node is None:
            self._error(place, Code.ALIAS, f"`*{name}` stands inside what it refers to: it would never end")
            raise _Fatal
        self._expanded += node.size
        if self._expanded > MAX_EXPANSION:
            self._error(
                place, Code.EXPANSION, f"aliases stand for more than {MAX_EXPANSION:,} values: is this an anchor bomb?"
            )
            raise _Fatal
        self._add(node)

    def _add(self, node: Node) -> None:
        """Add a complete node to the innermost open collection."""
        if not self._stack:
            self._root = node
            return
        top = self._stack[-1]
        top.node.size += node.size
        if isinstance(top.node, Sequence):
            top.node.items.append(node)
        elif top.at_key:
            top.key, top.at_key = self._key(node), False
        else:
            key, top.key, top.at_key = top.key, None, True
            if key is None:
                return
            if key.text == "<<":
                top.merges.append((node, key.place))
            elif key.text in top.node.entries:
                first = top.node.entries[key.text][0].place
                where = self._source.origin(first)
                self._error(key.place, Code.DUPLICATE_KEY, f"the key `{key.text}` is given twice; first at {where}")
                kept = top.node.entries[key.text][1]
                for name, entry in node.entries.items() if isinstance(node, Mapping) else ():
                    if isinstance(kept, Mapping):  # so that names below it are not reported as unknown
                        kept.entries.setdefault(name, entry)
            else:
                top.node.entries[key.text] = (key, node)

    def _key(self, node: Node) -> Scalar | None:
        if isinstance(node, Scalar) and not node.null:
            return node
        self._error(node.place, Code.BAD_KEY, "a key must be a word")
        return None


def _place(event: Any) -> TextSpan:
    start, end = event.start_mark, event.end_mark
    length = end.column - start.column if start.line == end.line else 1
    return TextSpan(start.line + 1, start.column + 1, max(1, length))


_PROBLEMS: Final = {
    "mapping values are not allowed": "a `: ` is not allowed here: put the value in quotes, or mend the indentation",
    "could not find expected ':'": "a key without `: ` before this place",
    "did not find expected node content": "a value was expected here",
    "did not find expected key": "the indentation or the quotes before this place are not right: a key was expected",
    "did not find expected ',' or ']'": "the list that was opened with `[` is not closed, or lacks a comma",
    "did not find expected ',' or '}'": "the mapping that was opened with `{` is not closed, or lacks a comma",
    "did not find expected '-'": "a list and keys are mixed: each item starts with `- ` in the same column",
    "block sequence entries are not allowed": "a `- ` is not allowed here: start the list on a line of its own",
    "found unexpected end of stream": "these quotes are never closed",
    "unknown escape character": "unknown escape: in double quotes write `\\\\` for a backslash, or use single quotes",
    "maximum nesting depth": "nested too deeply",
    "incompatible YAML document": "the `%YAML` line asks for a version of YAML that can't be read: leave it out",
    "alphabetic or numeric": "`*` and `&` go before the name of an anchor: put other values that begin so in quotes",
    "expected <document start>": "something follows the end of the document",
}

_ONE_KEY: Final = re.compile(r"\s*(?:- +)*[^\s:#{}\[\],][^:#{}\[\],]*\Z")
"""The text before the reported colon, if that is the first of its line."""
_KEYLESS: Final = re.compile(r"(?P<indent>\s*(?:- +)*)(?P<word>[\w.-]+)(?P<joined>:\S.*)?\s*\Z")
"""A line that was meant as a key: a word without a colon, or with a colon but no space after it."""
_GLUED_ITEM: Final = re.compile(r"(?P<indent>\s*)-(?=[\w{\[\"'])")
"""A list item whose `-` has no space after it."""


_CONFLICT: Final = re.compile(r"(?:<{7}|>{7}) ")
"""The marks around the two versions that `git merge` leaves where they contradict each other."""
_BEFORE_VALUE: Final = re.compile(r"[\s\u200b\u2060]*(?:-[\s\u200b\u2060]+)*(?:[\w.-]+:[\s\u200b\u2060]+)?")
"""The start of a line up to its first value, where every space is one for YAML."""


def explained(error: yaml.MarkedYAMLError, source: Source) -> tuple[TextSpan, Code, str]:
    """The place of the mistake, its code, and a message that says what to do."""
    for number, text in enumerate(source.lines, 1):
        if _CONFLICT.match(text):
            message = "the mark of a merge conflict: choose one version, and delete the marks"
            return TextSpan(number, 1, 7), Code.SYNTAX, message
    problem, start, end = error.problem or error.context or "unreadable", error.context_mark, error.problem_mark
    at_end = end is not None and not "".join(source.lines[end.line :]).strip()
    unclosed = at_end or "end of stream" in problem
    mark = start if unclosed and start is not None else end
    place = TextSpan(1, 1) if mark is None else TextSpan(mark.line + 1, mark.column + 1, 1)
    line, indent = source.line(place.line) or "", place.column - 1
    found = next(_by_character(problem, place, line, start), None)
    if found is not None:
        return found
    odd = next(_odd_spaces(place.line, source), None)
    if odd is not None:
        where, name = odd
        return where, Code.SYNTAX, f"the character {name}, looks like a space and is none: write a space in its place"
    known = _indents(place.line, source)
    if "did not find expected key" in problem and not line[:indent].strip() and indent not in known:
        stand = ", ".join(map(str, known))
        return (
            place,
            Code.SYNTAX,
            f"indented by {indent}, while the keys above are by {stand}: line it up with one of them",
        )
    culprit = next(_culprits(problem, place, start, source), None)
    if culprit is not None:
        where, message = culprit
        return where, Code.SYNTAX, message
    message = _message(problem)
    if mark is end and start is not None and end is not None and start.line != end.line:
        message += f" (began on line {start.line + 1})"
    return place, Code.SYNTAX, message


def _message(problem: str) -> str:
    return next((text for key, text in _PROBLEMS.items() if key in problem), f"not YAML: {problem}")


def _by_character(
    problem: str, place: TextSpan, line: str, start: yaml.Mark | None
) -> Iterator[tuple[TextSpan, Code, str]]:
    """Mistakes that the character shows at which the parser stopped."""
    character = line[place.column - 1 : place.column]
    if character == "\t" and ("start any token" in problem or "tab character" in problem):
        yield place, Code.TAB, "a tab: YAML is indented with spaces only"
    elif "start any token" in problem:
        yield place, Code.SYNTAX, f"a value can't begin with `{character}`: put it in quotes"
    elif character == ":" and "did not find expected node content" in problem:
        yield place, Code.SYNTAX, "a value can't begin with `:` here: put it in quotes (an IPv6 address, for one)"
    elif "unexpected ':'" in problem:
        yield place, Code.SYNTAX, "a value can't end with `:` here: put it in quotes (an IPv6 address, for one)"
    elif character == ":" and ("',' or '}'" in problem or "',' or ']'" in problem):
        if start is not None and start.line < place.line - 1 and _ONE_KEY.match(line[: place.column - 1]):
            opened = TextSpan(start.line + 1, start.column + 1, 1)
            yield opened, Code.SYNTAX, f"{_message(problem)}, before line {place.line}"
        else:
            yield place, Code.SYNTAX, "a second `: ` in one value: put the value in quotes, or a comma before its key"


def _odd_spaces(number: int, source: Source) -> Iterator[tuple[TextSpan, str]]:
    """What looks like a space before a key or a value of a line, or of the one above, such as a no-break space."""
    for each in (number - 1, number):
        line = source.line(each) or ""
        found = _BEFORE_VALUE.match(line)
        before = found[0] if found is not None else ""
        name = odd_space(before)
        if name is not None:
            yield TextSpan(each, next(n for n, c in enumerate(before, 1) if odd_space(c)), 1), name


def _indents(number: int, source: Source) -> list[int]:
    """The indentations that a line could have after the lines above it, outermost first."""
    found: list[int] = []
    for above in range(number - 1, 0, -1):
        line = (source.line(above) or "").rstrip()
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        if text and not text.startswith("#") and (not found or indent < found[0]):
            found.insert(0, indent)
        if found and not found[0]:
            break
    return found


def _culprits(problem: str, place: TextSpan, start: yaml.Mark | None, source: Source) -> Iterator[tuple[TextSpan, str]]:
    """Mistakes on earlier lines that make the parser report a colon, or a missing one, further on."""
    if "could not find expected ':'" in problem and start is not None:
        yield from _keyless(start.line + 1, source, "is neither a key, with a `:` after it, nor a list item, with `- `")
    elif "mapping values are not allowed" in problem:
        line = source.line(place.line) or ""
        yield from _glued(place.line, line)
        if _ONE_KEY.match(line[: place.column - 1]):
            above = range(place.line - 1, 0, -1)
            number = next((n for n in above if (source.line(n) or "").partition("#")[0].strip()), 0)
            yield from _keyless(number, source, "is no key without a `:` after it")


def _glued(number: int, line: str) -> Iterator[tuple[TextSpan, str]]:
    found = _GLUED_ITEM.match(line)
    if found is not None:
        place = TextSpan(number, len(found["indent"]) + 1, 1)
        yield place, "a list item begins with `- `: a space is missing after the `-`"


def _keyless(number: int, source: Source, why: str) -> Iterator[tuple[TextSpan, str]]:
    line = (source.line(number) or "").partition(" #")[0]
    yield from _glued(number, line)
    found = _KEYLESS.match(line)
    if found is not None:
        place = TextSpan(number, len(found["indent"]) + 1, len(found["word"]))
        yield place, "a space is missing after the `:`" if found["joined"] else f"`{found['word']}` {why}"
