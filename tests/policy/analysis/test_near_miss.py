"""What resembles a banned service, and what merely shares letters with it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs import builders
from tokgate.config.loader import load
from tokgate.policy.analysis.likeness import How, Likeness
from tokgate.policy.analysis.near_miss import MOST_WORDS, Resemblance
from tokgate.policy.services import NO_MATCH
from tokgate.policy.settings import LogSettings
from tokgate.policy.snapshot import compile_policy

ROOT = Path(__file__).parents[3]
LOOKALIKES = ROOT.parent / "shared" / "data" / "lookalikes.txt"
TOP_SITES = ROOT.parent / "shared" / "data" / "top-sites.txt"
CLIPS = builders.service(
    "clips",
    *("suffix:cliptok.com", "suffix:cliptokcdn.com", "suffix:cliptok-live.com", "suffix:muscdn.com"),
    *("suffix:direct.ly", "exact:static.shared.net"),
    "label:vidyoo",
    r"regex:^v[0-9]+-clips\.cdn\.example$",
)
RESEMBLANCE = Resemblance([CLIPS])


@pytest.mark.parametrize(
    ("name", "part", "word", "how"),
    [
        ("p16-muscdn-com.cdn.org", "p16-muscdn-com.cdn.org", "muscdn.com", How.ALIAS),
        ("www.cliptok.com.edgekey.net", "cliptok.com.edgekey.net", "cliptok.com", How.ALIAS),
        ("a.b.cliptok-live-com.c.d.net", "cliptok-live-com.c.d.net", "cliptok-live.com", How.ALIAS),
        ("www.muscdn.net", "muscdn.net", "muscdn", How.SAME_LABEL),
        ("api.direct.co.uk", "direct.co.uk", "direct", How.SAME_LABEL),
        ("www.user1.mycliptok.org", "mycliptok.org", "cliptok", How.CONTAINS),
        ("cliptok-events.forms.com", "cliptok-events.forms.com", "cliptok", How.CONTAINS),
        ("x.clip-tok.forms.com", "clip-tok.forms.com", "cliptok", How.CONTAINS),
        ("c1ipt0k.net", "c1ipt0k.net", "cliptok", How.CONTAINS),
        ("www.xvidyoo.net", "xvidyoo.net", "vidyoo", How.CONTAINS),
        ("cdn.clipttok.com", "clipttok.com", "cliptok", How.SIMILAR),
        ("clitpok.com", "clitpok.com", "cliptok", How.SIMILAR),
        ("cilptokcdm.com", "cilptokcdm.com", "cliptokcdn", How.SIMILAR),
        ("xn--clptok-4ya.com", "xn--clptok-4ya.com", "cliptok", How.SIMILAR),  # a letter from another script
        ("get-clpitok-now.com", "get-clpitok-now.com", "cliptok", How.SIMILAR),
    ],
)
def test_what_resembles(name: str, part: str, word: str, how: How) -> None:
    """In each way; the candidate is the part that resembles and what is above it, without what is below."""
    found = Resemblance([CLIPS]).find(name)
    assert found is not None
    assert found == Likeness(part, "clips", word, how)


@pytest.mark.parametrize(
    "name",
    [
        "www.example.org",
        "farm-direct.com",  # a part between hyphens counts for brands only
        "directory.com",
        "clip.com",
        "toklip.net",
        "shared.com",  # a host on somebody else's domain says nothing of that domain
        "static.shared.org",
        "muscle.com",
        "com",
        "localhost",
        "cliptok.internal",  # no public suffix: nobody can register it
    ],
)
def test_what_does_not(name: str) -> None:
    """Words that are ordinary, short, or a provider's."""
    assert Resemblance([CLIPS]).find(name) is None


def test_a_brand_that_is_no_domain_of_its_own() -> None:
    """The word that all domains begin with is looked for, also where none of them is that word alone."""
    brand = builders.service("zip", "suffix:zipzap-live.com", "suffix:zipzap-cdn.net", "suffix:zipzap-img.org")
    assert Resemblance([brand]).find("zipzpa.com") == Likeness("zipzpa.com", "zip", "zipzap", How.SIMILAR)


def test_a_brand_with_digits() -> None:
    """It is looked for as it is written, and not only as what its digits look like."""
    brand = builders.service("clips", "suffix:clips247.com")
    assert Resemblance([brand]).find("myclips247.org") == Likeness("myclips247.org", "clips", "clips247", How.CONTAINS)


