"""The tests: each takes one proxy, puts load on it, and returns its figures by name.

Names of figures: `rate` and `pages_per_s` a second, `*_ms` milliseconds, `mb_per_s` 10^6 octets a second, `cpu_us`
microseconds of the proxy's processor a connection, `cpu_s_per_gib` seconds a GiB, `kib` KiB a connection, `err`
failures.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from comparison.chromium import Browser
from comparison.load import Figures, Load, LoadError, Running
from comparison.namespaces import Lab
from comparison.origin import Origin
from comparison.peers import DIRECT, ONE_GATE, Peer, Place, Proxy
from comparison.processes import Service, wait_until

Metrics = Mapping[str, float]

_BULK_STREAMS: Final = 8
_PAGE_CLIENTS: Final = 8
_IDLE_CONNECTIONS: Final = 3000
_STARTS: Final = 15.0
"""Seconds that a new instance has to finish starting."""
_SETTLE: Final = 0.15
"""Seconds after a load until what it left to do is done, in the proxy too."""


@dataclass(slots=True)
class Bench:
    """What tests share. `seconds` is the length of a typical load."""

    lab: Lab
    load: Load
    origin: Origin
    folder: Path
    seconds: float
    _browser: Browser | None = None
    _browsed: float = 0.0
    _ports: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1100, 100))

    def start(self, peer: Peer) -> Proxy:
        """A new instance of a proxy, on ports and in a folder of its own."""
        port = next(self._ports)
        return Proxy(peer, Place(self.lab, self.origin, self.folder / f"{port}-{peer.name}", port))

    def browser(self) -> Browser:
        """One browser for all proxies of a test: two differ from each other more than any two proxies do."""
        if self._browser is None:
            folder = tempfile.mkdtemp(dir=self.folder)
            self._browser = Browser(self.lab, Path(folder) / "profile")
            for _ in range(5):  # the first pages compile and fill what later ones find
                self._browser.page_ms()
        return self._browser

    def rest(self) -> None:
        """End what a test keeps for its next proxy."""
        if self._browser is not None:
            self._browsed += self._browser.cpu()
            self._browser.close()
            self._browser = None

    def cpu(self) -> float:
        """Seconds of processor that servers and browsers used so far. Load generators are children that ended."""
        live = 0.0 if self._browser is None else self._browser.cpu()
        return self.origin.cpu() + self._browsed + live


@dataclass(frozen=True, slots=True)
class Test:
    """A test, and which proxies it makes sense for. `at_most` rounds, for those that take long and vary little."""

    name: str
    title: str
    run: Callable[[Bench, Proxy], Metrics]
    suits: Callable[[Peer], bool]
    quick: bool = False
    at_most: int | None = None


def check(bench: Bench, proxy: Proxy) -> None:
    """Raise unless the proxy does what is compared: passes what is allowed and only that."""
    proxy.intercept()
    peer = proxy.peer
    if peer.passes:
        _expect(bench.load.small(4, 10, 40), 40, f"{peer.name} does not pass what is allowed")
        _expect(
            bench.load.tls(2, 10, bench.origin.certificate, 8), 8, f"{peer.name} does not pass the origin's certificate"
        )
    if peer.refuses:
        _expect(bench.load.refused(4, 10, 40), 40, f"{peer.name} does not refuse what is banned")
    if peer.opens:
        assert proxy.authority is not None
        # What opens connections may be a process of its own that is ready later than the port.
        wait_until(f"{proxy.authority.name}, the authority of {peer.name}", proxy.authority.exists, 20)
        _expect(bench.load.pages(2, 15, proxy.authority, 8), 8, f"{peer.name} does not show a page for what is banned")
    if not (peer.refuses or peer.opens) and bench.load.refused(1, 10, 4).finish().ok:
        raise LoadError("a banned name is refused without any proxy: the laboratory is broken")


def _expect(running: Running, wanted: int, complaint: str) -> None:
    figures = running.finish()
    if figures.ok != wanted:
        raise LoadError(f"{complaint}: {figures.ok} of {wanted} ({_reasons(figures)})")


def _reasons(figures: Figures) -> str:
    stated = [f"{name} {count}" for name, count in figures.errors.items() if count]
    if figures.unfinished:
        stated.append(f"unfinished {figures.unfinished}, up to {figures.oldest_ms:.0f} ms old")
    if figures.first_failure:
        stated.append(figures.first_failure)
    return ", ".join(stated) or "no error"


def _latencies(figures: Figures) -> dict[str, float]:
    """What every load of connections gives; a load of which nothing succeeds is a failure of the test."""
    if not figures.ok:
        raise LoadError(f"nothing succeeded: {_reasons(figures)}")
    return {
        "rate": figures.rate,
        "p50_ms": figures.p50_ms,
        "p99_ms": figures.p99_ms,
        "max_ms": figures.max_ms,
        "err": float(figures.err),
    }


def _with_cpu(proxy: Proxy, running: Callable[[], Running]) -> tuple[Figures, float]:
    """A load's figures and the seconds of processor that the proxy spent on it."""
    before = proxy.cpu()
    figures = running().finish()
    time.sleep(_SETTLE)
    return figures, proxy.cpu() - before


