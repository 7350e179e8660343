"""Splits a domain name by the bundled Public Suffix List, which is never fetched."""

from dataclasses import dataclass
from functools import lru_cache

from tokgate.policy.values.public_suffix import public_suffix


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
