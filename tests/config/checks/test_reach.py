"""Names and prefixes that reach nobody or everybody; what each is told is in tests/config/data/ok/reach.txt."""

from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs.builders import valid
from tokgate.config.catalogue import catalogue_folder
from tokgate.config.checks.reach import LARGEST, check_pattern
from tokgate.config.loader import load
from tokgate.config.service_lists.selection import shared_host
from tokgate.config.yaml.source import Report, Source, TextSpan
from tokgate.policy.services import PatternKind, compile_regex
from tokgate.policy.values.hostname import domain_parts

NOW = Instant.from_utc(2023, 5, 1)
ATOMS = [
    "a",
    "B",
    r"\.",
    ".",
    "-",
    "[^a]",
    "[^.]",
    "[a.]",
    "[A-C]",
    r"\d",
    r"\W",
    r"\S",
    "^",
    "$",
    r"\b",
    "/",
    "é",
    "[[:alpha:]]",
]
PATTERNS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{2,3}?", "{0,2}"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
    ),
    max_leaves=8,
)
HOSTS = st.lists(st.text("abc1-", min_size=1, max_size=3), min_size=2, max_size=3).map(".".join)


def told(pattern: str) -> bool:
    """Whether a regular expression is said to match no host."""
    report = Report()
    check_pattern("clips", PatternKind.REGEX, pattern, Source("x"), TextSpan(1, 1), report)
    return bool(report.diagnostics)


@given(pattern=PATTERNS, hosts=st.lists(HOSTS, max_size=20))
def test_a_pattern_that_matches_is_never_told(pattern: str, hosts: list[str]) -> None:
    """Whatever host a pattern matches as a whole shows that it matches one."""
    if any(compile_regex(pattern).fullmatch(host) for host in hosts):
        assert not told(pattern)


def test_what_several_services_of_the_catalogue_share_is_shared() -> None:
    """A domain of which no service has all, and several have names, is one of the largest or a shared host."""
    policy = valid(load(catalogue_folder(), NOW))
    whole: set[str] = set()
    parts: dict[str, set[str]] = {}
    for service in policy.services.values():
        for pattern in service.patterns:
            domain = domain_parts(pattern.value).registered_domain
            if pattern.kind is PatternKind.SUFFIX and domain == pattern.value:
                whole.add(domain)
            elif pattern.kind in (PatternKind.SUFFIX, PatternKind.EXACT) and domain is not None:
                parts.setdefault(domain, set()).add(service.name)
    shared = {domain for domain, services in parts.items() if len(services) > 1} - whole
    assert "google.com" in shared
    assert {domain for domain in shared if domain not in LARGEST and shared_host(domain) is None} == set()
