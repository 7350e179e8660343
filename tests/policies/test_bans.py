"""The shipped policies as an organisation would load them: clean, self-tested, and pinned to the second.

Embedded tests prove something only if they notice a mistake, so the mistakes are made here: shifted boundaries, missing
bans, services and prefixes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from whenever import Instant

from labs.builders import valid
from tokgate.config.diagnostics import render
from tokgate.config.format.test_model import PolicyTest
from tokgate.config.loader import Loaded, load
from tokgate.policy.bans import Action, Ban
from tokgate.policy.decide import decide
from tokgate.policy.decision import Phase, Response, Signal, Verdict
from tokgate.policy.snapshot import Policy, Snapshot, Track, compile_policy
from tokgate.traffic.policy_tests import run_tests

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "policies"
OWN_FILES = [POLICIES / "default.yaml", *sorted((POLICIES / "bans").glob("*.yaml"))]
NOW = Instant("2026-01-01T00:00:00Z")
"""After the last boundary of any shipped ban: nothing here depends on the day on which the tests run."""

DOCUMENTATION = [ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")]
APP = "www.tiktok.com"


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(POLICIES, NOW)


@pytest.fixture(scope="module")
def policy(loaded: Loaded) -> Policy:
    return valid(loaded)


@pytest.fixture(scope="module")
def snapshot(policy: Policy) -> Snapshot:
    return compile_policy(policy)


def test_nothing_draws_a_warning(loaded: Loaded) -> None:
    """Whoever starts from a clone sees their own mistakes: the bans of 2023 bring no error and no warning."""
    assert [render(each) for each in loaded.diagnostics] == []


def test_embedded_tests_hold(loaded: Loaded, snapshot: Snapshot) -> None:
    failed = [f"{r.test.origin}: {r.decision}" for r in run_tests(snapshot, loaded.tests) if not r.passed]
    assert loaded.tests
    assert failed == []


def _notices(policy: Policy, tests: Sequence[PolicyTest]) -> bool:
    """Whether some embedded test fails under a changed policy."""
    snapshot = compile_policy(policy)
    return any(not result.passed for test in tests for result in run_tests(snapshot, [test]))


def _with_ban(policy: Policy, ban: Ban) -> Policy:
    return replace(policy, bans={**policy.bans, ban.name: ban})


def _shifts(track: Track) -> Iterator[tuple[str, Instant, Callable[[Instant], Ban]]]:
    """The boundaries of a ban that may change what happens, and the ban with one of them elsewhere."""
    ban, schedule = track.ban, track.schedule
    fixed = replace(ban, announced=None, duration=None, expires=schedule.ends)
    yield "start", schedule.starts, lambda at: replace(fixed, starts=at)
    if schedule.ends is not None:
        yield "end", schedule.ends, lambda at: replace(fixed, expires=at)
    for change in schedule.changes:
        if change.phase is Phase.MONITOR and ban.monitor_from is not None:
            yield "monitoring", change.at, lambda at: replace(fixed, monitor_from=at)


def test_embedded_tests_notice_a_boundary_one_second_off(loaded: Loaded, policy: Policy, snapshot: Snapshot) -> None:
    """A boundary shifted by a second either way fails an embedded test, wherever the shift changes a verdict at all."""
    missed, caught = [], 0
    for track in snapshot.tracks:
        client = str(policy.networks[track.networks[0]].cidrs[0].network_address + 1)
        for name, at, moved in _shifts(track):
            for seconds in (-1, 1):
                shifted = _with_ban(policy, moved(at.add(seconds=seconds)))
                between = min(at, at.add(seconds=seconds))
                before = decide(snapshot, client, APP, between).verdict
                if decide(compile_policy(shifted), client, APP, between).verdict is before:
                    continue  # another ban covers that second
                caught += 1
                if not _notices(shifted, loaded.tests):
                    missed.append(f"{track.ban.name}: {name} {seconds:+d} s")
    assert missed == []
    assert caught > len(policy.bans)


def _omissions(policy: Policy) -> Iterator[tuple[str, Policy]]:
    """The policy with one thing forgotten, or one ban milder than decided."""
    for name, ban in policy.bans.items():
        yield f"without {name}", replace(policy, bans={n: b for n, b in policy.bans.items() if n != name})
        milder = {Action.BLOCK: Action.WARN, Action.WARN: Action.MONITOR, Action.MONITOR: Action.WARN}
        yield f"{name} milder", _with_ban(policy, replace(ban, action=milder[ban.action]))
        if ban.inspect_stores:
            yield f"{name} without inspect_stores", _with_ban(policy, replace(ban, inspect_stores=False))
        for service in ban.services if len(ban.services) > 1 else ():
            rest = tuple(s for s in ban.services if s != service)
            yield f"{name} without {service}", _with_ban(policy, replace(ban, services=rest))
    for name, network in policy.networks.items():
        for cidr in network.cidrs:
            rest_of = replace(network, cidrs=tuple(c for c in network.cidrs if c != cidr))
            yield f"{name} without {cidr}", replace(policy, networks={**policy.networks, name: rest_of})


def test_embedded_tests_notice_what_is_missing(loaded: Loaded, policy: Policy) -> None:
    """A ban, service or prefix left out, or a ban that only warns, fails an embedded test."""
    assert [what for what, changed in _omissions(policy) if not _notices(changed, loaded.tests)] == []


@pytest.mark.parametrize("path", OWN_FILES, ids=lambda path: path.stem)
def test_each_file_shows_what_it_leaves_alone(path: Path, loaded: Loaded, snapshot: Snapshot) -> None:
    """Each file tests, while its ban is in force, another network, a stranger's name and a look-alike: all pass."""
    tests = [test for test in loaded.tests if Path(test.origin.file) == path]
    networks = {n.name for n in snapshot.policy.networks.values() if n.origin and Path(n.origin.file) == path}
    starts = min(track.schedule.starts for track in snapshot.tracks if networks & set(track.networks))
    passing = [test for test in tests if test.expect is Verdict.ALLOW and test.at >= starts]

    def inside(test: PolicyTest) -> bool:
        return bool(networks & snapshot.membership(str(test.client)).networks.keys())

    def known(test: PolicyTest) -> bool:
        return bool(snapshot.services.match(test.host).hits)

    assert [test for test in passing if not inside(test) and known(test)]
    assert [test for test in passing if inside(test) and not known(test) and "tiktok" not in test.host]
    assert [test for test in passing if inside(test) and not known(test) and "tiktok" in test.host]


