"""Translates the YAML parser's errors: a message that says what to do, at the position of the mistake."""

import re
from collections.abc import Iterator
from typing import Final

import yaml

from tokgate.config.diagnostics import Code
from tokgate.config.yaml.source import Source, TextSpan, odd_space

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
