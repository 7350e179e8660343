"""Do connections stall that use a client's port again, for another server? `python bench/stalls.py` as root.

One client takes turns: refusals at one server, one at a time, and 32 allowed connections at a time to another. Where
every destination becomes the gateway's own address, ports that are in TIME_WAIT for the one server come again for the
other with an older timestamp, and the kernel drops their SYNs (PAWS, RFC 7323 §5) until they come again a second later:
the rate falls to a hundredth. With `tokgate run --gateway` and its own rules, for each way in which they bring clients.

Bars: the last round of eight has at least 0.8 times the rate of the first, and no connection takes over 0.5 seconds.
Exit codes: 0 both are met, 1 not so, 3 the bench can't run here.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from comparison.load import Figures, Load
from comparison.namespaces import Lab, run
from comparison.origin import Origin
from comparison.peers import TOKGATE_COMMAND, Peer, Place, Proxy, tokgate_with
from comparison.processes import wait_until
from comparison.programs import build

from tokgate.runtime.control_socket import ControlRequest, ask

WAYS: Final = {"tproxy": "--gateway", "redirect64": "--gateway --redirect", "redirect1": "--gateway --redirect {port}"}
"""The options of `tokgate run`; redirection to a single port is there to show the stall."""
JUDGED: Final = ("tproxy", "redirect64")
STEADY: Final = 0.8
STALL_MS: Final = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"{', '.join(WAYS)} (default: the first two)")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="for each way (default: 8)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of each load (default: 2)")
    options = parser.parse_args()
    if unknown := set(options.ways) - WAYS.keys():
        parser.error(f"no way {', '.join(sorted(unknown))}: {', '.join(WAYS)}")
    if os.geteuid() != 0:
        print("stalls: needs root, for network namespaces", file=sys.stderr)
        return 3
    tlsload, rawserver = build()
    met = [True]
    for way in options.ways or JUDGED:
        with _gateway(way, tlsload, rawserver) as (lab, load):
            rounds = [_round(load, options.seconds) for _ in range(options.rounds)]
            dropped = run(*lab.inside(lab.gateway, "nstat", "-asz", "TcpExtPAWSTimewait")).split()[-2]
        met.append(_report(way, rounds, dropped) or way not in JUDGED)
    return 0 if all(met) else 1


@contextmanager
def _gateway(way: str, tlsload: Path, rawserver: Path) -> Iterator[tuple[Lab, Load]]:
    """A laboratory of its own, so that no TIME_WAIT is left of another way."""
    command = TOKGATE_COMMAND.replace("--mode gate:tproxy@{port}", f"{WAYS[way]} --user root")
    with tempfile.TemporaryDirectory(prefix="tokgate-stalls-") as temporary:
        folder = Path(temporary)
        with Lab(os.getpid()) as lab, Origin(lab, rawserver, folder / "origin") as origin:
            peer = Peer("tokgate", (), "", lambda: "", tokgate_with("refuse.yaml", command))
            port = {"tproxy": 8080, "redirect64": 10443}.get(way, 9000)
            with Proxy(peer, Place(lab, origin, folder / "tokgate", port)):
                load = Load(lab, tlsload, folder / "hellos", "browser")
                wait_until("gates refuse", lambda: load.refused(4, 10, 40).finish().ok == 40, 60)
                # While openers load no processor sleeps: refusals are faster than in the rounds after that.
                wait_until("all processes serve", lambda: _all_serve(folder / "tokgate" / "keys"), 60)
                yield lab, load


def _all_serve(confdir: Path) -> bool:
    state = ask(confdir, ControlRequest.STATUS)
    return state is not None and all(each["condition"] == "serving" for each in state["workers"])


def _round(load: Load, seconds: float) -> tuple[Figures, Figures]:
    """Refusals one at a time at one server, then connections to another."""
    return load.refused(1, seconds).finish(), load.small(32, seconds).finish()


def _slowest(figures: Figures) -> float:
    """Milliseconds of the slowest connection, one that was not over at the end included."""
    return max(figures.max_ms, figures.oldest_ms)


def _report(way: str, rounds: list[tuple[Figures, Figures]], dropped: str) -> bool:
    """Print the rounds; whether the bars are met."""
    print(f"{way}\n  round  refused/s  slowest    new/s   slowest  failed")
    for number, (refused, new) in enumerate(rounds, 1):
        measured = f"{_slowest(refused):6.0f} ms {new.rate:8,.0f} {_slowest(new):6.0f} ms"
        print(f"  {number:5} {refused.rate:10,.0f} {measured} {refused.err + new.err:7}")
        for kind, figures in (("refused", refused), ("new", new)):
            if figures.err:
                print(f"        {kind}: {', '.join(f'{many} {how}' for how, many in figures.errors.items() if many)}")
    shares = [rounds[-1][which].rate / max(1e-9, rounds[0][which].rate) for which in (0, 1)]
    slowest = max(_slowest(each) for pair in rounds for each in pair)
    met = min(shares) >= STEADY and slowest <= STALL_MS
    print(f"  last beside first: refused {shares[0]:.2f} ×, new {shares[1]:.2f} × (bar: {STEADY})")
    print(f"  slowest: {slowest:.0f} ms (bar: {STALL_MS}); SYNs dropped by PAWS: {dropped}")
    print(f"  {'met' if met else 'MISSED'}")
    return met


if __name__ == "__main__":
    sys.exit(main())