@pytest.mark.parametrize(
    ("client", "at", "basis", "until"),
    [
        ("192.0.2.33", "2023-03-09T12:00:00+01:00", "Decision of 9 March 2023", None),
        ("192.0.2.33", "2023-09-26T12:00:00+02:00", "Decision of 9 March 2023, extended on 26 September 2023", None),
        ("192.0.2.65", "2023-03-06T12:00:00+01:00", "Proposal announced in parliament on 6 March 2023", None),
        ("192.0.2.65", "2023-03-17T12:00:00+01:00", "Decision of 17 March 2023", "2023-09-17T00:00+02:00"),
        ("192.0.2.1", "2023-03-10T12:00:00+01:00", "Decision of 10 March 2023", "2023-09-10T00:00+02:00"),
        ("192.0.2.1", "2023-09-12T12:00:00+02:00", "Circular 716 of 17 March 2023", "2023-09-10T00:00+02:00"),
        (
            "192.0.2.1",
            "2024-03-15T12:00:00+01:00",
            "Circular 716 of 17 March 2023, extended on 14 September 2023",
            "2024-03-10T00:00+01:00",
        ),
    ],
)
def test_a_record_cites_what_existed_then(
    client: str, at: str, basis: str, until: str | None, snapshot: Snapshot
) -> None:
    """Neither its basis nor the end that it tells was decided later."""
    decision = decide(snapshot, client, APP, Instant(at))
    assert decision.ban is not None
    assert snapshot.bans[decision.ban].basis == basis
    (track,) = (track for track in snapshot.tracks if track.ban.name == decision.ban)
    assert track.schedule.ends == (None if until is None else Instant(until))


def test_default_ban_holds_for_good(snapshot: Snapshot) -> None:
    """Out of the box TikTok is refused on loopback, without a CA, at any time from now on."""
    for client in ("127.0.0.1", "::1", "10.1.2.3"):
        decision = decide(snapshot, client, APP, NOW)
        assert (decision.verdict, decision.ban, decision.response) == (Verdict.BLOCK, "default-tiktok", Response.REFUSE)
        assert decision.next_change is None


