"""Domain names by the Public Suffix List bundled with tldextract: loaded at first use, never fetched or written."""

from dataclasses import dataclass
from functools import cache, lru_cache
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


@dataclass(frozen=True, slots=True)
class DomainParts:
    """`www.shop` + `example.co.uk` + `co.uk`, as ECS names them; absent parts are None."""

    registered_domain: str | None
    subdomain: str | None
    top_level_domain: str | None


@lru_cache(maxsize=8192)
def domain_parts(name: str) -> DomainParts:
    """Split a canonical domain name; a name under no public suffix has no registered domain."""
    suffix = public_suffix(name)
    below, _, label = name.removesuffix(suffix or "").rstrip(".").rpartition(".")
    return DomainParts(f"{label}.{suffix}" if suffix and label else None, below or None, suffix)
