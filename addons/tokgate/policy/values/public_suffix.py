"""The Public Suffix List bundled with tldextract: loaded at its first use, never fetched, nothing written."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tldextract import TLDExtract


def public_suffix(name: str, *, private: bool = False) -> str | None:
    """The public suffix that a canonical name has or is; None under a top-level domain that the list doesn't have.

    `private`: also suffixes of providers who give names below them to strangers, such as `github.io`.
    """
    return _suffix_list().extract_str(name, include_psl_private_domains=private).suffix or None


def load_suffix_list() -> None:
    """Load the list, which takes some 50 ms. Latency-sensitive callers do it at their start."""
    _suffix_list()


@cache
def _suffix_list() -> "TLDExtract":
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
