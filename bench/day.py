"""A day of a gateway's block log: made-up traffic, but judged, folded, recorded, chained and signed by tokgate itself.

Its proportions are assumptions, each a field of `Traffic`. Time passes as fast as records can be made.
"""

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from whenever import Instant, PlainDateTime

from tokgate.blocklog.records.coverage import coverage_counted
from tokgate.blocklog.records.ecs_fields import folded_name
from tokgate.blocklog.records.folding import Fold, Folding, key_of
from tokgate.blocklog.records.lifecycle import phase_changed, started
from tokgate.blocklog.records.record import Observer, Record, Stamp, new_stamp
from tokgate.blocklog.records.traffic import repeats_record, traffic_record
from tokgate.blocklog.write.writer import LogWriter
from tokgate.config.loader import load
from tokgate.policy.analysis.timeline import transitions
from tokgate.policy.bans import Action, Ban, Exemption
from tokgate.policy.decide import Judgement, Sighting, decide_signals
from tokgate.policy.decision import Signal
from tokgate.policy.networks import Network
from tokgate.policy.observation import DnsSeen, Endpoint, HttpSeen, Observation, Stage, TlsSeen, Transport, Visibility
from tokgate.policy.snapshot import Policy, Snapshot, compile_policy

POLICIES: Final = Path(__file__).resolve().parent.parent / "policies"
START: Final = Instant.from_utc(2026, 11, 24)
_DAY: Final = 86_400.0
_SUBDOMAINS: Final = (
    "www", "api16-normal-c-useast1a", "api22-core-c-alisg", "v16-webapp-prime.us", "log", "mon-va", "mcs-va", "m", "vm",
    "webcast", "im-ws", "p16-sign-va", "lf16-tiktok-web", "frontier-va", "verification-va",
    "sf16-website-login.neutral",    "libraweb-va", "analytics", "ads", "business-api",
)  # fmt: skip
_DOMAINS: Final = ("tiktok.com", "tiktokv.com", "tiktokcdn.com", "tiktokv.us", "ttwstatic.com")
_AGENT: Final = "Mozilla/5.0 (Linux; Android 14; SM-A546B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Mobile"
_JA4: Final = (
    "t13d1516h2_8daaf6152771_02713d6af862",
    "t13d1715h2_5b57614c22b0_3d5424432f57",
    "t13d1312h2_f57a46bbacb6_ab7e3b40a677",
)
_STAGES: Final = ((Stage.TLS, 60), (Stage.DNS, 20), (Stage.QUIC, 15), (Stage.HTTP, 5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a gateway sees in a day: `events` attempts by `clients`, of which each makes `burst` within seconds."""

    events: int
    clients: int = 1_000
    burst: float = 3.0
    """Attempts on one name in a row, on average (a geometric distribution): a program that was refused tries again."""
    gap: float = 6.0
    """Seconds between them, on average."""
    seed: int = 7
    gateway: int = 0


def _network(name: str, *cidrs: str) -> Network:
    return Network(name, tuple(map(ip_network, cidrs)), "Europe/Brussels")


def _ban(name: str, network: str, **stated: Any) -> Ban:
    fixed: dict[str, Any] = {
        "title": f"Ban of TikTok: {name}",
        "services": ("tiktok", "tiktok-ads"),
        "starts": PlainDateTime(2026, 1, 1),
        "authority": "Example Council",
        "basis": f"Circular on {name}",
        "reference": f"https://example.org/{name}",
        "contact": "desk@example.org",
    }
    return Ban(name=name, networks=(network,), **(fixed | stated))


_NETWORKS: Final = (
    _network("offices", "10.0.0.0/9", "2001:db8:1::/48"),
    _network("schools", "10.128.0.0/10"),
    _network("guests", "10.192.0.0/11"),
    _network("laboratories", "10.224.0.0/11"),
)
_BANS: Final = (
    _ban("offices-2026", "offices"),
    _ban("guests-2026", "guests", action=Action.WARN),
    _ban("schools-trial", "schools", action=Action.MONITOR),
    _ban(
        "laboratories-2026",
        "laboratories",
        starts=PlainDateTime(2026, 11, 24, 13),
        monitor_from=PlainDateTime(2026, 11, 1),
    ),
)
_SHARES: Final = ((2, "offices"), (4, "schools"), (8, "guests"), (8, "laboratories"))
_PRESS: Final = Exemption(
    name="press",
    ban="offices-2026",
    clients=(ip_network("10.0.0.8/29"),),
    until=PlainDateTime(2027, 1, 1),
    reason="Monitoring of statements",
)


def day_policy() -> Snapshot:
    """The shipped services under bans that block, warn and monitor; one blocks from noon UTC; an exemption."""
    shipped = load(POLICIES, START).policy
    if shipped is None:
        raise SystemExit("the shipped policies have errors")
    return compile_policy(
        Policy(
            services=shipped.services,
            networks={network.name: network for network in _NETWORKS},
            bans={ban.name: ban for ban in _BANS},
            exemptions={_PRESS.name: _PRESS},
            settings=shipped.settings,
            version="5f1c0a9be2d4",
        )
    )


@dataclass(slots=True)
class _First:
    """The first event of a fold, as its repeats need it."""

    stamp: Stamp
    seen: Observation
    judgement: Judgement


class Gateway:
    """One gateway's day."""

    def __init__(self, traffic: Traffic, snapshot: Snapshot | None = None) -> None:
        self.now: Instant = START
        self.observer: Final = Observer(hostname=f"gw{traffic.gateway:03}.example.org", version="0.1.0", name="gate-0")
        self._traffic: Final = traffic
        self._snapshot: Final = snapshot or day_policy()
        self._random: Final = random.Random(f"{traffic.seed}/{traffic.gateway}")
        self._clients: Final = self._addresses()
        self._folding: Final[Folding[_First]] = Folding()

    def records(self) -> Iterator[Record]:
        """The records of the day, in the order in which they are written."""
        yield started(self._stamp(), 4711, self._snapshot.policy)
        changes = list(transitions(self._snapshot, START, START.add(hours=24)))
        hour = START.add(hours=1)
        for second, seen in self._attempts():
            self.now = START.add(nanoseconds=round(second * 1e9))
            while hour <= self.now:
                yield self._coverage(hour)
                hour = hour.add(hours=1)
            while changes and changes[0].at <= self.now:
                yield phase_changed(self._stamp(), changes.pop(0), self._snapshot.version)
            yield from self._told(self._folding.due(second))
            yield from self._handle(second, seen)
        yield from self._told(self._folding.close())

    def write(self, path: Path) -> int:
        """Write the day as tokgate writes it, rotated files too; returns how many records went in."""
        writer = LogWriter(path, self.observer, clock=lambda: self.now)
        writer.start()
        count = 0
        for count, record in enumerate(self.records(), 1):
            if count % 4_000 == 0 and not writer.mark().wait(60):
                raise SystemExit(f"{path} can't be written: {writer.health().last_error}")
            if not writer.put(record):
                raise SystemExit("records were dropped")
        if not writer.close(60):
            raise SystemExit("records were lost at the end")
        return count

    def _handle(self, second: float, seen: Observation) -> Iterator[Record]:
        judgement = decide_signals(self._snapshot, seen.client.ip, seen.names, self.now)
        key = key_of(seen.client.ip, folded_name(seen, judgement), judgement.decision, seen.stage)
        if self._folding.repeat(key, self.now) is not None:
            return
        stamp = self._stamp()
        record = traffic_record(stamp, seen, judgement, self._snapshot)
        if record is None:
            return
        yield record
        closed = self._folding.open(key, _First(stamp, seen, judgement), second)
        if closed is not None:
            yield from self._told(iter((closed,)))

    def _told(self, folds: Iterator[Fold[_First]]) -> Iterator[Record]:
        for fold in folds:
            first, told = fold.event, self._stamp()
            record = repeats_record(told, first.seen, first.judgement, self._snapshot, fold, first.stamp.id)
            if record is not None:
                yield record

    def _coverage(self, hour: Instant) -> Record:
        """What an hour's traffic showed: a hundred connections for each attempt, one in fifty without a name."""
        total = self._traffic.events * 100 // 24
        counts = {name: {"sni": total * 98 // 100 // part, "none": total // 50 // part} for part, name in _SHARES}
        seen = {name: {word: number for word, number in found.items() if number} for name, found in counts.items()}
        return coverage_counted(new_stamp(hour, self.observer), seen, hour.subtract(hours=1))

    def _attempts(self) -> Iterator[tuple[float, Observation]]:
        """Attempts in order of time, on a day whose busiest hour is at noon."""
        bursts = max(1, round(self._traffic.events / self._traffic.burst))
        starts = sorted(self._moment() for _ in range(bursts))
        going: list[tuple[float, int, Observation, int]] = []
        for number, start in enumerate(starts):
            while going and going[0][0] < start:
                yield from self._one_of(going)
            heapq.heappush(going, (start, number, self._observation(), self._length()))
        while going:
            yield from self._one_of(going)

    def _one_of(self, going: list[tuple[float, int, Observation, int]]) -> Iterator[tuple[float, Observation]]:
        second, number, seen, left = heapq.heappop(going)
        yield second, seen
        after = second + self._random.expovariate(1 / self._traffic.gap)
        if left > 1 and after < _DAY:
            again = replace(seen, client=Endpoint(seen.client.ip, self._random.randrange(32_768, 61_000)))
            heapq.heappush(going, (after, number, again, left - 1))

    def _moment(self) -> float:
        while True:
            second = self._random.random() * _DAY
            if self._random.random() < 0.55 - 0.45 * math.cos(2 * math.pi * second / _DAY):
                return second

    def _length(self) -> int:
        if self._traffic.burst <= 1:
            return 1
        return 1 + int(math.log(1 - self._random.random()) / math.log(1 - 1 / self._traffic.burst))

    def _addresses(self) -> list[str]:
        """Clients in all networks; every fiftieth speaks IPv6."""
        found, count, gateway = [], self._traffic.clients, self._traffic.gateway
        for number in range(count):
            if number % 50 == 49:
                found.append(f"2001:db8:1:{gateway:x}::{number:x}")
                continue
            block = ("10.0", "10.0", "10.0", "10.128", "10.192", "10.224")[number % 6]
            first, second = block.split(".")
            place = number // 6 + 1 + gateway * 256
            found.append(f"{first}.{int(second) + place // 65_536}.{place // 256 % 256}.{place % 256}")
        return found

    def _observation(self) -> Observation:
        pick = self._random
        ip = self._clients[int(pick.random() ** 2 * len(self._clients))]  # a tenth of them make a third of the attempts
        (stage,) = pick.choices([stage for stage, _ in _STAGES], [weight for _, weight in _STAGES])
        name = f"{pick.choice(_SUBDOMAINS)}.{pick.choice(_DOMAINS)}"
        to = Endpoint(f"203.0.113.{pick.randrange(1, 255)}", 53 if stage is Stage.DNS else 443)
        hello = TlsSeen(alpn=("h2", "http/1.1"), ja4=pick.choice(_JA4), ech=pick.random() < 0.7)
        connection = f"{pick.getrandbits(48):012x}"
        base = Observation(
            client=Endpoint(ip, pick.randrange(32_768, 61_000)), destination=to, stage=stage, visibility=Visibility.SNI,
            names=(Sighting(Signal.SNI, name),), tls=hello, connection=connection,
        )  # fmt: skip
        match stage:
            case Stage.QUIC:
                names = (Sighting(Signal.QUIC_SNI, name),)
                return replace(base, transport=Transport.UDP, visibility=Visibility.QUIC_SNI, names=names)
            case Stage.DNS:
                kind = pick.choice(("A", "AAAA", "HTTPS"))
                asked = DnsSeen(id=pick.randrange(65_536), type=kind, response_code="NXDOMAIN")
                names = (Sighting(Signal.DNS_NAME, name),)
                plain = replace(base, transport=Transport.UDP, visibility=Visibility.DNS, tls=None, connection=None)
                return replace(plain, names=names, dns=asked)
            case Stage.HTTP:
                request = HttpSeen(
                    method="GET", path=f"/@user{pick.randrange(1000)}/video/{pick.getrandbits(62)}", scheme="https",
                    version="2", status=451, user_agent=_AGENT,
                )  # fmt: skip
                names = (Sighting(Signal.HTTP_HOST, name),)
                return replace(base, visibility=Visibility.DECRYPTED, names=names, http=request, tls=None)
        return base

    def _stamp(self) -> Stamp:
        return new_stamp(self.now, self.observer)
