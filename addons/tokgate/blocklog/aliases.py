"""The words that stand in the log for a client whose address it does not name."""

import re
from typing import Final

WITHHELD: Final = "withheld"
"""Stands for every client while there is no key to make pseudonyms with."""
PSEUDONYM: Final = re.compile(r"p([0-9]+)-([a-z2-7]{16})")
"""The number of a period, and what an address is called in it."""


def is_alias(text: str) -> bool:
    """Whether a text is one of these words. Prefixes aren't: they are networks."""
    return text == WITHHELD or PSEUDONYM.fullmatch(text) is not None
