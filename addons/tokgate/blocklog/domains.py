"""The parts of a domain name that reviewers group by, from the bundled Public Suffix List: nothing is ever fetched."""

from dataclasses import dataclass
from functools import lru_cache

from tokgate.policy.suffixes import suffix_list


@dataclass(frozen=True, slots=True)
class DomainParts:
    """`www.shop` + `example.co.uk` + `co.uk`, as ECS names them; absent parts are None."""

    registered_domain: str | None
    subdomain: str | None
    top_level_domain: str | None


@lru_cache(maxsize=8192)
def domain_parts(name: str) -> DomainParts:
    """Split a canonical domain name; a name under no public suffix has no registered domain."""
    parts = suffix_list().extract_str(name)
    return DomainParts(parts.top_domain_under_public_suffix or None, parts.subdomain or None, parts.suffix or None)
