"""Aliases of clients: what stands in the log in place of an address."""

import re
from typing import Final

WITHHELD: Final = "withheld"
"""The alias of every client while no key for pseudonyms is available."""
PSEUDONYM: Final = re.compile(r"p([0-9]+)-([a-z2-7]{16})")
"""The number of the period, and 80 bits of an HMAC in base32."""


def is_alias(text: str) -> bool:
    """Whether a text is `withheld` or a pseudonym. A prefix is no alias, but a network."""
    return text == WITHHELD or PSEUDONYM.fullmatch(text) is not None
