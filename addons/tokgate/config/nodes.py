"""YAML text to a graph of nodes with positions. Scalars keep the text as written: what it means is for the key to say.

So `22:00`, `2023-03-10` and `NO` are text here, never a sexagesimal number, a timestamp or a boolean (YAML 1.1). Built
from the parser's events without recursion, so that no file can exhaust the stack; aliases are counted, never copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from tokgate.config import syntax
from tokgate.config.diagnostics import Code
from tokgate.config.source import Place, Report, Source

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH: Final = 32
"""Deepest nesting; the format needs 6."""
MAX_EXPANSION: Final = 500_000
"""How many nodes all aliases of a file may stand for together: enough for any use of anchors, not for a bomb."""

MAX_NODES: Final = 1_000_000
"""How many keys and values a file holds: several times what 100,000 names take."""

_STANDARD: Final = "tag:yaml.org,2002:"
"""What YAML reads `!!` as."""
_STRING_TAGS: Final = {None, "!", f"{_STANDARD}str"}
_NULLS: Final = {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text as written; `null` when nothing was written, or YAML's words for nothing."""

    text: str
    null: bool
    place: Place
    size: int = 1


@dataclass(slots=True)
class Sequence:
    """A list."""

    place: Place
    items: "list[Node]" = field(default_factory=list)
    size: int = 1


@dataclass(slots=True)
class Mapping:
    """Keys to values, each with the key's own place."""

    place: Place
    entries: "dict[str, tuple[Scalar, Node]]" = field(default_factory=dict)
    size: int = 1

    def get(self, key: str) -> "Node | None":
        """The value of a key."""
        found = self.entries.get(key)
        return found[1] if found else None


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """The node as dicts, lists, text and None; bounded by the file's size and MAX_EXPANSION."""
    if isinstance(node, Scalar):
        return None if node.null else node.text
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, (_, value) in node.entries.items()}


def led_to(node: Node, path: "tuple[str | int, ...]") -> Node | None:
    """The node that keys and indices lead to; None when there is none."""
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
    """The file's one document; None, with a diagnostic, when there is none or it can't be read."""
    composer = _Composer(source, report)
    try:
        return composer.document()
    except _Fatal:
        return None
    except yaml.MarkedYAMLError as error:
        report.error(source, *syntax.explained(error, source))
    except yaml.YAMLError as error:
        report.error(source, Place(1, 1), Code.SYNTAX, f"not YAML: {error}".splitlines()[0])
    return None


@dataclass(slots=True)
class _Open:
    """A collection that is being read; for mappings, the key that waits for its value."""

    node: Sequence | Mapping
    anchor: str | None
    key: Scalar | None = None
    at_key: bool = True
    merges: list[tuple[Node, Place]] = field(default_factory=list)


class _Composer:
    """One pass over the events of one file, with a stack of open collections."""

    def __init__(self, source: Source, report: Report) -> None:
        """Nothing is read yet."""
        self._source = source
        self._report = report
        self._anchors: dict[str, Node | None] = {}  # None while the anchored collection is open
        self._stack: list[_Open] = []
        self._root: Node | None = None
        self._expanded = 0

    def document(self) -> Node | None:
        """Read all events; an error in one node does not stop the reading."""
        started = False
        for number, event in enumerate(self._events()):
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

    def _events(self) -> Iterator[Any]:
        yield from yaml.parse(self._source.text, Loader=_LOADER)

    def _error(self, place: Place, code: Code, message: str) -> None:
        self._report.error(self._source, place, code, message)

    def _scalar(self, event: Any) -> None:
        self._check_tag(event)
        bare = event.style in (None, "") and event.tag is None
        node = Scalar(event.value, bare and event.value in _NULLS, _place(event))
        if event.anchor:
            self._anchors[event.anchor] = node
        self._add(node)

    def _check_tag(self, event: Any) -> None:
        if event.tag not in _STRING_TAGS:
            tag = event.tag.replace(_STANDARD, "!!", 1)
            message = f"the tag `{tag}` is not allowed: policies hold text, lists and mappings"
            self._error(_place(event), Code.TAG, message)

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
        for merged, place in top.merges:
            self._merge(top.node, merged, place)
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
        """Put a complete node where it belongs."""
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
                _absorb(top.node.entries[key.text][1], node)
            else:
                top.node.entries[key.text] = (key, node)

    def _key(self, node: Node) -> Scalar | None:
        if isinstance(node, Scalar) and not node.null:
            return node
        self._error(node.place, Code.BAD_KEY, "a key must be a word")
        return None

    def _merge(self, into: Sequence | Mapping, node: Node, place: Place) -> None:
        """The merge key `<<` (https://yaml.org/type/merge.html): what the mapping says itself goes before."""
        for each in node.items if isinstance(node, Sequence) else [node]:
            if not isinstance(each, Mapping) or not isinstance(into, Mapping):
                self._error(place, Code.ALIAS, "`<<` takes a mapping, or a list of mappings")
                return
            for key, entry in each.entries.items():
                into.entries.setdefault(key, entry)


def _absorb(first: Node, second: Node) -> None:
    """Go on as if both had been one: what stands under a section that is given twice is not unknown."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key, entry in second.entries.items():
            first.entries.setdefault(key, entry)


def _place(event: Any) -> Place:
    start, end = event.start_mark, event.end_mark
    length = end.column - start.column if start.line == end.line else 1
    return Place(start.line + 1, start.column + 1, max(1, length))
