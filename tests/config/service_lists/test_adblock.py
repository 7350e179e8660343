"""Rules of ad blockers: those about names, those about less, exceptions, options, and lines of a hosts file."""

import pytest

from tokgate.config.service_lists.adblock import read_adblock
from tokgate.policy.services import compile_regex

RULES = """\
[Adblock Plus 2.0]
! Title: Clips
! Homepage: https://www.example.org/clips
! License: CC0-1.0
! Version: 202608191000
||clips.example^
||cdn.clips.example^$important
||wide.example^$third-party
||limited.example^$script,domain=example.org
|one.example^
|https://two.example/
||part.example/path
||*.wild.example^
||v*.clipscdn.example^
||clips-*.com^
@@||good.clips.example^
||deny.example^$denyallow=a.deny.example|b.deny.example
||gone.example^
||gone.example^$badfilter
/^v[0-9]+\\.clips\\.example$/
/banner/$script
example.org##.advert
0.0.0.0 host.example other.example
plain.example
||203.0.113.7^
-banner-
"""


def test_the_rules() -> None:
    """Rules for whole names are taken; rules for less are not, since a ban would take the whole name."""
    found = read_adblock("clips.txt", RULES)
    assert [(entry.kind, entry.value) for entry in found.entries] == [
        ("suffix", "clips.example"),
        ("suffix", "cdn.clips.example"),
        ("suffix", "wide.example"),
        ("exact", "one.example"),
        ("exact", "two.example"),
        ("suffix", "wild.example"),
        ("regex", "^(.+\\.)?v[a-z0-9.-]*\\.clipscdn\\.example$"),
        ("suffix", "deny.example"),
        ("regex", "^v[0-9]+\\.clips\\.example$"),
        ("exact", "host.example"),
        ("exact", "other.example"),
        ("exact", "plain.example"),
        ("address", "203.0.113.7"),
    ]
    assert [entry.value for entry in found.exceptions] == ["good.clips.example", "a.deny.example", "b.deny.example"]
    assert {each.place.line: each.why for each in found.unreadable} == {
        9: "the option `script` limits the rule to some requests",
        12: "a rule for parts of URLs, not for a name",
        15: "anybody may register a name that it matches",
        21: "the options `$script` limit the rule to some requests",
        22: "a rule for the content of pages, not for a name",
        26: "a rule for parts of URLs, not for a name",
    }


def test_what_the_list_says_of_itself() -> None:
    """The head of a list says where it is from and which revision it is."""
    assert read_adblock("clips.txt", RULES).said == {
        "title": "Clips",
        "list": "https://www.example.org/clips",
        "licence": "CC0-1.0",
        "revision": "202608191000",
    }


@pytest.mark.parametrize(
    ("host", "matches"),
    [("v16.clipscdn.example", True), ("a.v16m.b.clipscdn.example", True), ("x16.clipscdn.example", False)],
)
def test_a_wildcard_stays_within_the_domain(host: str, matches: bool) -> None:
    """A wildcard is as wide as in the ad blocker, and the domain behind it ends where it ends."""
    (pattern,) = (entry.value for entry in read_adblock("x", "||v*.clipscdn.example^").entries)
    assert bool(compile_regex(pattern).fullmatch(host)) == matches
    assert not compile_regex(pattern).fullmatch(f"{host}.example.org")
