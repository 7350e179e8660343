"""The Public Suffix List bundled with tldextract: never fetched, nothing written. Read at its first use."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tldextract import TLDExtract


@cache
def suffix_list() -> "TLDExtract":
    """The list. Whoever can't wait a twentieth of a second later, calls this at the start."""
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
