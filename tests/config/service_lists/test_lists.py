"""The formats of lists: how they are told apart, and what their readers make of each kind of line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.config.format.services import ListFormat
from tokgate.config.service_lists.lists import (
    ServiceList,
    detect,
    read_domain_list,
    read_hosts,
    whole_name,
)
from tokgate.config.service_lists.selection import select
from tokgate.policy.services import compile_regex

_PARTS = (
    *("||", "|", "^", "$", "*", "/", ".", "!", "#", "##", "include:", "full:", "regexp:", "keyword:", "@cn", "(", ")"),
    *("0.0.0.0", "::1", "192.0.2.1", "clips.example", "co.uk", "bücher.example", "a" * 70, "[", "]", "\\065"),
    *("\n", "\n", "\n", " ", "\t", "\x00", "\u2028", "(?=a)"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# c\ninclude:a\nclips.example @ads\nfull:a.example\nregexp:^a$\n", ListFormat.DOMAIN_LIST),
        ("domain:clips.example:@cn\n", ListFormat.DOMAIN_LIST),
        ("clips.example\nb.example # c\n0.0.0.0 c.example\n", ListFormat.DOMAIN_LIST),
        ("# c\n0.0.0.0 clips.example b.example\n::1 c.example\nd.example\n", ListFormat.HOSTS),
        ("fe80::1%lo0 localhost\n", ListFormat.HOSTS),
        ("*.clips.example\n.b.example\n", ListFormat.HOSTS),
    ],
)
def test_the_format_is_told(text: str, expected: ListFormat) -> None:
    """Who gives no `--format` gets the one that the list has."""
    assert detect(text) is expected


@given(text=st.one_of(st.text(max_size=80), st.lists(st.sampled_from(_PARTS), max_size=25).map(" ".join)))
def test_no_text_breaks_a_reader(text: str) -> None:
    """A list that somebody else wrote ends in patterns and reports, never in a trace."""
    detect(text)
    for found in (read_hosts("x", text), read_domain_list("x", text, lambda _: None)):
        chosen = select(found, subdomains=True)
        assert all(each.place.line >= 1 for each in (*chosen.dropped, *chosen.unreadable))


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
        (None, "clips", "clips:7"),
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


HOSTS = """\
127.0.0.1 localhost
::1 ip6-localhost
fe80::1%lo0 localhost
0.0.0.0 clips.example www.clips.example\tcdn.clips.example # three of them
0.0.0.0
:: v6.clips.example
*.wild.example
bare.example
not-an-address clips.example
"""


def test_a_hosts_file() -> None:
    """Each name of a line is one host; the names that every such file begins with are nobody's."""
    found = read_hosts("hosts", HOSTS)
    assert [(entry.kind, entry.value, entry.place.line) for entry in found.entries] == [
        ("exact", "clips.example", 4),
        ("exact", "www.clips.example", 4),
        ("exact", "cdn.clips.example", 4),
        ("exact", "v6.clips.example", 6),
        ("suffix", "wild.example", 7),
        ("exact", "bare.example", 8),
    ]
    assert [(each.place.line, each.why) for each in found.unreadable] == [
        (5, "an address without a name"),
        (9, "`not-an-address` is no address, and a list of bare names has one a line"),
    ]
