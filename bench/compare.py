"""Compares `tokgate run` with other proxies on the same work, in network namespaces: `python bench/compare.py` as root.

A complete run (no --only, no --proxies, five rounds or more) writes RESULTS.md and results.json beside this file.
Progress goes to standard error, tables to standard output. Exit codes: 0 all bars met (--quick: nothing slower),
1 a bar missed (--quick: something slower), 2 usage, 3 the bench can't run here, or --quick has results of another
processor, or of another way in which connections arrive.
"""

import argparse
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from comparison import regression, report
from comparison.bars import BARS, judge
from comparison.hello import KINDS
from comparison.load import Load
from comparison.measurements import TESTS as LOAD_TESTS
from comparison.measurements import Bench, Test
from comparison.namespaces import Lab
from comparison.origin import Origin
from comparison.peers import TOKGATE_COMMAND, Peer, peers
from comparison.programs import build
from comparison.reloading import reload_under_load
from comparison.results import Results
from comparison.rounds import TROUBLES, Plan, measure
from comparison.scaling import decision_scaling
from comparison.settings import RESULTS_JSON, RESULTS_MD

_FULL_ROUNDS: Final = 5
_QUICK_ROUNDS: Final = 3
_FULL_REPEATS: Final = 2
_FULL_SECONDS: Final = 1.5
_QUICK_SECONDS: Final = 0.6
_QUICK_PROXIES: Final = ("haproxy", "tokgate")
_TOOLS: Final = {
    "ip": "iproute2",
    "nft": "nftables",
    "setpriv": "util-linux",
    "sysctl": "procps",
    "gcc": "gcc libssl-dev",
    "openssl": "openssl",
    "nginx": "nginx-light",
    "h2load": "nghttp2-client",
    "chromium": "chromium",
}
_OPTIONAL: Final = ("h2load", "chromium")

