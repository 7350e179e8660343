"""Shared hosts: a suffix that would take in one is known, a customer's own host below one is fine."""

import pytest

from tokgate.config.service_lists.selection import SHARED_HOSTS, shared_host
from tokgate.policy.values.hostname import DomainName, normalise


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        ("akamaized.net", "akamaized.net"),
        ("windows.net", "windows.net"),
        ("clips.akamaized.net", None),
        ("notakamaized.net", None),
        ("example.org", None),
    ],
)
def test_shared_host(suffix: str, expected: str | None) -> None:
    """A list's entry for a CDN as a whole is found, and nothing else is taken for one."""
    assert shared_host(suffix) == expected


def test_a_suffix_above_a_shared_host_holds_it() -> None:
    """A parent of a shared host takes in the same strangers."""
    assert shared_host("translate.goog") == "translate.goog"
    assert shared_host("googlehosted.com") == "ghs.googlehosted.com"


def test_the_names_are_canonical() -> None:
    """A name that is written in another way would never be found."""
    assert [name for name in SHARED_HOSTS if normalise(name) != DomainName(name)] == []
    assert len(set(SHARED_HOSTS)) == len(SHARED_HOSTS)
