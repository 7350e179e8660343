"""The catalogue: each shipped service is valid, says on what evidence each entry stands, takes no stranger's name."""

import re
import runpy
from collections.abc import Iterator, Mapping
from functools import cache
from ipaddress import ip_address, ip_network
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import tldextract
import yaml
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs.builders import valid
from tokgate.config.loader import load
from tokgate.config.service_lists.selection import SHARED_HOSTS, shared_host
from tokgate.policy.services import Service, ServiceIndex, compile_regex
from tokgate.policy.values.hostname import DomainName, normalise
from tokgate.wire.client_hello import PUBLIC_NAMES

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "policies" / "services").glob("*.yaml"))
WITH_CORPUS = {"tiktok", "tiktok-ads", "bytedance-shared", "bytedance-other", "encrypted-dns"}
CATALOGUE = [file.stem for file in FILES]
OTHERS = [name for name in CATALOGUE if name not in WITH_CORPUS]
IN_TWO = {"lemon8", "capcut", "doubao"}
"""Services with a ban of their own somewhere, whose names are in `bytedance-other` as well."""
ASKED_FOR = """
    alibaba aliexpress baidu bilibili capcut chatgpt claude copilot deepseek discord facebook gemini grok huawei
    instagram kaspersky kimi kwai lemon8 mail-ru manus odnoklassniki qq qwen reddit rednote roblox shein signal snapchat
    telegram temu vk wechat weibo whatsapp x yandex youtube zoom
"""
RESOLVERS = ("8.8.8.8", "1.0.0.1", "9.9.9.9", "2606:4700:4700::1111", "94.140.14.14")
_CORPUS = Path(__file__).parent / "corpus"


@cache
def stated() -> dict[str, dict[str, Any]]:
    """What each file states, by the name of the file."""
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in FILES}


@cache
def services() -> Mapping[str, Service]:
    """The catalogue as a policy has it."""
    return valid(load(FILES[0].parent, Instant.from_utc(2026, 1, 1))).services


@cache
def index() -> ServiceIndex:
    return ServiceIndex(services().values())


def matched(name: str) -> set[str]:
    """The services by name and address; their store listings are hosts of the stores."""
    return {hit.service for hit in index().match(name).hits if not hit.front}


def words(corpus: str) -> list[str]:
    lines = (_CORPUS / f"{corpus}.txt").read_text(encoding="utf-8").splitlines()
    return [name for line in lines if (name := line.partition("#")[0].strip())]


STRANGERS = [*((name, WITH_CORPUS) for name in words("strangers"))]
STRANGERS += [(name, {*OTHERS}) for name in words("catalogue-strangers")]
"""A name, and the services that have nothing to do with it."""


def entries(*kinds: str) -> Iterator[tuple[str, str, str]]:
    """Service, kind and value of every name pattern of these kinds in the catalogue."""
    for name in CATALOGUE:
        names = stated()[name]["services"][name]["names"]
        yield from ((name, kind, value) for kind in kinds for value in names.get(kind, ()))


