"""For each Sigma rule, lines that it must find and lines that it must not, by the product's own record builders."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from labs.builders import at, ban, exemption, network, present, service, snapshot, wall
from labs.samples import NAME, NOON, SNAPSHOT, judged, seen, stamp
from tokgate.blocklog.integrity.checkpoint import sign
from tokgate.blocklog.records import lifecycle, log_state
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.coverage import coverage_counted
from tokgate.blocklog.records.record import Observer, Stamp
from tokgate.blocklog.records.traffic import traffic_record
from tokgate.policy.analysis.timeline import TransitionKind, transitions
from tokgate.policy.decide import Judgement, Sighting, decide, decide_on_error, decide_signals
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Endpoint, Observation, Stage, Visibility
from tokgate.policy.settings import OnError
from tokgate.policy.snapshot import Snapshot

Record = dict[str, Any]
CHAIN: Final = "0c00faae-e257-4947-ab39-97279e72c7d3"


@dataclass(frozen=True, slots=True)
class Example:
    """Lines that make one alert, and lines that make none."""

    found: Sequence[Record]
    passed: Sequence[Record]


def stamped(second: int = 0, gateway: str = "gw1.example.org") -> Stamp:
    """A stamp so many seconds after noon."""
    observer = Observer(hostname=gateway, version="0.1.0", name="gate-0")
    return Stamp(stamp(number=1 + second).id, NOON.add(seconds=second), observer)


def traffic(observation: Observation, second: int = 0) -> Record:
    """The record of an observation under the ban of the samples."""
    return present(traffic_record(stamped(second), observation, judged(observation), SNAPSHOT))


def chained(record: Record, sequence: int) -> Record:
    """The record with that number in a chain."""
    return link(Head(CHAIN, sequence - 1), record)[0]


def loaded(**settings: Any) -> Record:
    """A policy that came into force with these settings."""
    return lifecycle.policy_loaded(stamped(), snapshot(ban(), **settings).policy)


def unjudged(policy: Snapshot) -> Record:
    """A banned name about which deciding failed, so that the policy's `on_error` held."""
    observation = seen()
    judgement = Judgement(decide_on_error(policy, NAME), observation.names[0], mismatch=False)
    return present(traffic_record(stamped(), observation, judgement, policy))


def override(*clients: str) -> Record:
    """An override for these prefixes."""
    hole = exemption(clients=tuple(map(ip_network, clients)), by="alice", override=True)
    return lifecycle.override_started(stamped(), hole, NOON.add(hours=2), "test")


def checkpoint(private: Ed25519PrivateKey, second: int, *, announced: str | None = None) -> Record:
    """A checkpoint signed with a key."""
    signed = sign(private, Head(CHAIN, 7, "ab" * 32), "2023-03-10T11:00:00.000000Z", 0, announced)
    return log_state.log_checkpoint(stamped(second), signed.as_json())


def changes(kind: TransitionKind) -> list[Record]:
    """The transitions of a kind, of a ban that ends and has an exemption."""
    policy = snapshot(ban(expires=wall("2023-04-10T00:00")), exemptions=(exemption(),))
    found = transitions(policy, at("2023-03-01T00:00:00Z"), at("2023-05-01T00:00:00Z"))
    return [lifecycle.phase_changed(stamped(), change, "test") for change in found if change.kind is kind]


def continued(file: str | None) -> Record:
    """The first record of a new file."""
    last = Head(CHAIN, 7, "ab" * 32)
    return log_state.log_continued(
        stamped(), file=file, records=3, size=99, why="renamed or removed", last=last, torn=None
    )


def by_address() -> Record:
    """A refusal for the address alone."""
    observation = seen(Stage.ADDRESS)
    sighting = Sighting(Signal.ADDRESS, "203.0.113.5")
    decision = decide(SNAPSHOT, "192.0.2.7", sighting.value, NOON, sighting.signal)
    return present(traffic_record(stamped(), observation, Judgement(decision, sighting, mismatch=False), SNAPSHOT))


def fronted() -> Record:
    """A banned name behind another one."""
    policy = snapshot(ban(), services=(CLIPS, service("news", "suffix:news.example.com")))
    observation = seen(Stage.HTTP, (Signal.SNI, "www.news.example.com"), (Signal.HTTP_HOST, NAME))
    judgement = decide_signals(policy, "192.0.2.7", observation.names, NOON)
    return present(traffic_record(stamped(), observation, judgement, policy))


def names(number: int, apart: int = 10) -> list[Record]:
    """One client's refusals for so many different names."""
    return [traffic(seen(Stage.TLS, (Signal.SNI, f"n{n}.clips.example.org")), n * apart) for n in range(number)]


def often(stage: Stage, number: int, apart: int, clients: int = 1) -> list[Record]:
    """Refusals of one client, or of several in turn."""
    return [traffic(seen(stage, client=Endpoint(f"192.0.2.{10 + n % clients}")), n * apart) for n in range(number)]


