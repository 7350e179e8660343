"""Tests that stand in the policy files: what must be decided for whom and when. They call the one `decide`."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from whenever import Instant

from tokgate.config.models import NetworkModel, TestModel
from tokgate.config.sections import Entry, Sections
from tokgate.policy.decide import decide
from tokgate.policy.decision import Decision, Signal, Verdict
from tokgate.policy.origin import Origin
from tokgate.policy.prefixes import Held, PrefixTable
from tokgate.policy.schedule import Edge, resolve
from tokgate.policy.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One entry under `tests:`; with a `url` it is the URL that is decided."""

    client: str
    host: str
    url: str | None
    at: Instant
    expect: Verdict
    origin: Origin


@dataclass(frozen=True, slots=True)
class TestResult:
    """What was decided, and whether that was expected."""

    __test__ = False

    test: PolicyTest
    decision: Decision
    passed: bool


def run_tests(snapshot: Snapshot, tests: Sequence[PolicyTest]) -> tuple[TestResult, ...]:
    """Decide each test, in order."""
    results = []
    for test in tests:
        if test.url is not None:
            decision = decide(snapshot, test.client, test.url, test.at, Signal.URL)
        else:
            decision = decide(snapshot, test.client, test.host, test.at)
        results.append(TestResult(test, decision, decision.verdict is test.expect))
    return tuple(results)


def build_tests(sections: Sections) -> tuple[PolicyTest, ...]:
    """The tests of valid sections; wall times are read in the zone of the narrowest network that holds the client."""
    if not sections.tests:
        return ()
    prefixes = [(cidr, e.model) for e in sections.networks.values() if e.model is not None for cidr in e.model.cidrs]
    zones = PrefixTable(prefixes, _narrowest_zone)
    return tuple(_test(entry, entry.model, zones) for entry in sections.tests if entry.model is not None)


def _narrowest_zone(holders: tuple[Held[NetworkModel], ...]) -> str:
    return holders[0].value.timezone if holders else "UTC"


def _test(entry: Entry[TestModel], model: TestModel, zones: PrefixTable[NetworkModel, str]) -> PolicyTest:
    host = model.host if model.host is not None else urlsplit(model.url or "").hostname or ""
    at = resolve(model.at, zones.find(model.client), Edge.START)
    return PolicyTest(entry.text("client") or "", host, model.url, at, model.expect, entry.source.origin(entry.place))
