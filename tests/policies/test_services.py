"""The service files with a corpus: what they catch, leave alone, and on what evidence each entry stands.

The other services are in `test_catalogue.py`.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs.suffixes import private_suffixes
from tokgate.config.loader import load
from tokgate.policy.services import (
    NamePattern,
    PatternKind,
    Service,
    ServiceIndex,
    compile_regex,
    is_public_suffix,
)
from tokgate.policy.stores import STORES, StoreListing
from tokgate.policy.values.hostname import DomainName, normalise
from tokgate.wire.client_hello import PUBLIC_NAMES

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
SCHEMA = ROOT / "schema" / "policy.schema.json"

NAMES = ("tiktok", "tiktok-ads", "bytedance-shared", "bytedance-other", "encrypted-dns")
FILES = [ROOT / "policies" / "services" / f"{name}.yaml" for name in sorted(NAMES)]


@cache
def stated() -> dict[str, dict[str, Any]]:
    """All services as the files state them."""
    services: dict[str, dict[str, Any]] = {}
    for file in FILES:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert not services.keys() & content["services"].keys()
        services |= content["services"]
    return services


@cache
def index() -> ServiceIndex:
    """The index over the shipped services, without store listings: their fronts are store hosts, not TikTok's."""
    return ServiceIndex(
        Service(
            name,
            said["title"],
            tuple(NamePattern(PatternKind(kind), value) for kind, values in said["names"].items() for value in values),
            tuple(ip_network(prefix) for prefix in said.get("addresses", ())),
        )
        for name, said in stated().items()
    )


def matched(name: str) -> set[str]:
    """The services that a name belongs to."""
    return {hit.service for hit in index().match(name).hits}


def words(file: Path) -> list[str]:
    """The names in a corpus file, one a line, without comments."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def entries(*kinds: str) -> Iterator[tuple[str, str, str]]:
    """Service, kind and value of every name pattern of these kinds."""
    for service, said in stated().items():
        for kind in kinds:
            yield from ((service, kind, value) for value in said["names"].get(kind, ()))


def domains() -> list[str]:
    """Every domain that a suffix entry claims whole."""
    return sorted({value for _, _, value in entries("suffix")})


# --- The files as files ---


def test_the_services_are_there() -> None:
    """Each service has its file, named after it."""
    assert sorted(stated()) == sorted(NAMES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_editor_finds_the_schema(file: Path) -> None:
    """The first line leads editors to the schema, and the file states its version."""
    text = file.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    leading = "# yaml-language-server: $schema="
    assert first.startswith(leading)
    assert (file.parent / first.removeprefix(leading)).resolve() == SCHEMA
    assert yaml.safe_load(text)["version"] == 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_loader_has_nothing_to_say(file: Path) -> None:
    """The file loads without an error or a warning."""
    loaded = load(file, Instant.from_utc(2026, 1, 1))
    assert loaded.diagnostics == ()
    assert loaded.policy is not None
    assert list(loaded.policy.services) == [file.stem]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_schema_accepts_the_file(file: Path) -> None:
    """The file is valid under the schema that editors use."""
    jsonschema.validate(
        yaml.safe_load(file.read_text(encoding="utf-8")), json.loads(SCHEMA.read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_name_states_its_evidence(file: Path) -> None:
    """An entry carries a comment; a regex has it on the line above."""
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        entry = re.match(r" {8}- (['\"]?)", line)
        if entry is None:
            continue
        if entry[1] and "^" in line:
            assert lines[number - 1].strip().startswith("# "), f"{file.name}:{number + 1}"
        else:
            assert "  # " in line, f"{file.name}:{number + 1}"


def test_no_name_is_stated_twice() -> None:
    """A name stands once among all services, and not below a suffix of its own service."""
    seen: dict[str, str] = {}
    for service, kind, value in entries("suffix", "exact"):
        assert value not in seen, f"{value} is in {service} and in {seen[value]}"
        seen[value] = service
        if kind == "suffix":
            parents = (value.split(".", depth)[-1] for depth in range(1, value.count(".") + 1))
            assert not any(seen.get(parent) == service for parent in parents), value


def test_names_are_canonical_and_no_public_suffix() -> None:
    """No entry can take in the customers of a registry or a provider."""
    for _, kind, value in entries("suffix", "exact"):
        assert normalise(value) == DomainName(value)
        if kind == "suffix":
            assert not is_public_suffix(value)


def test_no_label_takes_a_name_under_every_ending() -> None:
    """`tiktok` under any public suffix would take in tiktok.computer: endings are named one by one."""
    assert not list(entries("label"))


@pytest.mark.parametrize(("service", "kind", "value"), list(entries("regex")))
def test_regexes_are_anchored_and_linear(service: str, kind: str, value: str) -> None:
    """A regex spans the whole name, compiles in the linear-time engine, and reads well enough to be short."""
    compile_regex(value)
    assert value.startswith("^")
    assert value.endswith("$")
    assert len(value) <= 1000
    assert value == value.lower()


def test_addresses_are_prefixes_without_host_bits() -> None:
    """Prefixes are valid, apart from each other, and none is so wide that it takes in strangers."""
    prefixes = [ip_network(prefix) for said in stated().values() for prefix in said.get("addresses", ())]
    assert prefixes
    assert all(prefix.prefixlen >= (16 if prefix.version == 4 else 32) for prefix in prefixes)
    for number, prefix in enumerate(prefixes):
        assert not any(prefix.version == other.version and prefix.overlaps(other) for other in prefixes[:number])


def test_store_listings_are_read_back_from_their_urls() -> None:
    """An identifier is what the store's listing URL gives, so that it can match one."""
    urls = {
        "google-play": "https://play.google.com/store/apps/details?id={}",
        "apple": "https://apps.apple.com/app/id{}",
        "microsoft": "https://apps.microsoft.com/detail/{}",
        "amazon": "https://www.amazon.com/dp/{}",
        "galaxy-store": "https://galaxystore.samsung.com/detail/{}",
        "apkmirror": "https://www.apkmirror.com/apk/{}/",
        "apkpure": "https://apkpure.com/app/{}",
    }
    for name, said in stated().items():
        for store, identifiers in said.get("store", {}).items():
            assert store in STORES
            assert len(identifiers) == len(set(identifiers))
            for identifier in identifiers if store in urls else ():  # bundle identifiers are in no URL
                services = ServiceIndex([Service(name, name, stores=(StoreListing(store, identifier),))])
                hits = services.match_url(urls[store].format(identifier)).hits
                assert [hit.rule for hit in hits if not hit.front] == [f"store:{store}/{identifier}"]