TESTS: Final = (
    *LOAD_TESTS,
    Test(
        *("decision", "One decision, from 10 to 1,000,000 names and 10 to 100,000 networks", decision_scaling),
        suits=lambda peer: peer.name == "tokgate",
        at_most=1,
    ),
    Test(
        *("reload", "A reload from 10 to 1,000,000 names while 8 connections at a time run", reload_under_load),
        suits=lambda peer: peer.name == "tokgate",
        at_most=1,
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.list:
        _list()
        return 0
    complaint = _cannot_run()
    if complaint:
        print(f"compare: {complaint}", file=sys.stderr)
        return 3
    known = peers(args.tokgate_command)
    chosen = args.proxies or (_QUICK_PROXIES if args.quick else tuple(known))
    for name in chosen:
        if name not in known:
            parser.error(f"no proxy {name!r}: {', '.join(known)}")
    kept = Results.load(RESULTS_JSON) if args.quick and RESULTS_JSON.exists() else None
    plan = _plan(args, [known[name] for name in chosen], parser)
    results = Results(about=_about(args, arguments, plan))
    # A signal must not leave namespaces behind: it ends the run as an exception would.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    try:
        _run(args, plan, results)
    except KeyboardInterrupt:
        print("compare: interrupted", file=sys.stderr)
        return 3
    except TROUBLES as error:  # of the laboratory: what a proxy does wrong is in the results
        print(f"compare: {error}", file=sys.stderr)
        return 3
    outcomes = [judge(results, bar) for bar in BARS if any(bar.test == test.name for test in plan.tests)]
    _keep(args, plan, results)
    print(report.text(results, outcomes, plan.tests))
    if args.quick:
        return _quick_verdict(kept, results)
    return 1 if any(outcome.met is not True for outcome in outcomes) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="under two minutes: what got slower than results.json")
    parser.add_argument("--only", metavar="TEST[,TEST]", type=_words, help="these tests (see --list)")
    parser.add_argument("--proxies", metavar="A,B", type=_words, help="these proxies (see --list)")
    parser.add_argument("--rounds", metavar="N", type=_positive, help=f"rounds (default: {_FULL_ROUNDS})")
    parser.add_argument("--seconds", metavar="S", type=float, help=f"length of a load (default: {_FULL_SECONDS})")
    parser.add_argument("--hello", choices=tuple(KINDS), default="browser", help="whose ClientHello (default: browser)")
    parser.add_argument("--output", metavar="DIR", type=Path, help="write RESULTS.md and results.json there, always")
    parser.add_argument("--list", action="store_true", help="list tests and proxies")
    parser.add_argument(
        "--tokgate-command",
        metavar="COMMAND",
        default=TOKGATE_COMMAND,
        help="how the proxy under test is started, to compare another build; {python} {policies} {log} {port} {keys}",
    )
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _positive(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 100:
        raise ValueError
    return count


def _list() -> None:
    for test in TESTS:
        suited = ", ".join(peer.name for peer in peers().values() if test.suits(peer))
        print(f"{test.name:<14} {test.title}: {suited}")


def _cannot_run() -> str | None:
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux and root, for network namespaces"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None and tool not in _OPTIONAL]
    if absent:
        return f"{', '.join(absent)} missing: apt-get install {' '.join(_TOOLS[tool] for tool in absent)}"
    return None


def _plan(args: argparse.Namespace, chosen: list[Peer], parser: argparse.ArgumentParser) -> Plan:
    tests = [test for test in TESTS if test.quick or not args.quick]
    if args.only:
        names = {test.name for test in TESTS}
        unknown = [name for name in args.only if name not in names]
        if unknown:
            parser.error(f"no test {', '.join(unknown)}: {', '.join(sorted(names))}")
        tests = [test for test in TESTS if test.name in args.only]
    needed = [peer for peer in chosen if any(test.suits(peer) for test in tests)]
    if not needed:
        parser.error("none of these tests is for any of these proxies")
    if args.quick:
        return Plan(tests, needed, args.rounds or _QUICK_ROUNDS, repeats=0)  # its time is limited
    return Plan(tests, needed, args.rounds or _FULL_ROUNDS, _FULL_REPEATS)


def _run(args: argparse.Namespace, plan: Plan, results: Results) -> None:
    tlsload, rawserver = build()
    seconds = args.seconds or (_QUICK_SECONDS if args.quick else _FULL_SECONDS)
    with tempfile.TemporaryDirectory(prefix="tokgate-bench-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # peers that drop their privileges must reach theirs
        with Lab(os.getpid()) as lab, Origin(lab, rawserver, folder / "origin") as origin:
            load = Load(lab, tlsload, folder / "hellos", args.hello)
            measure(Bench(lab, load, origin, folder, seconds), plan, results)


def _about(args: argparse.Namespace, arguments: Sequence[str], plan: Plan) -> dict[str, Any]:
    """What a reader needs to know of a run."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", "bench/compare.py", *arguments]),
        "rounds": plan.rounds,
        "hello": args.hello,
        "arrival": "TPROXY",  # of all but the tests whose names begin with redirect-
        "kernel": platform.release(),
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
    }


def _keep(args: argparse.Namespace, plan: Plan, results: Results) -> None:
    """Write a complete run's results, or any run's where --output says so."""
    complete = not (args.only or args.proxies or args.quick) and plan.rounds >= _FULL_ROUNDS
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        documents = args.output / RESULTS_MD.name, args.output / RESULTS_JSON.name
    elif complete and args.tokgate_command == TOKGATE_COMMAND:
        documents = RESULTS_MD, RESULTS_JSON
    else:
        return
    results.save(documents[1])
    documents[0].write_text(report.markdown(results, [judge(results, bar) for bar in BARS], plan.tests))
    print(f"wrote {documents[0]} and {documents[1]}", file=sys.stderr)


def _quick_verdict(kept: Results | None, now: Results) -> int:
    if kept is None:
        print(f"{RESULTS_JSON.name} is not there yet: nothing to compare with. A complete run writes it.")
        return 0
    changes = regression.compare(kept, now)
    print(f"Beside HAProxy, now and in the results of {kept.about['date']}")
    print(report.text_table(regression.rows(changes)))
    slower = [change for change in changes if change.slower]
    for change in slower:
        print(f"slower: {change.test} {change.metric}, {change.percent:+.0f} %")
    unlike = [key for key in ("cpu", "arrival") if kept.about.get(key) != now.about[key]]
    if unlike:
        other = " and another ".join(unlike)
        print(f"not comparable: another {other} than in {RESULTS_JSON.name}; run the older commit beside this one")
        return 3
    if not slower:
        print("nothing got slower")
    elif now.disturbed():
        print(
            f"{now.disturbed()} of {len(now.samples)} samples were disturbed by other work: run it again before looking"
        )
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