def test_no_ban_takes_shared_names_along(policy: Policy, snapshot: Snapshot) -> None:
    """What ByteDance's other apps share, and these apps themselves, pass everywhere."""
    assert {service for ban in policy.bans.values() for service in ban.services} == {"tiktok", "tiktok-ads"}
    for client in ("127.0.0.1", "192.0.2.1", "192.0.2.33", "198.51.100.65"):
        assert decide(snapshot, client, "www.capcut.com", NOW).verdict is Verdict.ALLOW


def test_bodies_have_networks_of_their_own(policy: Policy) -> None:
    """No client is in two networks; the bodies' are documentation addresses, read in their own time zone."""
    cidrs = [(name, cidr) for name, network in policy.networks.items() for cidr in network.cidrs]
    assert [
        (a, b) for (a, one), (b, two) in combinations(cidrs, 2) if one.version == two.version and one.overlaps(two)
    ] == []
    for name, network in policy.networks.items():
        if name not in ("this-machine", "private-addresses"):
            assert network.timezone == "Europe/Brussels"
            assert {cidr.version for cidr in network.cidrs} == {4, 6}
            assert all(any(c.version == d.version and c.subnet_of(d) for d in DOCUMENTATION) for c in network.cidrs)  # type: ignore[arg-type]


def test_bans_say_why_who_decided_on_what_basis_and_whom_to_ask(policy: Policy) -> None:
    """What the block page shows is there, and nobody real is named as the contact."""
    for ban in policy.bans.values():
        assert ban.authority
        assert ban.basis
        assert ban.reason
        assert ban.contact is not None
        assert ban.contact.endswith("@example.org")
        assert ban.reference is None or ban.reference.startswith("https://")


@pytest.mark.parametrize("path", sorted(POLICIES.rglob("*.yaml")), ids=lambda path: str(path.relative_to(POLICIES)))
def test_editors_find_the_schema(path: Path) -> None:
    """Each file begins with a path that leads to the schema, and states its version."""
    prefix = "# yaml-language-server: $schema="
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).resolve() == ROOT / "schema" / "policy.schema.json"
    assert "version: 1" in rest


def test_examples_of_the_readme_work_as_they_stand(tmp_path: Path) -> None:
    """The ban, its extension and its exemption from the README load with the catalogue, and their tests hold."""
    examples = re.findall(r"^```yaml\n(.*?)^```", (POLICIES / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    for number, example in enumerate(examples):
        (tmp_path / f"example-{number}.yaml").write_text(example, encoding="utf-8")
    loaded = load(tmp_path, Instant("2027-01-01T00:00:00Z"))
    assert [render(each) for each in loaded.diagnostics] == []
    results = run_tests(compile_policy(valid(loaded)), loaded.tests)
    assert len(results) > len(examples) == 3
    assert [f"{r.test.origin}: {r.decision}" for r in results if not r.passed] == []


ROW = re.compile(
    r"^\| (?P<sentence>[^|]+) \| `(?P<ban>[\w-]+)` \| `(?P<key>\w+)` \| "
    r"(?P<client>\S+) (?P<at>\S+) (?P<store>store )?(?P<verdict>\w+) \|",
    re.MULTILINE,
)
ROWS = list(ROW.finditer((POLICIES / "README.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["sentence"][:50])
def test_a_sentence_of_the_documents(row: re.Match[str], snapshot: Snapshot) -> None:
    """The ban that carries it out states the key, and decides at its date as the sentence says."""
    listing = "https://play.google.com/store/apps/details?id=com.zhiliaoapp.musically"
    asked, signal = (listing, Signal.URL) if row["store"] else (APP, Signal.SNI)
    decision = decide(snapshot, row["client"], asked, Instant(row["at"]), signal)
    assert (decision.verdict, decision.ban) == (row["verdict"], row["ban"])
    origin = snapshot.bans[row["ban"]].origin
    assert origin is not None
    assert row["key"] in yaml.safe_load(Path(origin.file).read_text(encoding="utf-8"))["bans"][row["ban"]]


def test_every_ban_has_a_sentence(policy: Policy) -> None:
    """No shipped ban is without a document, and the table leaves none out."""
    assert {row["ban"] for row in ROWS} == policy.bans.keys() - {"default-tiktok"}


def test_readme_names_every_file_and_every_reference(policy: Policy) -> None:
    """The table of sources leaves out no ban file and no public document that a ban refers to."""
    readme = (POLICIES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in OWN_FILES if f"({path.relative_to(POLICIES).as_posix()})" not in readme] == []
    assert [ban.name for ban in policy.bans.values() if ban.reference and f"({ban.reference})" not in readme] == []
