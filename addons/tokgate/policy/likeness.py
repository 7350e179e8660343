"""In what a name resembles a banned service. Values only; `resemblance` finds them."""

from dataclasses import dataclass
from enum import StrEnum


class How(StrEnum):
    """In which way a name resembles a service, the most telling first."""

    ALIAS = "alias"
    """One of its names is spelled out in it, as content networks do: `www.tiktok.com.edgekey.example`."""
    SAME_LABEL = "same-label"
    """It is the same under another suffix: `tiktokcdn.example`."""
    CONTAINS = "contains"
    """A label has its brand inside."""
    SIMILAR = "similar"
    """A label is its brand but for a letter or two."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """`name` is the part of the observed name that resembles, and what is above it: nothing below."""

    name: str
    service: str
    word: str
    how: How
