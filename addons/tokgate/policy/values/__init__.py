"""Values without policy: host names, prefixes, times, positions in policy files."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


@dataclass(frozen=True, slots=True)
class Origin:
    """A position in a policy file, which `policy/` passes on; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Word(StrEnum):
    """A word of YAML, log and docs; `meaning` says in a sentence what it stands for where a policy states it."""

    _value_: str
    meaning: str

    def __new__(cls, word: str, meaning: str = "") -> Self:
        """A member is stated as its word and its meaning."""
        made = str.__new__(cls, word)
        made._value_ = word
        made.meaning = meaning
        return made


class Language(Word):
    """A language of the block page."""

    EN = "en", "English."
    FR = "fr", "French."
    NL = "nl", "Dutch."
    DE = "de", "German."
