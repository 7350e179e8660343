"""How a name resembles a banned service. Values only; `near_miss` finds them."""

from dataclasses import dataclass
from enum import StrEnum


class How(StrEnum):
    """How a name resembles a service, the strongest resemblance first."""

    ALIAS = "alias"
    """It contains one of the service's names, as names of content networks do: `www.tiktok.com.edgekey.example`."""
    SAME_LABEL = "same-label"
    """It has the registrable label of the service's name under another suffix: `tiktokcdn.example`."""
    CONTAINS = "contains"
    """A label contains the service's brand."""
    SIMILAR = "similar"
    """A label differs from the service's brand by a letter or two."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """`name` is the observed name from the label that resembles `word` upwards, without the labels below."""

    name: str
    service: str
    word: str
    how: How