def _connections(start: Callable[[Bench, Proxy], Running]) -> Callable[[Bench, Proxy], Metrics]:
    """A test that makes connections as fast as they go."""

    def test(bench: Bench, proxy: Proxy) -> Metrics:
        figures, cpu = _with_cpu(proxy, lambda: start(bench, proxy))
        return _latencies(figures) | {"cpu_us": cpu / max(1, figures.ok) * 1e6}

    return test


def _small(concurrency: int) -> Callable[[Bench, Proxy], Metrics]:
    return _connections(lambda bench, _: bench.load.small(concurrency, bench.seconds))


def _refused(concurrency: int) -> Callable[[Bench, Proxy], Metrics]:
    return _connections(lambda bench, _: bench.load.refused(concurrency, bench.seconds))


def _tls(concurrency: int) -> Callable[[Bench, Proxy], Metrics]:
    def start(bench: Bench, proxy: Proxy) -> Running:
        opened = not proxy.peer.passes and proxy.authority is not None
        authority = proxy.authority if opened and proxy.authority else bench.origin.certificate
        return bench.load.tls(concurrency, bench.seconds, authority)

    return _connections(start)


def _block_pages(bench: Bench, proxy: Proxy) -> Metrics:
    assert proxy.authority is not None
    authority = proxy.authority
    figures, cpu = _with_cpu(proxy, lambda: bench.load.pages(_PAGE_CLIENTS, 2 * bench.seconds, authority))
    return _latencies(figures) | {"cpu_us": cpu / max(1, figures.ok) * 1e6}


def _bulk(streams: int) -> Callable[[Bench, Proxy], Metrics]:
    def test(bench: Bench, proxy: Proxy) -> Metrics:
        figures, cpu = _with_cpu(proxy, lambda: bench.load.bulk(streams, bench.seconds))
        if not figures.bytes:
            raise LoadError(f"nothing came: {_reasons(figures)}")
        return {
            "mb_per_s": figures.mb_per_s,
            "cpu_s_per_gib": cpu / figures.bytes * 2**30,
            "err": float(figures.err),
        }

    return test


def _beside_bulk(bench: Bench, proxy: Proxy) -> Metrics:
    """New connections, one at a time, while bulk streams run through the same proxy."""
    measured = 2 * bench.seconds
    with bench.load.bulk(_BULK_STREAMS, measured + 10) as bulk:
        time.sleep(0.4)  # the streams are up to speed
        figures = bench.load.small(1, measured).finish()
        beside = bulk.stop()
    return _latencies(figures) | {"bulk_mb_per_s": beside.mb_per_s, "err": float(figures.err + beside.err)}


def _beside_pages(bench: Bench, proxy: Proxy) -> Metrics:
    """Allowed connections, one at a time: at rest, then while clients hammer the block page."""
    assert proxy.authority is not None
    rest = _latencies(bench.load.small(1, bench.seconds).finish())
    with bench.load.pages(_PAGE_CLIENTS, 2 * bench.seconds + 10, proxy.authority) as pages:
        time.sleep(0.4)
        beside = _latencies(bench.load.small(1, 2 * bench.seconds).finish())
        hammered = pages.stop()
    return beside | {"rest_p50_ms": rest["p50_ms"], "rest_p99_ms": rest["p99_ms"], "pages_per_s": hammered.rate}


def _resident_at_rest(service: Service) -> int:
    """The resident memory, once it grows no more: on a busy machine what starts behind the traffic takes its time."""
    before, give_up = service.resident(), time.monotonic() + _STARTS
    while True:
        time.sleep(1)
        now = service.resident()
        if now <= before * 1.001 or time.monotonic() > give_up:
            return now
        before = now


