"""What of a list becomes patterns, which suffixes are shared hosts, and the service file made of it."""

from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs.builders import valid
from tokgate.config.loader import load
from tokgate.config.service_lists.lists import Place, ServiceList, read_domain_list
from tokgate.config.service_lists.selection import SHARED_HOSTS, Selection, names_of, select, service_file
from tokgate.policy.services import NamePattern, PatternKind, Service, ServiceSource, is_public_suffix
from tokgate.policy.stores import StoreListing
from tokgate.policy.values.hostname import DomainName, normalise

ATTRIBUTES = "a.example @cn\nb.example @ads\nc.example @cn @ads\nd.example\n"


def of(text: str, attributes: Iterable[str] = (), *, subdomains: bool = False) -> Selection:
    return select(read_domain_list("x", text, lambda _: None), attributes, subdomains=subdomains)


def test_public_suffixes_and_shared_hosts_are_dropped() -> None:
    """A careless line of a list would ban a registry's or a CDN's customers; each is reported with its reason."""
    chosen = of(
        "co.uk\ngithub.io\ncom\ncloudfront.net\nfull:com\ngooglehosted.com\nclips.akamaized.net\nclips.example\n"
    )
    assert chosen.patterns[PatternKind.SUFFIX] == ["clips.akamaized.net", "clips.example"]
    assert [(each.place.line, each.text, each.why) for each in chosen.dropped] == [
        (1, "co.uk", "a public suffix: everybody's names are below it"),
        (2, "github.io", "a public suffix: everybody's names are below it"),
        (3, "com", "a public suffix: everybody's names are below it"),
        (4, "cloudfront.net", "a public suffix: everybody's names are below it"),
        (5, "com", "a public suffix: everybody's names are below it"),
        (6, "googlehosted.com", "it holds the shared host ghs.googlehosted.com: other customers' names are below it"),
    ]


def test_each_name_once() -> None:
    """What another entry holds is left out, and counted."""
    chosen = of(
        "clips.example\nwww.clips.example\nfull:clips.example\nCLIPS.example.\nfull:b.example\nfull:b.example\n"
    )
    assert chosen.patterns[PatternKind.SUFFIX] == ["clips.example"]
    assert chosen.patterns[PatternKind.EXACT] == ["b.example"]
    assert (chosen.repeated, chosen.count) == (4, 2)


def test_names_are_made_canonical() -> None:
    """A name in another script is the A-label that clients ask for; what is no name is reported."""
    chosen = of("bücher.example\nhttp:example\na..b\n192.0.2.1\n")
    assert chosen.patterns[PatternKind.SUFFIX] == ["xn--bcher-kva.example"]
    assert [each.place.line for each in chosen.unreadable] == [2, 3, 4]


def test_attributes() -> None:
    """Only entries with an attribute, or none with it, as the options say."""
    assert of(ATTRIBUTES).count == 4
    assert of(ATTRIBUTES, {"cn"}).patterns[PatternKind.SUFFIX] == ["a.example", "c.example"]
    assert of(ATTRIBUTES, {"-ads"}).patterns[PatternKind.SUFFIX] == ["a.example", "d.example"]
    assert of(ATTRIBUTES, {"cn", "-ads"}).patterns[PatternKind.SUFFIX] == ["a.example"]


def test_single_hosts_with_all_below_them() -> None:
    """Hosts files name single hosts; who wants the names below them says so."""
    assert of("full:a.example", subdomains=True).patterns[PatternKind.SUFFIX] == ["a.example"]


def test_a_regex_that_is_none() -> None:
    """An expression that can't be matched in linear time, or that matches everything, is reported, not written."""
    chosen = of("regexp:(?=a)b\nregexp:.*\nregexp:^a[0-9]$\n")
    assert chosen.patterns[PatternKind.REGEX] == ["^a[0-9]$"]
    assert [each.place.line for each in chosen.unreadable] == [1, 2]


@given(st.lists(st.sampled_from([*SHARED_HOSTS, "co.uk", "com", "s3.amazonaws.com", "a.example", "b.a.example"])))
def test_no_stranger_gets_in(names: list[str]) -> None:
    """Whatever a list holds: no suffix of the service is a registry's or a shared host, and none is within another."""
    found = ServiceList()
    for number, name in enumerate(names):
        found.add(PatternKind.SUFFIX, name, Place("x", number))
    suffixes = select(found).patterns[PatternKind.SUFFIX]
    assert not [name for name in suffixes if is_public_suffix(name) or name in SHARED_HOSTS]
    assert not [name for name in suffixes if any(name.endswith(f".{other}") for other in suffixes)]


def test_the_names_are_canonical() -> None:
    """A name that is written in another way would never be found."""
    assert [name for name in SHARED_HOSTS if normalise(name) != DomainName(name)] == []
    assert len(set(SHARED_HOSTS)) == len(SHARED_HOSTS)


SOURCE = ServiceSource(
    "https://www.example.org/#1", "hosts", "7: a", "MIT", "2026-08-19", ("!cn", "-ads"), subdomains=True
)
NAMES = {
    PatternKind.SUFFIX: ["clips.example", "no"],
    PatternKind.EXACT: ["www.clips.example.org"],
    PatternKind.REGEX: ["^v[0-9]{1,3}\\.clips\\.example$"],
}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """No title, pattern or revision is lost or changed by YAML, and labels and apps stay."""
    before = Service(
        "clips",
        "old",
        description="Two\nlines",
        patterns=(NamePattern(PatternKind.LABEL, "clips"),),
        addresses=(ip_network("203.0.113.0/24"), ip_network("2001:db8::/48")),
        stores=(StoreListing("apple", "835599320"), StoreListing("google-play", "org.example.clips")),
    )
    names = {**NAMES, PatternKind.SUFFIX: ["clips.example"]}
    path = tmp_path / "clips.yaml"
    path.write_text(service_file("clips", "Clips: the app # 1", SOURCE, names, before), encoding="utf-8")
    loaded = load(path, Instant.from_utc(2026, 1, 1))
    assert loaded.diagnostics == ()
    service = valid(loaded).services["clips"]
    assert service.title == "Clips: the app # 1"
    assert service.source == SOURCE
    assert service.description == "Two\nlines"
    assert names_of(service) == names
    assert service.addresses == before.addresses
    assert [each.value for each in service.patterns if each.kind is PatternKind.LABEL] == ["clips"]
    assert {(each.store, each.identifier) for each in service.stores} == {
        ("apple", "835599320"),
        ("google-play", "org.example.clips"),
    }