def test_the_catalogue_has_what_governments_ban() -> None:
    """A ministry finds the service that it has to ban, under the name that people use."""
    assert set(ASKED_FOR.split()) <= set(OTHERS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_file_is_one_service_and_valid(file: Path) -> None:
    """A file that is copied into a policy folder loads without a word."""
    assert list(stated()[file.stem]) == ["version", "services"]
    loaded = load(file, Instant.from_utc(2026, 1, 1))
    assert loaded.diagnostics == ()
    assert list(valid(loaded).services) == [file.stem]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_entry_states_its_evidence(name: str) -> None:
    """Whoever doubts an entry sees where it is known from: in the comment beside it, of a regex in the one above."""
    lines = (ROOT / "policies" / "services" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if not re.match(r" {8}- " if name in WITH_CORPUS else r" {6,8}- ", line):
            continue
        comment = lines[number - 1].strip() if re.match(r" +- ['\"]?\^", line) else line.partition("  # ")[2]
        assert comment.strip("# "), f"{name}:{number + 1}"


@pytest.mark.parametrize("name", OTHERS)
def test_each_file_says_who_bans_it(name: str) -> None:
    head = (ROOT / "policies" / "services" / f"{name}.yaml").read_text(encoding="utf-8").partition("version:")[0]
    assert "Banned or limited: " in head.replace("\n# ", " ")


def test_names_are_canonical_and_their_own() -> None:
    """No entry is written in a way that matches nothing, and none holds the customers of a registry, host or CDN."""
    for service, kind, value in entries("suffix", "exact"):
        assert normalise(value) == DomainName(value), f"{service}: {value}"
        if value != "volcdns.com":  # the loader refuses public suffixes
            assert kind != "suffix" or shared_host(value) is None, f"{service}: {value}"
            assert value not in SHARED_HOSTS, f"{service}: {value}"


def test_regexes_span_the_whole_name() -> None:
    """A regex without anchors would be read as one for parts of names."""
    for service, _, value in entries("regex"):
        compile_regex(value)
        assert (value[0], value[-1]) == ("^", "$"), service
        assert len(value) <= 1000
        assert value == value.lower()


def test_no_label_takes_a_name_under_every_ending() -> None:
    """A label would take whatever is registered under the next new ending."""
    assert list(entries("label")) == []


def test_a_name_stands_once_in_a_service_and_under_no_suffix_of_it() -> None:
    """A name that is there twice hides which entry a reviewer has to look at."""
    for name in CATALOGUE:
        own = [(kind, value) for service, kind, value in entries("suffix", "exact") if service == name]
        suffixes = {value for kind, value in own if kind == "suffix"}
        assert len({value for _, value in own}) == len(own), name
        for _, value in own:
            above = {value.split(".", depth)[-1] for depth in range(1, value.count(".") + 1)}
            assert not above & suffixes, f"{name}: {value}"


@pytest.mark.parametrize(
    "name",
    [
        *("scontent.fdad3-1.fna.fbcdn.net", "instagram.fgse1-1.fna.fbcdn.net.example", "video.xx.fbcdn.net"),
        *("edge-star-shv-01-ams2.facebook.com", "instagram.example.facebook.com"),
        *("livestream-edge-shv-01-ams2.facebook.com", "my-instagram.c10r.facebook.com"),
    ],
)
def test_a_family_of_hosts_takes_no_relative(name: str) -> None:
    """Facebook's own hosts beside Instagram's and WhatsApp's are neither's: a ban on these leaves Facebook alone."""
    assert not matched(name) & {"instagram", "whatsapp"}


def test_each_file_says_what_a_ban_breaks() -> None:
    """Who is about to ban a service reads, before, what else stops with it."""
    said = re.compile(r"^# Breaks beside it: \w", re.MULTILINE)
    assert [file.stem for file in FILES if not said.search(file.read_text(encoding="utf-8"))] == []


def test_each_entry_has_a_witness_that_anybody_may_use() -> None:
    """No entry rests on a list alone that is licensed for non-commercial use only, or not at all."""
    alone = re.compile(r"^ +- (\S+) +# *(?:(?:Disconnect|allow-domains)(?:, *)?)+ *$", re.MULTILINE)
    assert [found for file in FILES for found in alone.findall(file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("name", OTHERS)
def test_each_file_says_what_one_family_of_lists_alone_names(name: str) -> None:
    """Who doubts a file sees how much of it has one observer only."""
    file = ROOT / "policies" / "services" / f"{name}.yaml"
    _, alone, names = runpy.run_path(str(ROOT / "deploy" / "catalogue_recall.py"))["rests"](file)
    said = re.findall(r"^# One family of lists alone has (\d+) of the (\d+) names[.]$", file.read_text(), re.MULTILINE)
    assert said == ([(str(alone), str(names))] if alone else [])


def test_services_share_a_name_only_where_their_files_say_so() -> None:
    """A ban on one service takes no other by accident: a domain is in one file, except ByteDance's apps."""
    holder: dict[str, str] = {}
    for name, said in stated().items():
        for kind in ("suffix", "exact"):
            for value in said["services"][name]["names"].get(kind, ()):
                other = holder.setdefault(value, name)
                fine = other == name or (IN_TWO & {name, other} and "bytedance-other" in (name, other))
                fine = fine or {name, other} in ({"vk", "odnoklassniki"}, {"facebook", "messenger"})
                assert fine, f"{value} is in {name} and {other}"


def test_a_name_that_only_looks_like_one_is_a_strangers() -> None:
    """A ban ends at the boundary of a label."""
    for service, kind, value in entries("suffix", "exact"):
        registrable = kind == "suffix" and value.count(".") == 1
        for lookalike in (f"{value}.example", f"{value}mm", f"{value}.example.org", *([f"not{value}"] * registrable)):
            assert service not in matched(lookalike), lookalike


@pytest.mark.parametrize(("name", "strange"), STRANGERS)
def test_strangers_are_left_alone(name: str, strange: set[str]) -> None:
    """A shared CDN, a look-alike, and a site that the service's company only owns go on working."""
    assert not matched(name) & strange


def test_shared_hosts_are_left_alone() -> None:
    """No ban on a service takes the other customers of its CDN, host or cloud."""
    taken = {host: matched(f"somebody-else.{host}") for host in SHARED_HOSTS}
    assert {host: by for host, by in taken.items() if by} == {"volcdns.com": {"bytedance-other"}}  # ByteDance's cloud


def test_addresses_belong_to_one_service() -> None:
    """Prefixes are apart from each other, and none is so wide that it takes in strangers, nor the one beside it."""
    holders = {name: said["services"][name].get("addresses", []) for name, said in stated().items()}
    assert {name for name in CATALOGUE if holders[name]} == {"telegram", "tiktok", "encrypted-dns"}
    prefixes = [ip_network(prefix) for each in holders.values() for prefix in each]
    assert all(prefix.prefixlen >= (16 if prefix.version == 4 else 32) for prefix in prefixes)
    for one, other in combinations(prefixes, 2):
        assert one.version != other.version or not one.overlaps(other)


@pytest.mark.parametrize(
    ("address", "service", "beside"),
    [
        ("149.154.167.99", "telegram", "149.154.176.1"),
        ("2001:67c:4e8:f002::a", "telegram", "2001:67c:4e9::a"),
        ("147.160.176.1", "tiktok", "147.160.192.1"),
        ("2605:340::1", "tiktok", "2001:db8::1"),
        *((each, "encrypted-dns", str(ip_address(each) + 90)) for each in RESOLVERS),
    ],
)
def test_addresses(address: str, service: str, beside: str) -> None:
    """An address of a service is known, also a resolver's that is asked by it; the one beside it is nobody's."""
    assert matched(address) == {service}
    assert matched(beside) == set()


def test_store_listings_are_found_by_their_urls() -> None:
    """`inspect_stores` finds an app by what its page in the store is called."""
    urls = {
        "google-play": "https://play.google.com/store/apps/details?id={}",
        "apple": "https://apps.apple.com/us/app/some-app/id{}",
        "microsoft": "https://apps.microsoft.com/detail/{}",
        "amazon": "https://www.amazon.com/dp/{}",
        "galaxy-store": "https://galaxystore.samsung.com/detail/{}",
        "apkmirror": "https://www.apkmirror.com/apk/{}/",
        "apkpure": "https://apkpure.com/app/{}",
    }
    seen: dict[str, str] = {}
    for name in CATALOGUE:
        alone = ServiceIndex([services()[name]])
        for store, identifiers in stated()[name]["services"][name].get("store", {}).items():
            for identifier in identifiers if store in urls else ():  # bundle identifiers are in no URL
                hits = alone.match_url(urls[store].format(identifier)).hits
                assert [hit.rule for hit in hits if not hit.front] == [f"store:{store}/{identifier}"]
                other = seen.setdefault(identifier, name)
                assert other == name or (IN_TWO & {name, other} and "bytedance-other" in (name, other))


def test_domains_that_strangers_share_are_left_alone() -> None:
    """Of the domains under which anybody may have names only those match that a service names itself."""
    public, all_ = (
        set(tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=private).tlds)
        for private in (False, True)
    )
    shared = sorted(name.removeprefix("*.") for name in all_ - public if not name.startswith("!"))
    own = {value for _, _, value in entries("suffix", "exact")}
    caught = [name for name in shared if matched(f"somebody.{name}")]
    parents = {name: {name.split(".", depth)[-1] for depth in range(name.count(".") + 1)} for name in caught}
    assert [name for name in caught if not parents[name] & own] == []


def test_well_known_names_are_caught() -> None:
    """Names that people know each service by, collected apart from the lists behind the files, belong to it."""
    lines = (_CORPUS / "catalogue-known.txt").read_text(encoding="utf-8").splitlines()[1:]
    known = {service: names for service, *names in map(str.split, lines)}
    asked = [(service, name) for service in known if service in OTHERS for name in known[service]]
    assert [(service, name) for service, name in asked if service not in matched(name)] == []
    assert len(asked) > 380


@pytest.mark.parametrize("service", sorted(WITH_CORPUS))
def test_the_corpus_is_caught(service: str) -> None:
    """Every name of a service's corpus, observed or made in a family's shape, matches that service."""
    assert [name for name in words(service) if service not in matched(name)] == []


def test_a_ban_on_tiktok_takes_no_shared_infrastructure() -> None:
    """Without TikTok's mark in it, a shared host belongs to `bytedance-shared` alone."""
    for name in ("byteoversea.com", "p16-ad-sg.ibyteimg.com", "i.isnssdk.com", "dm.bytedance.com", "c.worldfcdn.com"):
        assert matched(name) == {"bytedance-shared"}


def test_the_public_names_of_ech() -> None:
    """A ban on encrypted DNS takes every name that `ech_outer` goes by."""
    assert {name: matched(name) for name in PUBLIC_NAMES} == {name: {"encrypted-dns"} for name in PUBLIC_NAMES}


@given(
    domain=st.sampled_from(sorted({value for _, _, value in entries("suffix")})),
    before=st.from_regex(r"(?:[a-z0-9]{1,12}\.){0,2}[a-z0-9-]{4,12}", fullmatch=True),
    ending=st.sampled_from(["example", "test", "example.org", "example.net"]),
)
def test_no_name_under_another_ending_matches(domain: str, before: str, ending: str) -> None:
    """Whatever stands before or within a name: under a stranger's domain it is the stranger's."""
    assert matched(f"{before}.{domain}.{ending}") == set()
    assert matched(f"{domain.replace('.', '-')}.{before}.{ending}") == set()


@pytest.mark.parametrize(
    "zone",
    ["akamaized.net", "edgesuite.net", "edgekey.net", "wsdvs.com", "w.kunlunle.com", "c.footprint.net", "cdn20.com"],
)
@pytest.mark.parametrize("customer", ["example.com", "nottiktok.com", "tiktokclaim.org", "xmusical.ly", "gigabyte.com"])
def test_another_customer_of_a_shared_cdn_is_left_alone(zone: str, customer: str) -> None:
    """A CDN's zone is matched for a service's domains only."""
    assert matched(f"www.{customer}.{zone}") == set()
    assert matched(f"{customer.replace('.', '-')}.{zone}") == set()


def test_the_docs_name_every_service() -> None:
    """Who looks for what can be banned finds it in the table, and how many there are."""
    docs = (ROOT / "docs" / "services.md").read_text(encoding="utf-8")
    table = docs.partition("## The catalogue")[2].partition("\n\nThe head")[0]
    assert set(re.findall(r"`([a-z0-9-]+)`", table)) == {file.stem for file in FILES}
    assert f" {len(FILES)} ship, one file each" in docs
    assert f"The other {len(OTHERS)} services, 1,300 names" in docs
    assert round(sum(name in OTHERS for name, _, _ in entries("suffix", "exact", "regex")), -2) == 1300
    assert f"A catalogue of {len(FILES)} services" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