def _idle(bench: Bench, proxy: Proxy) -> Metrics:
    """What an open connection costs that carries nothing, in an instance that is new and has served a few."""
    with bench.start(proxy.peer) as fresh:
        assert fresh.service is not None
        fresh.intercept()
        _expect(bench.load.small(8, 10, 64), 64, "the new instance does not serve")
        before = _resident_at_rest(fresh.service)
        with bench.load.idle(_IDLE_CONNECTIONS) as idle:
            held = idle.await_held()
            time.sleep(1)
            after = fresh.service.resident()
            idle.stop()
    if held < _IDLE_CONNECTIONS:
        raise LoadError(f"only {held} of {_IDLE_CONNECTIONS} connections stay open")
    return {"kib": (after - before) / held, "resident_mib": before / 1024}


def _http2_page(bench: Bench, proxy: Proxy) -> Metrics:
    return {"page_ms": bench.load.http2_page(20)}


def _browser_page(bench: Bench, proxy: Proxy) -> Metrics:
    browser = bench.browser()
    return {"page_ms": statistics.median(browser.page_ms() for _ in range(25))}


def _passes(peer: Peer) -> bool:
    return peer.passes and not peer.again and peer.name != ONE_GATE


def _refuses(peer: Peer) -> bool:
    return peer.refuses and not peer.again and peer.name != ONE_GATE


def _speaks_tls(peer: Peer) -> bool:
    return not peer.again and peer.name != ONE_GATE


def _or_one_gate(suits: Callable[[Peer], bool]) -> Callable[[Peer], bool]:
    """Also with a single gate, to say how the rate grows with more."""
    return lambda peer: suits(peer) or peer.name == ONE_GATE


def _redirected(peer: Peer) -> bool:
    return peer.again


def _opens(peer: Peer) -> bool:
    return peer.opens


def _one_of(*names: str) -> Callable[[Peer], bool]:
    return lambda peer: peer.name in names


def _shows_pages_and_passes(peer: Peer) -> bool:
    return peer.opens and peer.passes


TESTS: Final[tuple[Test, ...]] = (
    Test("small1", "New allowed connections, one at a time", _small(1), _passes, quick=True),
    Test("small32", "New allowed connections, 32 at once", _small(32), _or_one_gate(_passes), quick=True),
    Test("small256", "New allowed connections, 256 at once", _small(256), _or_one_gate(_passes), quick=True),
    Test("bulk1", "Bulk, one stream", _bulk(1), _passes, quick=True),
    Test("bulk8", "Bulk, 8 streams", _bulk(8), _passes, quick=True),
    Test("beside-bulk", "New connections one at a time beside 8 bulk streams", _beside_bulk, _passes, quick=True),
    Test("refused1", "Refused: ClientHello to refusal, one at a time", _refused(1), _refuses, quick=True),
    Test("refused32", "Refused, 32 at once", _refused(32), _or_one_gate(_refuses), quick=True),
    Test(
        *("idle", "An idle connection, 3,000 open", _idle),
        suits=_one_of("haproxy", "haproxy-splice", "squid", "mitmproxy", "tokgate"),
        quick=True,
        at_most=3,
    ),
    Test("tls1", "Real TLS to nginx, one at a time", _tls(1), _speaks_tls),
    Test("tls32", "Real TLS to nginx, 32 at once", _tls(32), _speaks_tls),
    Test("page-h2load", "40 objects over a new HTTP/2 connection, h2load", _http2_page, _passes),
    Test(
        *("page-chromium", "A page of 40 objects over HTTP/2, Chromium", _browser_page),
        suits=_one_of(DIRECT, "haproxy", "tokgate"),
    ),
    Test("block-pages", "Block pages through TLS, 8 clients", _block_pages, _opens),
    Test(
        *("beside-pages", "Allowed connections one at a time while 8 clients hammer the block page", _beside_pages),
        suits=_shows_pages_and_passes,
    ),
    Test("redirect-small1", "By REDIRECT: new allowed connections, one at a time", _small(1), _redirected),
    Test("redirect-small32", "By REDIRECT: new allowed connections, 32 at once", _small(32), _redirected),
    Test("redirect-small256", "By REDIRECT: new allowed connections, 256 at once", _small(256), _redirected),
    Test("redirect-refused1", "By REDIRECT: refused, one at a time", _refused(1), _redirected),
    Test("redirect-refused32", "By REDIRECT: refused, 32 at once", _refused(32), _redirected),
)
