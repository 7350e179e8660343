"""What the YAML parser complains about, in words that help, at the place that has to be mended."""

import re
from collections.abc import Iterator
from typing import Final

import yaml

from tokgate.config.diagnostics import Code
from tokgate.config.source import Place, Source

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
"""What stands before the colon that is complained about, if it is the first of its line."""
_KEYLESS: Final = re.compile(r"(?P<indent>\s*(?:- +)*)(?P<word>[\w.-]+)(?P<joined>:\S.*)?\s*\Z")
"""A line that was meant as a key: a word without a colon, or without a space after it."""
_GLUED_ITEM: Final = re.compile(r"(?P<indent>\s*)-(?=[\w{\[\"'])")
"""A list item whose `-` has no space after it."""


def explained(error: yaml.MarkedYAMLError, source: Source) -> tuple[Place, Code, str]:
    """Where the mistake is, its code, and what to do."""
    problem, start, end = error.problem or error.context or "unreadable", error.context_mark, error.problem_mark
    at_end = end is not None and not "".join(source.lines[end.line :]).strip()
    unclosed = at_end or "end of stream" in problem
    mark = start if unclosed and start is not None else end
    place = Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1, 1)
    line = source.line(place.line) or ""
    character = line[place.column - 1 : place.column]
    if "start any token" in problem:
        if character == "\t":
            return place, Code.TAB, "a tab: YAML is indented with spaces only"
        return place, Code.SYNTAX, f"a value can't begin with `{character}`: put it in quotes"
    if "did not find expected node content" in problem and character == ":":
        return place, Code.SYNTAX, "a value can't begin with `:` here: put it in quotes (an IPv6 address, for one)"
    odd = next(_odd_indents(place.line, source), None)
    if odd is not None:
        where, name = odd
        return (
            where,
            Code.SYNTAX,
            f"the character {name} looks like a space and is none: YAML is indented with spaces only",
        )
    indent, known = place.column - 1, _indents(place.line, source)
    if "did not find expected key" in problem and not line[:indent].strip() and indent not in known:
        stand = ", ".join(map(str, known))
        return (
            place,
            Code.SYNTAX,
            f"indented by {indent}, while the keys above are by {stand}: line it up with one of them",
        )
    found = next(_culprits(problem, place, start, source), None)
    if found is not None:
        where, message = found
        return where, Code.SYNTAX, message
    message = next((text for key, text in _PROBLEMS.items() if key in problem), f"not YAML: {problem}")
    if mark is end and start is not None and end is not None and start.line != end.line:
        message += f" (began on line {start.line + 1})"
    return place, Code.SYNTAX, message


def _odd_indents(number: int, source: Source) -> Iterator[tuple[Place, str]]:
    """Characters in the indentation of a line, or of the one above, that only look like spaces: web pages have them."""
    for each in (number - 1, number):
        line = source.line(each) or ""
        for column, character in enumerate(line[: len(line) - len(line.lstrip())], 1):
            if character not in " \t":
                yield Place(each, column, 1), f"U+{ord(character):04X}"


def _indents(number: int, source: Source) -> list[int]:
    """How far the keys are indented among which a line could stand, the outermost first."""
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


def _culprits(problem: str, place: Place, start: yaml.Mark | None, source: Source) -> Iterator[tuple[Place, str]]:
    """The mistakes that make the parser stumble over a colon further on, or miss one."""
    if "could not find expected ':'" in problem and start is not None:
        yield from _keyless(start.line + 1, source, "is neither a key, with a `:` after it, nor a list item, with `- `")
    elif "mapping values are not allowed" in problem:
        line = source.line(place.line) or ""
        yield from _glued(place.line, line)
        if _ONE_KEY.match(line[: place.column - 1]):
            above = range(place.line - 1, 0, -1)
            number = next((n for n in above if (source.line(n) or "").partition("#")[0].strip()), 0)
            yield from _keyless(number, source, "is no key without a `:` after it")


def _glued(number: int, line: str) -> Iterator[tuple[Place, str]]:
    found = _GLUED_ITEM.match(line)
    if found is not None:
        place = Place(number, len(found["indent"]) + 1, 1)
        yield place, "a list item begins with `- `: a space is missing after the `-`"


def _keyless(number: int, source: Source, why: str) -> Iterator[tuple[Place, str]]:
    line = (source.line(number) or "").partition(" #")[0]
    yield from _glued(number, line)
    found = _KEYLESS.match(line)
    if found is not None:
        place = Place(number, len(found["indent"]) + 1, len(found["word"]))
        yield place, "a space is missing after the `:`" if found["joined"] else f"`{found['word']}` {why}"
