"""Validates nodes against pydantic models, and turns errors into diagnostics with positions."""

import re
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tokgate.config.diagnostics import Code
from tokgate.config.yaml.nodes import Mapping, Node, Scalar, Sequence, led_to, plain
from tokgate.config.yaml.source import Report, Source, TextSpan
from tokgate.config.yaml.suggestions import did_you_mean, listed

_Path = tuple[str | int, ...]


def shaped[M: BaseModel](model: type[M], node: Node, source: Source, owner: TextSpan, report: Report) -> M | None:
    """The node as a model; None, and errors at their positions, if it is invalid. `owner` is the place of its name."""
    silent = set(_without_value(node))
    valid: M | None = None
    try:
        valid = model.model_validate(plain(node))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            unknown = detail["type"] == "extra_forbidden"
            place = place_of(node, detail["loc"], owner, key=unknown)
            if unknown:
                silent.discard(place)  # one error is enough
            if place not in silent:
                code, message = _in_our_words(detail, model, led_to(node, detail["loc"]))
                report.error(source, place, code, message)
    for place in silent:
        behind = (source.line(place.line) or "")[place.column - 1 :].partition(":")[2].lstrip()
        cut = behind.startswith("#") and not behind.startswith("# ")
        value = "put what follows in quotes, since `#` begins a comment" if cut else "write one"
        report.error(source, place, Code.WRONG_TYPE, f"this key has no value: {value}, or leave the key out")
    return None if silent else valid


def _without_value(node: Node) -> Iterator[TextSpan]:
    """The places of keys without a value."""
    if isinstance(node, Mapping):
        for key, value in node.entries.values():
            if isinstance(value, Scalar) and value.null:
                yield key.place
            else:
                yield from _without_value(value)
    elif isinstance(node, Sequence):
        for item in node.items:
            if not isinstance(item, Scalar):
                yield from _without_value(item)


def place_of(node: Node, path: _Path, owner: TextSpan, *, key: bool = False) -> TextSpan:
    """The place of the node at `path`, or of its nearest existing ancestor.

    This is the value's place, or its key's if the value is a collection, is empty, or if `key` is set.
    """
    place = owner
    for step in path:
        if isinstance(node, Mapping) and step in node.entries:
            name, node = node.entries[str(step)]
            place = name.place if key or not isinstance(node, Scalar) or node.null else node.place
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            place = node.place
    return place


_MAPPING_TYPES: Final = ("dict_type", "model_type", "model_attributes_type")
_GLUED: Final = re.compile(r"[\w-]+:\S")
_TYPOGRAPHIC: Final = tuple("“”„‘’‚«»")
_SHORT: Final = 60


def _in_our_words(detail: ErrorDetails, model: type[BaseModel], node: Node | None) -> tuple[Code, str]:
    """The code and message for one of pydantic's errors about this node."""
    kind, path = detail["type"], detail["loc"]
    last, written = str(path[-1]) if path else "", node.text if isinstance(node, Scalar) else ""
    if kind in Code:
        message = f"{_subject(path)} {detail['msg']}" if detail["msg"].startswith("must ") else detail["msg"]
        quotes = "; for YAML these quotes are part of the text: write `\"` or `'`"
        return Code(kind), message + (quotes if written.startswith(_TYPOGRAPHIC) else "")
    if kind == "missing":
        return Code.MISSING_KEY, f"`{last}` is missing"
    if kind == "extra_forbidden":
        return _unknown(last, path[:-1], _keys(model, path[:-1]))
    if kind == "too_short":
        return Code.BAD_VALUE, f"{_subject(path)} must not be empty"
    if kind == "list_type" and isinstance(node, Mapping):
        return Code.WRONG_TYPE, f"{_subject(path)} must be a list: begin each item with `- `"
    if kind == "list_type":
        example = written if 0 < len(written) <= _SHORT and written.isprintable() else "…"
        return Code.WRONG_TYPE, f"{_subject(path)} must be a list: `[{example}]`"
    if kind in _MAPPING_TYPES:
        why = ""
        if _GLUED.match(written):
            why = ": a space is missing after the `:`"
        elif isinstance(node, Scalar) and node.null:
            why = ": are its keys, on the lines below, indented further than its name?"
        return Code.WRONG_TYPE, f"{_subject(path)} must be a mapping of keys to values{why}"
    return Code.BAD_VALUE, detail["msg"]


def _unknown(key: str, above: _Path, known: tuple[str, ...]) -> tuple[Code, str]:
    if _GLUED.match(key) and key.partition(":")[0] in known:
        return Code.UNKNOWN_KEY, f"unknown key `{key}`: a space is missing after its `:`"
    if above == ("store",):
        return Code.UNKNOWN_STORE, f"unknown store `{key}`; allowed: {listed(known)}"
    return Code.UNKNOWN_KEY, f"unknown key `{key}`{hint(key, known)}"


def _subject(path: _Path) -> str:
    names = [step for step in path if isinstance(step, str)]
    if not names:
        return "this entry"
    return f"`{names[-1]}`" if names[-1] == path[-1] else f"each item of `{names[-1]}`"


def hint(word: str, allowed: tuple[str, ...]) -> str:
    """The end of a message: the most similar allowed word, or else all of them, however many."""
    return did_you_mean(word, allowed) or f"; allowed: {listed(allowed)}"


def _keys(model: type[BaseModel], path: _Path) -> tuple[str, ...]:
    """The keys, as in YAML, of the model at `path`."""
    for step in path:
        if isinstance(step, str):
            model = _inner(model, step)
    return tuple(field.alias or name for name, field in model.model_fields.items())


def _inner(model: type[BaseModel], key: str) -> type[BaseModel]:
    annotation: Any = next((f.annotation for n, f in model.model_fields.items() if key in (n, f.alias)), None)
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return model
