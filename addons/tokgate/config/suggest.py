"""What was probably meant: a near miss among the words that are allowed, and the words themselves."""

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

_LISTED: Final = 20
"""How many alternatives a message lists before it only counts them."""
_COMPARED: Final = 20_000
"""Against how many words a near miss is looked for: difflib is slow, and a policy may define tens of thousands."""


def near(word: str, allowed: Collection[str]) -> str | None:
    """The allowed word that is most like `word`; None when nothing is near, or too much would have to be compared."""
    folded = {candidate.casefold(): candidate for candidate in allowed if abs(len(candidate) - len(word)) <= 4}
    if len(folded) > _COMPARED or len(word) > 100:
        return folded.get(word.casefold())
    found = get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, allowed: Collection[str]) -> str:
    """`; did you mean …?`, else what is allowed, else nothing: to be put after a message."""
    meant = near(word, allowed)
    if meant is not None:
        return f"; did you mean `{meant}`?"
    return f"; allowed: {listed(allowed)}" if 0 < len(allowed) <= _LISTED else ""


def listed(words: Collection[str]) -> str:
    """The words, each in backquotes."""
    return ", ".join(f"`{word}`" for word in words)
