"""What is wrong with policy files, where, and how it is shown. Nothing here decides what is wrong."""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tokgate.policy.origin import Origin

_SHOWN: Final = 140
"""Widest part of a source line that is shown; a policy may be written on one line of megabytes."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal would obey instead of show (controls, bidirectional overrides), and what can't be written at all."""


class Level(StrEnum):
    """Errors keep a policy from loading; warnings don't."""

    ERROR = "error"
    WARNING = "warning"


class Code(StrEnum):
    """Every kind of diagnostic. docs/policy.md documents each; the set is closed."""

    # Files
    NOT_FOUND = "not-found"
    UNREADABLE = "unreadable"
    BROKEN_LINK = "broken-link"
    LINK_LOOP = "link-loop"
    NO_POLICY_FILES = "no-policy-files"
    TOO_LARGE = "too-large"
    ENCODING = "encoding"
    # YAML
    SYNTAX = "syntax"
    TAB = "tab"
    SEVERAL_DOCUMENTS = "several-documents"
    EMPTY_FILE = "empty-file"
    DUPLICATE_KEY = "duplicate-key"
    BAD_KEY = "bad-key"
    TAG = "tag"
    ALIAS = "alias"
    EXPANSION = "expansion"
    TOO_DEEP = "too-deep"
    # Shape
    UNKNOWN_KEY = "unknown-key"
    MISSING_KEY = "missing-key"
    WRONG_TYPE = "wrong-type"
    BAD_VALUE = "bad-value"
    FORMAT_VERSION = "format-version"
    # Names
    BAD_IDENTIFIER = "bad-identifier"
    DEFINED_TWICE = "defined-twice"
    UNKNOWN_SERVICE = "unknown-service"
    UNKNOWN_NETWORK = "unknown-network"
    UNKNOWN_BAN = "unknown-ban"
    NAMED_TWICE = "named-twice"
    # Services and networks
    BAD_PATTERN = "bad-pattern"
    PUBLIC_SUFFIX = "public-suffix"
    BAD_REGEX = "bad-regex"
    MATCHES_EVERYTHING = "matches-everything"
    DUPLICATE_PATTERN = "duplicate-pattern"
    EMPTY_SERVICE = "empty-service"
    UNKNOWN_STORE = "unknown-store"
    BAD_STORE_ID = "bad-store-id"
    BAD_CIDR = "bad-cidr"
    HOST_BITS = "host-bits"
    NESTED_NETWORK = "nested-network"
    UNKNOWN_TIMEZONE = "unknown-timezone"
    BAD_INVENTORY = "bad-inventory"
    BAD_DEVICE = "bad-device"
    DUPLICATE_DEVICE = "duplicate-device"
    NO_DEVICES = "no-devices"
    UNKNOWN_DEVICE = "unknown-device"
    NO_PROXY_AUTH = "no-proxy-auth"
    # Time
    BAD_TIME = "bad-time"
    DATE_ALONE = "date-alone"
    BAD_DURATION = "bad-duration"
    BAD_DAYS = "bad-days"
    UNKNOWN_HOLIDAYS = "unknown-holidays"
    TWO_ENDS = "two-ends"
    REVERSED_TIMES = "reversed-times"
    NEVER_APPLIES = "never-applies"
    WINDOW_USELESS = "window-useless"
    BAN_OVER = "ban-over"
    EXEMPTION_OVER = "exemption-over"
    EXEMPTION_OUTSIDE = "exemption-outside"
    EXEMPTION_IDLE = "exemption-idle"
    OVERRIDE_FORBIDDEN = "override-forbidden"
    OVERRIDE_TOO_LONG = "override-too-long"
    # What `tokgate check` adds to what loading finds
    BAN_ENDS = "ban-ends"
    BAN_USELESS = "ban-useless"
    EXEMPTION_ENDS = "exemption-ends"
    PAGE_UNTRUSTED = "page-untrusted"
    TEST_FAILED = "test-failed"
    # Ours
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong. `line` is the source line, if there is one; `length` is in characters, 0 for none."""

    level: Level
    origin: Origin
    message: str
    code: Code
    line: str | None = None
    length: int = 0


def as_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """A diagnostic for another program."""
    return {
        "level": diagnostic.level.value,
        "file": diagnostic.origin.file,
        "line": diagnostic.origin.line,
        "column": diagnostic.origin.column,
        "message": diagnostic.message,
        "code": diagnostic.code.value,
    }


def render(diagnostic: Diagnostic, *, color: bool = False) -> str:
    """`file:line:col: error: message [code]`, then the source line and a caret under what is meant."""
    origin = diagnostic.origin
    tint = "31" if diagnostic.level is Level.ERROR else "33"
    head = (
        f"{_painted(_safe(str(origin)), '1', color)}: {_painted(diagnostic.level, f'1;{tint}', color)}: "
        f"{_safe(diagnostic.message)} {_painted(f'[{diagnostic.code}]', '2', color)}"
    )
    if diagnostic.line is None:
        return head
    shown, before, length = _excerpt(diagnostic.line, origin.column - 1, diagnostic.length)
    gutter = str(origin.line)
    caret = "^" + "~" * (_width(shown[len(before) : len(before) + length]) - 1)
    blank = "".join("\t" if character == "\t" else " " * _width(character) for character in before)
    margin = _painted(f"{' ' * len(gutter)} | ", "2", color)
    source = f"{_painted(f'{gutter} | ', '2', color)}{shown}".rstrip()
    return f"{head}\n{source}\n{margin}{blank}{_painted(caret, tint, color)}"


def _excerpt(line: str, column: int, length: int) -> tuple[str, str, int]:
    """The part of a line to show, what of it comes before the caret, and how many characters to underline."""
    start = 0 if len(line) <= _SHOWN else max(0, min(column - _SHOWN // 2, len(line) - _SHOWN))
    shown = _safe(line[start : start + _SHOWN])
    lead, trail = "…" if start else "", "…" if start + _SHOWN < len(line) else ""
    before = lead + shown[: column - start]
    return lead + shown + trail, before, max(1, min(length, len(shown) - (column - start)))


def _safe(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _width(text: str) -> int:
    """Columns on a terminal."""
    return max(1, sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text))


def _painted(text: str, style: str, color: bool) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if color else text
