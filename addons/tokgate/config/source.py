"""The text of one policy file, the collected report over all of them, and where in them things stand."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from tokgate.config.diagnostics import Code, Diagnostic, Level
from tokgate.policy.origin import Origin

_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # YAML 1.1 §4.2
_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_UTF_16_32: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of a line; line and column count from 1."""

    line: int
    column: int
    length: int = 0


class Source:
    """A file's name as it is reported, and its text."""

    def __init__(self, file: str, text: str = "") -> None:
        """`text` has no byte-order mark."""
        self.file: Final = file
        self.text: Final = text

    @cached_property
    def lines(self) -> list[str]:
        """All lines, without their ends."""
        return _BREAK.split(self.text)  # only when something is wrong, so not when the file is read

    def origin(self, place: Place) -> Origin:
        """The position in the core's terms."""
        return Origin(self.file, place.line, place.column)

    def line(self, number: int) -> str | None:
        """The source line, if the file has it."""
        return self.lines[number - 1] if self.text and 0 < number <= len(self.lines) else None


@dataclass(slots=True)
class Report:
    """Collects diagnostics: errors are gathered, not thrown."""

    diagnostics: list[Diagnostic] = field(default_factory=list)

    def error(self, source: Source, place: Place, code: Code, message: str) -> None:
        """Something that keeps the policy from loading."""
        self._add(Level.ERROR, source, place, code, message)

    def warning(self, source: Source, place: Place, code: Code, message: str) -> None:
        """Something that is probably not meant."""
        self._add(Level.WARNING, source, place, code, message)

    def _add(self, level: Level, source: Source, place: Place, code: Code, message: str) -> None:
        line = source.line(place.line)
        self.diagnostics.append(Diagnostic(level, source.origin(place), message, code, line, place.length))

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Add what was found elsewhere."""
        self.diagnostics.extend(diagnostics)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """By file, line and column; each thing once."""
        unique = dict.fromkeys(self.diagnostics)
        return tuple(sorted(unique, key=lambda d: (d.origin.file, d.origin.line, d.origin.column)))


def decode(file: str, data: bytes, report: Report) -> Source | None:
    """The text of a file in UTF-8, with or without a byte-order mark; None, and an error, for anything else."""
    if data.startswith(_UTF_16_32):
        report.error(Source(file), Place(1, 1), Code.ENCODING, "the file is in UTF-16 or UTF-32: save it as UTF-8")
        return None
    try:
        source = Source(file, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        message = f"byte 0x{error.object[error.start]:02x} is not valid UTF-8: save the file as UTF-8"
        shown = Source(file, error.object.decode(errors="replace"))  # without the mark, as the position is
        report.error(shown, _after(error.object[: error.start].decode()), Code.ENCODING, message)
        return None
    found = _UNPRINTABLE.search(source.text)
    if found is None:
        return source
    name = "a NUL byte" if found[0] == "\0" else f"the character U+{ord(found[0]):04X}"
    where = _after(source.text[: found.start()])
    report.error(source, where, Code.ENCODING, f"{name} is not allowed; is this a text file in UTF-8?")
    return None


def _after(text: str) -> Place:
    """The place of the character that follows."""
    lines = _BREAK.split(text)
    return Place(len(lines), len(lines[-1]) + 1, 1)
