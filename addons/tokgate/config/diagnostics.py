"""Diagnostics of policy files, how they are printed, and suggestions for wrong words. The checks are elsewhere."""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Final, TypedDict

from tokgate.policy.values import Origin
from tokgate.policy.values.text import columns, escaped, readable, readable_characters, shown

_SHOWN: Final = 140
"""Most characters of a source line that are shown; a policy may be one line of megabytes."""


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
    FILE_OUTSIDE = "file-outside"
    LINK_LOOP = "link-loop"
    NO_POLICY_FILES = "no-policy-files"
    SKIPPED_FILE = "skipped-file"
    TOO_LARGE = "too-large"
    ENCODING = "encoding"
    # YAML
    SYNTAX = "syntax"
    TAB = "tab"
    SEVERAL_DOCUMENTS = "several-documents"
    BAD_IGNORE = "bad-ignore"
    EMPTY_FILE = "empty-file"
    DUPLICATE_KEY = "duplicate-key"
    BAD_KEY = "bad-key"
    TAG = "tag"
    CUT_VALUE = "cut-value"
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
    MATCHES_NOTHING = "matches-nothing"
    LOOK_ALIKE = "look-alike"
    SHARED_SUFFIX = "shared-suffix"
    DUPLICATE_PATTERN = "duplicate-pattern"
    EMPTY_SERVICE = "empty-service"
    NO_NAMES = "no-names"
    UNKNOWN_STORE = "unknown-store"
    BAD_STORE_ID = "bad-store-id"
    BAD_CIDR = "bad-cidr"
    HOST_BITS = "host-bits"
    EVERYBODY = "everybody"
    NETWORK_CYCLE = "network-cycle"
    EXCEPT_OUTSIDE = "except-outside"
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
    DURATION_MINUTES = "duration-minutes"
    CLOCK_CHANGE = "clock-change"
    NEVER_APPLIES = "never-applies"
    EXTENSION_GAP = "extension-gap"
    EXTENSION_OVERLAP = "extension-overlap"
    EXTENSION_NARROWER = "extension-narrower"
    BAN_OVER = "ban-over"
    EXEMPTION_OVER = "exemption-over"
    EXEMPTION_OUTSIDE = "exemption-outside"
    EXEMPTION_IDLE = "exemption-idle"
    OVERRIDE_FORBIDDEN = "override-forbidden"
    OVERRIDE_TOO_LONG = "override-too-long"
    NOT_LIFTED = "not-lifted"
    # The installation
    MISSING_EXTRA = "missing-extra"
    # Only by `tokgate check`
    BAN_ENDS = "ban-ends"
    BAN_HELD = "ban-held"
    UNUSED_NETWORK = "unused-network"
    FREE_ADDRESSES = "free-addresses"
    ONE_FAMILY = "one-family"
    EXEMPTION_ENDS = "exemption-ends"
    NO_AUTHORITY = "no-authority"
    PAGE_UNTRUSTED = "page-untrusted"
    TEST_FAILED = "test-failed"
    # A defect of tokgate
    INTERNAL = "internal"


Place = tuple[str, int, Code]
"""A file, a line of it, and what is said of that line."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error or warning. `line` is the source line, if there is one; `length` is in characters, 0 for none."""

    level: Level
    origin: Origin
    message: str
    code: Code
    line: str | None = None
    length: int = 0

    def silenced_by(self, ignored: Collection[Place]) -> bool:
        """Whether this is a warning that a comment in the file silences."""
        return self.level is Level.WARNING and (self.origin.file, self.origin.line, self.code) in ignored


class DiagnosticOutput(TypedDict):
    """An error or a warning; line and column count from 1."""

    level: Level
    file: str
    line: int
    column: int
    message: str
    code: Code


def as_json(diagnostic: Diagnostic) -> DiagnosticOutput:
    origin = diagnostic.origin
    return shown(DiagnosticOutput, diagnostic, file=origin.file, line=origin.line, column=origin.column)


def render(diagnostic: Diagnostic, *, color: bool = False) -> str:
    """`file:line:col: error: message [code]`, then the source line and a caret under the span."""
    origin = diagnostic.origin
    tint = "31" if diagnostic.level is Level.ERROR else "33"
    head = (
        f"{_painted(escaped(str(origin)), '1', color)}: {_painted(diagnostic.level, f'1;{tint}', color)}: "
        f"{readable(diagnostic.message)} {_painted(f'[{diagnostic.code}]', '2', color)}"
    )
    if diagnostic.line is None:
        return head
    shown, before, length = _excerpt(diagnostic.line, origin.column - 1, diagnostic.length)
    gutter = str(origin.line)
    caret = "^" + "~" * (columns(shown[len(before) : len(before) + length]) - 1)
    blank = "".join("\t" if character == "\t" else " " * columns(character) for character in before)
    margin = _painted(f"{' ' * len(gutter)} | ", "2", color)
    source = f"{_painted(f'{gutter} | ', '2', color)}{shown}".rstrip()
    return f"{head}\n{source}\n{margin}{blank}{_painted(caret, tint, color)}"


def _excerpt(line: str, column: int, length: int) -> tuple[str, str, int]:
    """The part of a line to show, the part of that before the caret, and how many characters to underline."""
    start = 0 if len(line) <= _SHOWN else max(0, min(column - _SHOWN // 2, len(line) - _SHOWN))
    cut = line[start : start + _SHOWN]
    shown = ["\t" if character == "\t" else safe for character, safe in zip(cut, readable_characters(cut), strict=True)]
    lead, trail = "…" if start else "", "…" if start + _SHOWN < len(line) else ""
    before, marked = "".join(shown[: column - start]), "".join(shown[column - start :][: max(1, length)])
    return lead + "".join(shown) + trail, lead + before, max(1, len(marked))


def _painted(text: str, style: str, color: bool) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if color else text


_LISTED: Final = 20
"""Most alternatives that a message lists."""
_LONGER: Final = 4
"""Most letters by which a suggestion is longer or shorter than the word."""
_LONGEST: Final = 100
_COMPARED: Final = 20_000
"""Most words that are compared: difflib is slow, and a policy may define tens of thousands."""


def near(word: str, allowed: Collection[str]) -> str | None:
    """The allowed word that is most similar to `word`; None if none is, or if there are too many to compare."""
    folded = {candidate.casefold(): candidate for candidate in allowed if abs(len(candidate) - len(word)) <= _LONGER}
    if len(folded) > _COMPARED or len(word) > _LONGEST:
        return folded.get(word.casefold())
    found = get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, allowed: Collection[str]) -> str:
    """The end of a message: `; did you mean …?`, else `; allowed: …` if there are few words, else nothing."""
    meant = near(word, allowed)
    if meant is not None:
        return f"; did you mean `{meant}`?"
    return f"; allowed: {listed(allowed)}" if 0 < len(allowed) <= _LISTED else ""


def listed(words: Collection[str]) -> str:
    """The words in backquotes, separated by commas."""
    return ", ".join(f"`{word}`" for word in words)
