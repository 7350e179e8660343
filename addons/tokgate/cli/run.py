"""`tokgate run`: the proxy, in the foreground, until it is told to end."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from tokgate.cli.policies import add_policies_option

EPILOG = """\
examples:
  tokgate run                                    explicit proxy on 127.0.0.1:8080, policies from ./policies
  tokgate run --mode transparent                 behind the redirection that `tokgate ruleset` prints
  tokgate run --mode regular@8080 --mode transparent@8443
                                                 both

SIGHUP reads the policies again and reopens the log. SIGTERM takes no new connections and lets the open ones finish;
a second one ends at once."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `run`."""
    summary = "enforce the policies as a proxy"
    parser = subparsers.add_parser("run", help=summary, description=summary, epilog=EPILOG)
    parser.add_argument(
        "--mode",
        metavar="MODE[@[HOST:]PORT]",
        action="append",
        help="regular (default), transparent, socks5, wireguard, local, dns; may be given several times",
    )
    add_policies_option(parser)
    parser.add_argument("--log", metavar="FILE", type=Path, help="block log (default: ./block.ndjson)")
    parser.add_argument(
        "--listen-host", metavar="H", help="address to listen on (default: loopback; transparent: everywhere)"
    )
    parser.add_argument("--listen-port", metavar="P", type=_port, help="port to listen on (default: 8080)")
    parser.add_argument("--confdir", metavar="DIR", type=Path, help="folder of the page's CA (default: ~/.tokgate)")
    parser.add_argument(
        "--drain",
        metavar="SECONDS",
        type=_seconds,
        default=30.0,
        help="how long open connections may go on after SIGTERM (default: 30)",
    )
    parser.add_argument(
        "--implementer", metavar="URI", default="", help="who runs this filter, named on the block page"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the proxy until a signal ends it."""
    from tokgate.blocklog.writer import DEFAULT_LOG
    from tokgate.proxy import launcher

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="tokgate: %(levelname)s: %(message)s")
    options = launcher.RunOptions(
        modes=tuple(args.mode or ("regular",)),
        policies=args.policies,
        log=args.log or DEFAULT_LOG,
        listen_host=args.listen_host,
        listen_port=args.listen_port,
        confdir=args.confdir or launcher.DEFAULT_CONFDIR,
        drain=args.drain,
        implementer=args.implementer,
    )
    return asyncio.run(launcher.run(options))


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65536:
        raise ValueError
    return port


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 86400:
        raise ValueError
    return seconds
