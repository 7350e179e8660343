"""Strangers by the thousand that every clone has: what the public suffix list that comes with tldextract names."""

from functools import cache

import tldextract


@cache
def private_suffixes() -> tuple[str, ...]:
    """The domains under which companies let anybody have names (the list's private part), in order."""
    public, all_ = (
        set(tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=private).tlds)
        for private in (False, True)
    )
    return tuple(sorted(name.removeprefix("*.") for name in all_ - public if not name.startswith("!")))