CLIPS = service("clips", "suffix:clips.example.org", addresses=("203.0.113.0/24",))
OPEN = snapshot(ban(), networks=(network("office", "192.0.2.0/24"),), on_error=OnError.ALLOW)
TORN = {"bytes": 17, "sha256": "ab" * 32, "lines": 1}
FOREIGN = TORN | {"bytes": 99, "lines": 2, "line": 8, "file": "block.ndjson", "running": True}
ONE, OTHER = Ed25519PrivateKey.from_private_bytes(b"\1" * 32), Ed25519PrivateKey.from_private_bytes(b"\2" * 32)
SINCE = NOON.subtract(hours=1)
REFUSED = [traffic(seen())]
STARTED = [lifecycle.started(stamped(), 1, SNAPSHOT.policy)]

EXAMPLES: Final[dict[str, Example]] = {
    "tampering/torn-line": Example(
        [log_state.log_recovered(stamped(), TORN)], [continued("block-20230310T110000.000000Z.ndjson"), *REFUSED]
    ),
    "tampering/foreign-lines": Example([log_state.log_foreign(stamped(), FOREIGN)], STARTED),
    "tampering/gap": Example([log_state.log_gap(stamped(), 5, NOON, NOON)], STARTED),
    "tampering/new-chain": Example([chained(STARTED[0], 1)], [chained(STARTED[0], 2), *STARTED]),
    "tampering/log-removed": Example([continued(None)], [continued("block-20230310T110000.000000Z.ndjson"), *REFUSED]),
    "tampering/key-changed": Example(
        [checkpoint(ONE, 0), checkpoint(OTHER, 60)],
        [checkpoint(ONE, 0), checkpoint(ONE, 60), checkpoint(OTHER, 120, announced="next")],
    ),
    "tampering/contradiction": Example(
        [chained(REFUSED[0], 7), chained(STARTED[0], 7)],
        [chained(REFUSED[0], 7), chained(REFUSED[0], 7), chained(STARTED[0], 8)],
    ),
    "enforcement/fails-open": Example([loaded(on_error=OnError.ALLOW)], [loaded(), *STARTED, *REFUSED]),
    "enforcement/error-passed": Example(
        [unjudged(OPEN)], [unjudged(SNAPSHOT), lifecycle.internal_error(stamped(), KeyError(), "x")]
    ),
    "enforcement/policy-rejected": Example(
        [lifecycle.policy_load_failed(stamped(), ["p.yaml:1:1: error: unknown key"], kept="test")], [loaded()]
    ),
    "enforcement/no-bans": Example([lifecycle.policy_loaded(stamped(), snapshot().policy)], [loaded(), *STARTED]),
    "enforcement/wide-override": Example(
        [override("192.0.2.7/32", "198.18.0.0/15")], [override("192.0.2.0/24"), override("2001:db8:1:2::/64"), *STARTED]
    ),
    "enforcement/process-died": Example(
        [lifecycle.internal_error(stamped(), RuntimeError("gate-0 ended with signal 9"), "supervisor")],
        [lifecycle.internal_error(stamped(), ValueError("bad"), "next_layer")],
    ),
    "enforcement/restarts": Example(
        [lifecycle.started(stamped(n * 60), n + 1, SNAPSHOT.policy) for n in range(3)],
        [lifecycle.started(stamped(n * 1800), n + 1, SNAPSHOT.policy) for n in range(3)]
        + [lifecycle.started(stamped(n, f"gw{n}.example.org"), 1, SNAPSHOT.policy) for n in range(10, 14)],
    ),
    "enforcement/ban-ended": Example(
        changes(TransitionKind.PHASE)[-1:], changes(TransitionKind.PHASE)[:1] + changes(TransitionKind.EXEMPTION_ENDS)
    ),
    "coverage/drop": Example(
        [coverage_counted(stamped(), {"office": {"sni": 700, "none": 299, "ech-outer": 1}}, SINCE)],
        [
            coverage_counted(stamped(), {"office": {"sni": 750, "none": 250}}, SINCE),
            coverage_counted(stamped(), {"office": {"none": 999}}, SINCE),
            coverage_counted(stamped(), {}, SINCE),
        ],
    ),
    "expiry/near": Example(
        [lifecycle.ban_near_expiry(stamped(), SNAPSHOT.tracks[0], "test")], changes(TransitionKind.PHASE)
    ),
    "evasion/mismatch": Example([fronted()], REFUSED),
    "evasion/no-name": Example(
        [traffic(seen(visibility=Visibility.ECH_OUTER))],
        [*REFUSED, traffic(seen(Stage.DNS)), traffic(seen(Stage.HTTP))],
    ),
    "evasion/by-address": Example([by_address()], REFUSED),
    "evasion/many-names": Example(names(20), [*names(19), *names(40, apart=60)]),
    "evasion/quic": Example(
        often(Stage.QUIC, 10, 30), [*often(Stage.QUIC, 40, 70, clients=8), *often(Stage.TLS, 20, 30)]
    ),
    "evasion/persistent": Example(often(Stage.TLS, 100, 30), often(Stage.TLS, 150, 40)),
}
