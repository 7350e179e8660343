"""What tokgate must reach beside the others: each bar with its peer, and whether a run met it.

A ratio is taken within each round, where both had the same noise, and the median of the rounds counts.
"""

from dataclasses import dataclass
from typing import Final

from comparison.peers import DIRECT, ONE_GATE
from comparison.results import Results, Spread

_HAPROXY: Final = ("haproxy",)
_SPLICE: Final = ("haproxy-splice",)
_BOTH: Final = ("haproxy", "haproxy-splice")
_DIRECT: Final = (DIRECT,)


@dataclass(frozen=True, slots=True)
class Bar:
    """`metric` of `test`, divided by the best of `peers`, or by `rest` of the same sample, or as it is without either.

    `at_least`: whether more is better, for the ratio and for the choice among peers. `inverted`: the peer's figure is
    divided by ours, for times that are compared as speeds.
    """

    what: str
    test: str
    metric: str
    limit: float
    at_least: bool
    peers: tuple[str, ...] = ()
    rest: str | None = None
    ours: str = "tokgate"
    inverted: bool = False
    unit: str = "×"

    @property
    def against(self) -> str:
        """What it is compared with, in words."""
        if self.peers:
            return "the better of " + " and ".join(self.peers) if len(self.peers) > 1 else self.peers[0]
        return "itself"

    @property
    def demand(self) -> str:
        """The bar as written."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A bar after a run. `spread` None: not measured, and `reason` says why."""

    bar: Bar
    spread: Spread | None
    ours: float | None
    theirs: float | None
    reason: str = ""

    @property
    def met(self) -> bool | None:
        """None: not measured."""
        if self.spread is None:
            return None
        reached = self.spread.median >= self.bar.limit
        return reached if self.bar.at_least else self.spread.median <= self.bar.limit

    @property
    def word(self) -> str:
        """The verdict in a table."""
        return {True: "met", False: "MISSED", None: "not measured"}[self.met]


BARS: Final = (
    Bar("new connections/s, 32 at once", "small32", "rate", 1.0, True, _HAPROXY),
    Bar("new connections/s, 256 at once", "small256", "rate", 1.05, True, _HAPROXY),
    Bar("new connections/s, one at a time", "small1", "rate", 0.95, True, _HAPROXY),
    Bar("new connections/s, 32 at once", "small32", "rate", 2.5, True, ("squid",)),
    Bar("new connections/s, 32 at once", "small32", "rate", 12, True, ("mitmproxy",)),
    Bar("proxy CPU per connection", "small32", "cpu_us", 1.0, False, _HAPROXY),
    Bar("new connections/s, a gate a core beside one, 256 at once", "small256", "rate", 1.0, True, (ONE_GATE,)),
    Bar("refused/s, a gate a core beside one, 32 at once", "refused32", "rate", 1.0, True, (ONE_GATE,)),
    Bar("bulk MB/s, 1 stream", "bulk1", "mb_per_s", 1.1, True, _SPLICE),
    Bar("bulk MB/s, 8 streams", "bulk8", "mb_per_s", 1.1, True, _SPLICE),
    Bar("proxy CPU per GiB, 1 stream", "bulk1", "cpu_s_per_gib", 1.0, False, _SPLICE),
    Bar("proxy CPU per GiB, 8 streams", "bulk8", "cpu_s_per_gib", 1.0, False, _SPLICE),
    Bar("p99 of a new connection beside 8 bulk streams", "beside-bulk", "p99_ms", 0.3, False, _BOTH),
    Bar("refused/s, 32 at once", "refused32", "rate", 1.2, True, _HAPROXY),
    Bar("ClientHello to refusal, p50, one at a time", "refused1", "p50_ms", 1.1, False, _HAPROXY),
    Bar("ClientHello to refusal, p99, one at a time", "refused1", "p99_ms", 1.0, False, _HAPROXY),
    Bar("ClientHello to refusal, p50, 32 at once", "refused32", "p50_ms", 0.7, False, _HAPROXY),
    Bar("ClientHello to refusal, p99, 32 at once", "refused32", "p99_ms", 1.0, False, _HAPROXY),
    Bar("KiB per idle connection", "idle", "kib", 0.25, False, _HAPROXY),
    Bar("real TLS to nginx, connections/s, one at a time", "tls1", "rate", 0.95, True, _DIRECT),
    Bar("real TLS to nginx, connections/s, 32 at once", "tls32", "rate", 0.95, True, _DIRECT),
    Bar("page of 40 objects, Chromium, speed", "page-chromium", "page_ms", 0.95, True, _DIRECT, inverted=True),
    Bar("page of 40 objects, h2load, speed", "page-h2load", "page_ms", 0.95, True, _DIRECT, inverted=True),
    Bar("block pages/s, 8 clients", "block-pages", "rate", 3, True, ("mitmproxy",), ours="tokgate-page"),
    Bar(
        *("allowed p50 beside 8 clients of the block page", "beside-pages", "p50_ms", 1.3, False),
        rest="rest_p50_ms",
        ours="tokgate-page",
    ),
    Bar("decision, 10 to 1,000,000 names", "decision", "names_us", 1.5, False, rest="base_us"),
    Bar("decision, 10 to 100,000 networks", "decision", "networks_us", 1.5, False, rest="base_us"),
    Bar("decision, both", "decision", "both_us", 1.5, False, rest="base_us"),
    Bar("slowest connection while 1,000,000 names load", "reload", "max_ms", 20, False, unit="ms"),
)


def judge(results: Results, bar: Bar) -> Outcome:
    """A bar against what was measured."""
    ours = results.by_round(bar.test, bar.ours, bar.metric)
    if not ours:
        return Outcome(bar, None, None, None, results.why_missing(bar.test, bar.ours))
    own = Spread.of(list(ours.values())).median
    if bar.peers:
        best = max if bar.at_least != bar.inverted else min
        measured = {peer: results.by_round(bar.test, peer, bar.metric) for peer in bar.peers}
        absent = [peer for peer, figures in measured.items() if not figures]
        if absent:
            return Outcome(bar, None, own, None, "; ".join(results.why_missing(bar.test, peer) for peer in absent))
        rounds = set.intersection(*(set(figures) for figures in measured.values()))
        theirs = {number: best(figures[number] for figures in measured.values()) for number in rounds}
    elif bar.rest is not None:
        theirs = results.by_round(bar.test, bar.ours, bar.rest)
    else:
        return Outcome(bar, Spread.of(list(ours.values())), own, None)
    shared = sorted(number for number in ours.keys() & theirs.keys() if ours[number] > 0 and theirs[number] > 0)
    if not shared:
        return Outcome(bar, None, own, None, "no round in which both were measured above zero")
    ratios = [theirs[n] / ours[n] if bar.inverted else ours[n] / theirs[n] for n in shared]
    return Outcome(bar, Spread.of(ratios), own, Spread.of([theirs[n] for n in shared]).median)
