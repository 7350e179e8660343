"""Lists of domain-list-community: each kind of line, includes, attributes, and what is no line of one."""

from tokgate.config.service_lists.entries import ServiceList, whole_name
from tokgate.config.service_lists.formats import read_domain_list
from tokgate.policy.services import compile_regex

LISTS = {
    "clips": """\
# The app
include:clips-cdn
include:shared @clips @-ads
clips.example        # the site
domain:clips.example.org @cn
full:www.clips.example.net @ads @!cn
keyword:clips
regexp:^v[0-9]+\\.clips\\.example$
regexp:clipscdn[0-9]
include:nowhere
include:../secret
""",
    "clips-cdn": "clipscdn.example\ninclude:clips\n",
    "shared": "one.example @clips\ntwo.example @clips @ads\nthree.example\nfour.example @clips &clips-extra\n",
}


def read(name: str) -> ServiceList:
    return read_domain_list(name, LISTS[name], LISTS.get)


def test_every_kind_of_line() -> None:
    """What a list says is what a service gets, with the lines of included lists under their own names."""
    found = read("clips")
    assert [(entry.kind, entry.value, str(entry.place)) for entry in found.entries] == [
        ("suffix", "clipscdn.example", "clips-cdn:1"),
        ("suffix", "one.example", "shared:1"),
        ("suffix", "four.example", "shared:4"),
        ("suffix", "clips.example", "clips:4"),
        ("suffix", "clips.example.org", "clips:5"),
        ("exact", "www.clips.example.net", "clips:6"),
        ("keyword", "clips", "clips:7"),
        ("regex", "^v[0-9]+\\.clips\\.example$", "clips:8"),
        ("regex", "^.*(?:clipscdn[0-9]).*$", "clips:9"),
    ]
    assert found.entries[5].attributes == {"ads", "!cn"}


def test_includes_that_lead_nowhere() -> None:
    """A circle ends, and a list that isn't there is reported where it is asked for."""
    assert [(str(each.place), each.text, each.why) for each in read("clips").unreadable] == [
        ("clips-cdn:2", "include:clips", "the lists include each other in a circle"),
        ("clips:10", "include:nowhere", "there is no list `nowhere` in the folder of this one"),
        ("clips:11", "include:../secret", "not a line of a domain list"),
    ]


def test_a_list_that_includes_itself() -> None:
    """Its lines are read once, from whichever folder it comes."""
    found = read_domain_list("data/own", "a.example\ninclude:own\n", {"own": "a.example\ninclude:own\n"}.get)
    assert [str(entry.place) for entry in found.entries] == ["data/own:1"]
    assert [str(each.place) for each in found.unreadable] == ["data/own:2"]


def test_the_form_of_releases() -> None:
    """The released text files write attributes behind a colon."""
    found = read_domain_list("clips.txt", "domain:a.example:@cn,@ads\nfull:b.example\nregexp:^a:b$\n", LISTS.get)
    assert [(entry.kind, entry.value) for entry in found.entries] == [
        ("suffix", "a.example"),
        ("exact", "b.example"),
        ("regex", "^a:b$"),
    ]
    assert found.entries[0].attributes == {"cn", "ads"}


def test_lines_of_other_formats() -> None:
    """A line of another format is reported with its number, and doesn't end the reading."""
    found = read_domain_list(
        "x", "||clips.example^\n0.0.0.0 clips.example\na.example\ndomain:\nb.example @\n", LISTS.get
    )
    assert [entry.value for entry in found.entries] == ["a.example"]
    assert [each.place.line for each in found.unreadable] == [1, 2, 4, 5]


def test_a_pattern_for_parts_as_one_for_the_whole_name() -> None:
    """An expression without anchors goes on matching anywhere, one with them only as a whole."""
    for pattern, matches, fails in (
        ("clips", "my-clips.example", "tok.example"),
        ("^clips", "clips.example", "my-clips.example"),
        ("clips$", "www.clips", "clips.example"),
        ("^a|b$", "a.example", "example.c"),
        ("^(a|b)\\.example$", "b.example", "b.example.org"),
    ):
        compiled = compile_regex(whole_name(pattern))
        assert compiled.fullmatch(matches), pattern
        assert not compiled.fullmatch(fails), pattern