def test_a_long_label_is_not_a_short_word_with_two_errors() -> None:
    """How many letters may be wrong depends on the word as well: else strangers' longer names are logged."""
    brand = Resemblance([builders.service("clips", "suffix:vidplays.com")])
    assert brand.find("vidxplays.org") == Likeness("vidxplays.org", "clips", "vidplays", How.SIMILAR)
    assert brand.find("vixdplaxys.org") is None


def test_short_labels() -> None:
    """A label of four letters is searched for as a whole; one of three is in too many names."""
    assert Resemblance([builders.service("clap", "suffix:clap.co")]).find("clap.org") is not None
    assert Resemblance([builders.service("cla", "suffix:cla.co")]).find("cla.org") is None


def test_one_rule_is_a_brand_as_well() -> None:
    """With fewer than three domains a word must be in all of them."""
    assert Resemblance([builders.service("clips", "suffix:cliptok.com")]).find("mycliptok.net") is not None
    two = Resemblance([builders.service("clips", "suffix:cliptok.com", "suffix:other-name.com")])
    assert two.find("mycliptok.net") is None


def test_without_rules_nothing_resembles() -> None:
    """Nor with addresses only."""
    for services in ([], [builders.service("clips", addresses=("192.0.2.0/24",))]):
        assert Resemblance(services).find("www.example.org") is None


def test_the_longest_word_that_says_the_same_is_the_brand() -> None:
    """`musical` of musical.ly, not `musica`: fewer strangers have it."""
    labels = ("musica", "musical", "musically", "musicallycdn")
    found = Resemblance([builders.service("clips", *(f"suffix:{label}.net" for label in labels))])
    assert found.find("lamusica.org") is None
    assert found.find("xmusicallyx.org") == Likeness("xmusicallyx.org", "clips", "musical", How.CONTAINS)


def test_a_longer_word_of_fewer_domains_is_not_the_brand() -> None:
    """Names like the others of its domains would go unnoticed."""
    labels = ("zipzap-cdn", "zipzap-img", "zipzaplive-cdn", "zipzaplive-img", "zipzaplive-api")
    found = Resemblance([builders.service("zip", *(f"suffix:{label}.net" for label in labels))])
    assert found.find("myzipzap.org") == Likeness("myzipzap.org", "zip", "zipzap", How.CONTAINS)


def test_words_are_bounded() -> None:
    """A service of a hundred thousand domains costs no more than one of a thousand."""
    large = builders.service("ads", *(f"suffix:advert{number:05}.com" for number in range(3000)))
    assert len(Resemblance([large])._labels) == MOST_WORDS


@given(st.from_regex(r"([a-z0-9-]{1,12}\.){0,4}(com|net|co\.uk|example)", fullmatch=True))
def test_a_candidate_is_a_suffix_of_the_name(name: str) -> None:
    """Nothing is made up, and nothing raises."""
    found = RESEMBLANCE.find(name)
    assert found is None or name == found.name or name.endswith(f".{found.name}")


@given(st.text(max_size=40))
def test_nothing_raises(name: str) -> None:
    """Whatever a client says."""
    RESEMBLANCE.find(name)


@pytest.mark.skipif(not LOOKALIKES.exists(), reason="the data is not here")
def test_lookalikes_are_offered_and_popular_sites_are_not() -> None:
    """With the shipped policies: names with the brand in them are offered, which shows why each must be looked at."""
    policy = load(ROOT / "policies", Instant.now()).policy
    assert policy is not None
    snapshot = compile_policy(policy)
    found = Resemblance(policy.services[name] for name in sorted(snapshot.banned_services))
    looks = [line.split()[1] for line in LOOKALIKES.read_text().splitlines()]
    branded = [n for n in looks if "tiktok" in n and not n.endswith((".example", ".comm"))]
    assert len(branded) > 15
    for name in branded:
        assert snapshot.services.match(name) is not NO_MATCH or found.find(name) is not None, name
    sites = TOP_SITES.read_text().split()
    offered = [name for name in sites if snapshot.services.match(name) is NO_MATCH and found.find(name)]
    assert len(offered) <= 5, offered


def test_only_what_is_banned_has_near_misses() -> None:
    """The log doesn't tell who visits sites that resemble a service which nobody banned, nor unless it is asked to."""
    other = builders.service("other", "suffix:otherbrand.com")
    heard = builders.snapshot(builders.ban(), services=(CLIPS, other), log=LogSettings(near_misses=True)).resemblance
    assert heard is not None
    assert heard.find("www.muscdn.net") is not None
    assert heard.find("www.otherbrand.net") is None
    assert builders.snapshot(builders.ban(), services=(CLIPS,)).resemblance is None
