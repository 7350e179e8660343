"""Runs the tests in interleaved rounds: each test meets all proxies one after another, in another order each round."""

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comparison.load import LoadError
from comparison.measurements import Bench, Metrics, Test, check
from comparison.peers import Peer, Proxy
from comparison.processes import ended_children, machine_busy
from comparison.results import DISTURBING, Failure, Results, Sample

TROUBLES: Final = (LoadError, RuntimeError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    tests: Sequence[Test]
    peers: Sequence[Peer]
    rounds: int
    repeats: int
    """How often a sample may be taken again that was disturbed by other work; the least disturbed one counts."""

    def work(self) -> list[tuple[int, Test, Peer]]:
        """Round, test and proxy, in the order in which they run."""
        listed = []
        for number in range(self.rounds):
            turn = number % len(self.peers)
            order = [*self.peers[turn:], *self.peers[:turn]]
            for test in self.tests:
                if test.at_most is None or number < test.at_most:
                    listed += [(number, test, peer) for peer in order if test.suits(peer)]
        return listed


class Progress:
    """Tells on standard error what is being done and how long it will take."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._began = total, 0, time.monotonic()
        self._live = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._erase()
        print(text, file=sys.stderr, flush=True)

    def begin(self, text: str) -> None:
        """What is being done now; kept on a terminal only until the next."""
        if self._live:
            self._erase()
            print(f"  {self._share()} {text} …", end="", file=sys.stderr, flush=True)

    def end(self, text: str) -> None:
        """What came of it."""
        self._done += 1
        self.say(f"  {self._share()} {text}")

    def _erase(self) -> None:
        if self._live:
            print("\r\033[K", end="", file=sys.stderr)

    def _share(self) -> str:
        taken = time.monotonic() - self._began
        left = f" {taken / self._done * (self._total - self._done) / 60:4.1f} min left" if self._done else ""
        return f"[{100 * self._done // max(1, self._total):3d} %{left}]"


class Others:
    """How much of the machine is busy with work that isn't the bench's."""

    def __init__(self, bench: Bench, proxies: Mapping[str, Proxy]) -> None:
        self._bench, self._proxies = bench, proxies

    def undisturbed(self, test: Test, proxy: Proxy, repeats: int) -> tuple[float, Metrics]:
        """A sample, and how many processors were busy with other work meanwhile: the best of a few, if need be."""
        best = self._taken(test, proxy)
        while best[0] > DISTURBING and repeats > 0:
            repeats -= 1
            best = min(best, self._taken(test, proxy), key=lambda taken: taken[0])
        return best

    def _taken(self, test: Test, proxy: Proxy) -> tuple[float, Metrics]:
        proxy.intercept()
        before, began = self._foreign(), time.monotonic()
        figures = test.run(self._bench, proxy)
        return max(0.0, (self._foreign() - before) / (time.monotonic() - began)), figures

    def _foreign(self) -> float:
        ours = ended_children() + time.process_time() + self._bench.cpu()
        return machine_busy() - ours - sum(proxy.cpu() for proxy in self._proxies.values())


def measure(bench: Bench, plan: Plan, results: Results) -> None:
    """Start every proxy once, then run the plan. What fails is recorded and told, and the rest goes on."""
    work = plan.work()
    progress = Progress(len(work))
    with contextlib.ExitStack() as running:
        proxies = _start_all(bench, plan.peers, results, running, progress)
        running.callback(bench.rest)
        others = Others(bench, proxies)
        before: Test | None = None
        for number, test, peer in work:
            if test is not before:
                bench.rest()
                before = test
            proxy = proxies.get(peer.name)
            label = f"round {number + 1}/{plan.rounds}  {test.name:<14} {peer.name:<15}"
            progress.begin(label)
            if proxy is None:
                progress.end(f"{label} not running")
                continue
            try:
                disturbance, figures = others.undisturbed(test, proxy, 0 if test.at_most == 1 else plan.repeats)
            except TROUBLES as error:
                results.failures.append(Failure(test.name, peer.name, number, str(error)))
                progress.end(f"{label} FAILED: {error}")
                continue
            results.samples.append(Sample(test.name, peer.name, number, disturbance, figures))
            warning = f"  (disturbed: {disturbance:.2f} processors)" if disturbance > DISTURBING else ""
            progress.end(f"{label} {shown(figures)}{warning}")


def _start_all(
    bench: Bench, peers: Sequence[Peer], results: Results, running: contextlib.ExitStack, progress: Progress
) -> dict[str, Proxy]:
    """The proxies that run and do what is compared. The others are recorded with the reason."""
    proxies = {}
    versions = results.about.setdefault("versions", {})
    for peer in peers:
        progress.begin(f"starting {peer.name}")
        reason = peer.missing()
        if reason is None:
            try:
                with contextlib.ExitStack() as starting:
                    proxy = starting.enter_context(bench.start(peer))
                    check(bench, proxy)
                    running.enter_context(starting.pop_all())
                versions[peer.name] = peer.version()
                proxies[peer.name] = proxy
                continue
            except TROUBLES as error:
                reason = str(error)
        results.failures.append(Failure(None, peer.name, None, reason))
        progress.say(f"  {peer.name}: not measured: {reason}")
    return proxies


def shown(figures: Metrics) -> str:
    """Figures on one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items() if name != "err" or value)
