"""The service index: which rule finds which name, and that nothing matches across a label boundary."""

from ipaddress import IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs.builders import CLIPS, service
from tokgate.policy.services import NO_MATCH, Match, ServiceIndex, compile_regex


def rules(match: Match) -> list[tuple[str, str]]:
    return [(hit.service, hit.rule) for hit in match.hits]


INDEX = ServiceIndex([CLIPS])


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ("clips.example.org", "suffix:clips.example.org"),
        ("www.clips.example.org", "suffix:clips.example.org"),
        ("a.b.c.clips.example.org.", "suffix:clips.example.org"),
        ("WWW.CLIPS.EXAMPLE.ORG:443", "suffix:clips.example.org"),
        ("static.example.net", "exact:static.example.net"),
        ("v16-clips.cdn.example", r"regex:^v[0-9]+-clips\.cdn\.example$"),
        ("clipsapp.com", "label:clipsapp"),
        ("www.clipsapp.co.uk", "label:clipsapp"),
        ("203.0.113.7", "address:203.0.113.0/24"),
        ("::ffff:203.0.113.7", "address:203.0.113.0/24"),
        ("[2001:db8:c11::1]:443", "address:2001:db8:c11::/48"),
        ("64:ff9b::203.0.113.7", "address:203.0.113.0/24"),
        ("2002:cb00:7107::1", "address:203.0.113.0/24"),
        ("::203.0.113.7", "address:203.0.113.0/24"),
    ],
)
def test_hits(host: str, rule: str) -> None:
    """Each kind of pattern finds its names and is reported as the rule."""
    assert rules(INDEX.match(host)) == [("clips", rule)]


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "notclips.example.org",
        "clips.example.org.evil.example",
        "xclips.example.org",
        "www.static.example.net",
        "v16-clips.cdn.example.net",
        "av16-clips.cdn.example",
        "v-clips.cdn.example",
        "clipsapp.example.com",
        "clipsapp.github.io",
        "clipsapp.notatld",
        "myclipsapp.com",
        "203.0.114.1",
        "2001:db8:c12::1",
        "play.google.com.example.org",
    ],
)
def test_misses(host: str) -> None:
    """Neighbours of every pattern match nothing."""
    assert INDEX.match(host) is NO_MATCH or INDEX.match(host).hits == ()


def test_prefixes_of_translators() -> None:
    """An address behind a NAT64 prefix that the policy names is banned as the IPv4 address that it stands for."""
    index = ServiceIndex([CLIPS], [IPv6Network("2001:db8:64::/96")])
    assert rules(index.match("2001:db8:64::203.0.113.7")) == [("clips", "address:203.0.113.0/24")]
    assert index.match("2001:db8:64::203.0.114.7") is INDEX.match("2001:db8:64::203.0.113.7") is NO_MATCH


def test_invalid_names_say_why() -> None:
    assert INDEX.match("a..b").problem == "a label is empty"


def test_one_hit_a_service_most_specific_first() -> None:
    """Exact beats suffix, the longer suffix beats the shorter; every service is reported once."""
    index = ServiceIndex(
        [
            service("a", "suffix:example.org", "suffix:www.example.org", "exact:x.www.example.org"),
            service("b", "suffix:example.org"),
        ]
    )
    assert rules(index.match("x.www.example.org")) == [("a", "exact:x.www.example.org"), ("b", "suffix:example.org")]
    assert rules(index.match("y.www.example.org")) == [("a", "suffix:www.example.org"), ("b", "suffix:example.org")]


def test_equal_matches_are_one_object() -> None:
    """Names found by the same rules share their match, so that decisions can be remembered by it."""
    assert INDEX.match("a.clips.example.org") is INDEX.match("b.clips.example.org")


@pytest.mark.parametrize(
    ("url", "rule", "front"),
    [
        (
            "https://play.google.com/store/apps/details?id=org.example.clips&hl=nl",
            "store:google-play/org.example.clips",
            False,
        ),
        ("https://apps.apple.com/be/app/clips/id835599320", "store:apple/835599320", False),
        ("https://play.google.com/store/apps/details?id=org.example.other", "store:google-play", True),
        ("https://www.clips.example.org/watch?v=1", "suffix:clips.example.org", False),
    ],
)
def test_urls(url: str, rule: str, front: bool) -> None:
    """A URL is found by its store listing, else by its host."""
    (hit,) = INDEX.match_url(url).hits
    assert (hit.rule, hit.front) == (rule, front)


@pytest.mark.parametrize(
    ("store", "identifier", "listed"),
    [
        ("google-play", "org.example.clips", True),
        ("google-play", "org.example.other", False),
        ("apple", "org.example.clips", False),
    ],
)
def test_listings_of_a_store(store: str, identifier: str, listed: bool) -> None:
    """An app that is asked for in a request's body is one of a service's where that service names it, in that store."""
    assert INDEX.lists(store, identifier) is listed


def test_regexes_know_no_case() -> None:
    """A pattern that was copied with capitals bans the name as well: names have none when they are compared."""
    assert rules(ServiceIndex([service("clips", r"regex:CDN-[0-9]+\.Example\.ORG")]).match("cdn-7.example.org"))


def test_thousands_of_regexes() -> None:
    """A long list of patterns loads: the engine's own bound on memory is for one pattern, not for all of a policy's."""
    index = ServiceIndex([service("clips", *(rf"regex:[a-z]{{1,20}}{n}\.example\.org" for n in range(2000)))])

    assert rules(index.match("cdn1999.example.org")) == [("clips", r"regex:[a-z]{1,20}1999\.example\.org")]


@pytest.mark.parametrize("pattern", [r"(?=a)b", r"(a)\1", r"(", r"a{1001}{1001}"])
def test_nonlinear_regexes_are_refused(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Look-around, back-references and bad syntax raise ValueError with the engine's words, and it logs none itself."""
    with pytest.raises(ValueError, match=r"."):
        compile_regex(pattern)
    assert capfd.readouterr().err == ""


label = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)


@given(st.lists(label, min_size=1, max_size=3), label, label)
def test_label_boundaries(sub: list[str], glued: str, tail: str) -> None:
    """Sub-names of a suffix match; a name glued to it, or with something behind it, does not."""
    index = ServiceIndex([service("s", "suffix:example.org")])
    assert index.match(".".join(sub) + ".example.org").hits
    assert not index.match(glued + "example.org").hits
    assert not index.match(f"example.org.{tail}x").hits