# --- What they catch ---


@pytest.mark.parametrize("service", NAMES)
def test_the_corpus_is_caught(service: str) -> None:
    """Every name of a service's corpus, observed or made in a family's shape, matches that service."""
    names = words(CORPUS / f"{service}.txt")
    assert [name for name in names if service not in matched(name)] == []


def test_a_ban_on_tiktok_takes_no_shared_infrastructure() -> None:
    """Without TikTok's mark in it, a shared host belongs to `bytedance-shared` alone."""
    for name in ("byteoversea.com", "p16-ad-sg.ibyteimg.com", "i.isnssdk.com", "dm.bytedance.com", "c.worldfcdn.com"):
        assert matched(name) == {"bytedance-shared"}


def test_the_address_fallback_knows_tiktoks_prefixes() -> None:
    """An address inside an announced prefix is TikTok's, one beside it is nobody's."""
    assert matched("147.160.176.1") == {"tiktok"}
    assert matched("2605:340::1") == {"tiktok"}
    assert matched("147.160.192.1") == set()
    assert matched("192.0.2.1") == set()


@pytest.mark.parametrize("address", ["8.8.8.8", "1.0.0.1", "9.9.9.9", "2606:4700:4700::1111", "94.140.14.14"])
def test_the_address_of_a_resolver(address: str) -> None:
    """A resolver that is asked by its address, as bootstrapping clients do, is known; the one beside it is nobody's."""
    assert matched(address) == {"encrypted-dns"}
    assert matched(str(ip_address(address) + 90)) == set()


def test_the_public_names_of_ech() -> None:
    """A ban on encrypted DNS takes every name that `ech_outer` goes by."""
    assert {name: matched(name) for name in PUBLIC_NAMES} == {name: {"encrypted-dns"} for name in PUBLIC_NAMES}


@pytest.mark.parametrize("host", ["api16-normal-c-useast1a.tiktokv.com", "v16m.tiktokcdn.com", "p16.ibyteimg.com"])
def test_case_and_trailing_dot_make_no_difference(host: str) -> None:
    """A host is recognised in any spelling."""
    assert matched(f"{host.upper()}.") == matched(host) != set()


# --- What they leave alone ---


def test_strangers_are_left_alone() -> None:
    """No shipped service matches a stranger, a shared CDN, or a look-alike."""
    caught = {name: matched(name) for name in words(CORPUS / "strangers.txt")}
    assert {name: services for name, services in caught.items() if services} == {}


@pytest.mark.parametrize("domain", domains())
def test_a_domain_ends_at_its_label_boundary(domain: str) -> None:
    """A suffix takes in the domain and what is below it, and none of the names that look like it."""
    assert matched(domain)
    assert matched(f"a.b.{domain}")
    for lookalike in (f"not{domain}", f"my-{domain}", f"{domain}.example", f"{domain}mm", f"{domain}.example.org"):
        assert matched(lookalike) == set()


@given(
    domain=st.sampled_from(domains()),
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
    """A CDN's zone is matched for TikTok's domains only."""
    assert matched(f"www.{customer}.{zone}") == set()
    assert matched(f"{customer.replace('.', '-')}.{zone}") == set()


def test_domains_that_strangers_share_are_left_alone() -> None:
    """No shipped service takes a domain under which others let anybody have names (the suffix list's private part)."""
    shared = private_suffixes()
    assert len(shared) > 1000
    assert [name for name in shared if matched(f"somebody.{name}")] == []
