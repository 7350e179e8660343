"""Suggestions for wrong words: only shown, never used."""

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

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
