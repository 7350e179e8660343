"""`tokgate run`: the proxy, in the foreground, until it is told to end."""

import argparse
import asyncio
import logging
import os
import sys
from ipaddress import ip_address
from pathlib import Path

from tokgate.blocklog.place import DEFAULT_LOG
from tokgate.cli.commands import COMMANDS
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.policies import add_policies_option
from tokgate.gate.endpoints import Endpoint, endpoints, is_gate_mode, scrapers_endpoint
from tokgate.gate.overview import say
from tokgate.proxy.keys import DEFAULT_CONFDIR

EPILOG = """\
examples:
  tokgate run                                    explicit proxy on 127.0.0.1:8080, policies from ./policies
  tokgate run --mode transparent                 behind the redirection that `tokgate ruleset` prints
  tokgate run --mode regular@8080 --mode transparent@8443
                                                 both
  tokgate run --mode gate                        redirected clients through gates, one a core, in front of mitmproxy
  tokgate run --mode gate@8443 --mode gate:explicit@8080
                                                 redirected and explicit clients (gate:tproxy for nftables tproxy)
  tokgate run --mode dns@192.0.2.53:53 --name-server 203.0.113.53
                                                 resolver for clients that name it: refused names don't exist
  tokgate run --mode gate:explicit --single      one gate and mitmproxy in one process

SIGHUP reads the policies again and reopens the log. SIGTERM takes no new connections and lets the open ones finish;
a second one ends at once."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `run`."""
    summary = COMMANDS["run"]
    parser = subparsers.add_parser("run", help=summary, description=summary, epilog=EPILOG)
    parser.add_argument(
        "--mode",
        metavar="MODE[@[HOST:]PORT]",
        action="append",
        help="gate, gate:tproxy, gate:explicit (the fast path), or regular (default), transparent, socks5, wireguard, "
        "tun, local, dns; may be given several times",
    )
    parser.add_argument("--workers", metavar="N", type=_count, help="gates (default: one a core)")
    parser.add_argument(
        "--openers", metavar="N", type=_count, default=1, help="mitmproxy processes behind the gates (default: 1)"
    )
    parser.add_argument("--single", action="store_true", help="a gate and mitmproxy in one process")
    parser.add_argument(
        "--mark",
        metavar="N",
        type=lambda text: int(text, 0),
        help="firewall mark on the gates' own connections",
    )
    add_policies_option(parser)
    parser.add_argument("--log", metavar="FILE", type=Path, help="block log (default: ./block.ndjson)")
    parser.add_argument(
        "--listen-host",
        metavar="H",
        help="address to listen on (default: loopback; every address for redirected clients)",
    )
    parser.add_argument("--listen-port", metavar="P", type=_port, help="port to listen on (default: 8080)")
    parser.add_argument(
        "--confdir", metavar="DIR", type=Path, help="folder of the page's authority (default: ~/.tokgate)"
    )
    parser.add_argument(
        "--drain",
        metavar="SECONDS",
        type=_seconds,
        default=30.0,
        help="how long open connections may go on after SIGTERM (default: 30)",
    )
    parser.add_argument(
        "--metrics",
        metavar="[HOST:]PORT",
        type=_scrapers,
        help="serve /metrics (Prometheus) and /healthz there; without HOST on loopback",
    )
    parser.add_argument(
        "--implementer", metavar="URI", default="", help="who runs this filter, named on the block page"
    )
    parser.add_argument(
        "--name-server",
        metavar="ADDRESS",
        type=ip_address,
        action="append",
        default=[],
        help="resolver that is asked in dns mode, and for wireguard's 10.0.0.53; may be given several times (default: "
        "the system's)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the proxy until a signal ends it."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="tokgate: %(levelname)s: %(message)s")
    modes = tuple(args.mode or ("regular",))
    gates = [is_gate_mode(mode) for mode in modes]
    if not any(gates):
        return _run_mitmproxy(args, modes)
    if not all(gates):
        raise CommandError("gates and mitmproxy's own modes are separate: start tokgate twice", Exit.USAGE)
    try:
        places = endpoints(modes, args.listen_host, args.listen_port)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    return _run_mitmproxy(args, ("gate",), places) if args.single else _supervise(args, places)


def _run_mitmproxy(args: argparse.Namespace, modes: tuple[str, ...], gate: tuple[Endpoint, ...] = ()) -> int:
    from tokgate.proxy import launcher

    options = launcher.RunOptions(
        modes=modes,
        policies=args.policies,
        log=args.log or DEFAULT_LOG,
        listen_host=args.listen_host,
        listen_port=None if gate else args.listen_port,
        confdir=args.confdir or DEFAULT_CONFDIR,
        drain=args.drain,
        implementer=args.implementer,
        name_servers=tuple(map(str, args.name_server)),
        metrics=args.metrics,
        gate=gate,
        mark=args.mark,
    )
    code = asyncio.run(launcher.run(options))
    if launcher.leaves_threads(modes):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # their threads crash in an interpreter that is being taken down; all is written by now
    return code


def _supervise(args: argparse.Namespace, places: tuple[Endpoint, ...]) -> int:
    from tokgate.proxy.family import SuperviseOptions
    from tokgate.proxy.supervisor import supervise

    options = SuperviseOptions(
        endpoints=places,
        policies=args.policies,
        log=args.log or DEFAULT_LOG,
        confdir=(args.confdir or DEFAULT_CONFDIR).expanduser(),
        workers=args.workers or len(os.sched_getaffinity(0)),
        openers=args.openers,
        drain=args.drain,
        implementer=args.implementer,
        mark=args.mark,
        metrics=args.metrics,
    )
    return supervise(options, say)


def _scrapers(text: str) -> tuple[str, int]:
    try:
        return scrapers_endpoint(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65536:
        raise ValueError
    return port


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 1024:
        raise ValueError
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 86400:
        raise ValueError
    return seconds
