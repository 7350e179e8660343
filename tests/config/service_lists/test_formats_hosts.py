"""Hosts files: several names a line, comments, local names, bare names, and what a list says of itself."""

from tokgate.config.service_lists.formats import read_hosts

HOSTS = """\
# Title: Clips
# Homepage: https://www.example.org/clips
# License: MIT
# Last modified: 2026-08-19 10:00
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
        ("exact", "clips.example", 8),
        ("exact", "www.clips.example", 8),
        ("exact", "cdn.clips.example", 8),
        ("exact", "v6.clips.example", 10),
        ("suffix", "wild.example", 11),
        ("exact", "bare.example", 12),
    ]
    assert [(each.place.line, each.why) for each in found.unreadable] == [
        (9, "an address without a name"),
        (13, "`not-an-address` is no address, and a list of bare names has one a line"),
    ]


def test_what_the_file_says_of_itself() -> None:
    """Its head says where it is from, under which licence and of which day it is."""
    assert read_hosts("hosts", HOSTS).said == {
        "title": "Clips",
        "list": "https://www.example.org/clips",
        "licence": "MIT",
        "date": "2026-08-19 10:00",
    }
