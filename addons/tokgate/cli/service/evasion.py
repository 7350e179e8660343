"""`tokgate evasion`: try to get round a ban, through one's own gateway."""

import argparse
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final, TypedDict

from tokgate.cli.arguments import host_and_port, whole_number
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command
from tokgate.cli.terminal import Patience, narrate, print_json, show_rows, visible
from tokgate.evasion.attempt import Attempt, Family
from tokgate.evasion.families import ATTEMPTS
from tokgate.evasion.trial import (
    Address,
    AttemptRoute,
    Carriage,
    Server,
    Trial,
    TrialError,
    TrialResult,
    check,
    try_all,
)

EPILOG = """\
examples:
  tokgate evasion --via route --name evasion-test.example --server 198.51.100.7
                                   from a client behind the gateway, whose connections it redirects
  tokgate evasion --via 192.0.2.1:8080 --via socks5://192.0.2.1:8080 --name evasion-test.example --server 198.51.100.7
                                   through an explicit proxy, by CONNECT and by SOCKS 5
  tokgate evasion --list           the attempts, and what each does

before:
  1. Have a server outside that answers TLS on 443 and HTTP on 80 with a certificate for the test name, and for any
     other name too: a web server with one site is enough.
  2. Ban the name for the client that will run this, as a suffix: a service {names: {suffix: [evasion-test.example]}}.
  3. Run this on that client. It first sees that --allowed gets through and that the name does not, then makes some 560
     attempts in about a minute. Each leaves a record in the block log, or a count.

what is said of each attempt:
  stopped      no server answered: it was refused, ended, or left without an answer
  documented   a server answered, and docs/cannot-see.md says why; --strict takes it for passed
  passed       a server answered

Exit codes: 0 all were stopped or are documented; 1 something passed; 2 usage; 3 the server isn't reached, or the name
isn't banned for this client, so that the attempts would show nothing."""
PATH: Final = "docs/cannot-see.md"
_SCHEMES: Final = {"http": Carriage.CONNECT, "socks5": Carriage.SOCKS}
_port: Final = whole_number("port", 1, 65_535)
_HEADINGS: Final = ("verdict", "by", "attempt", "what it does", "answer")


class AttemptResult(TypedDict):
    """What became of one attempt to get round a ban; `documented` is where docs say that it passes."""

    attempt: str
    family: str
    by: str
    what: str
    verdict: TrialResult
    answer: str
    detail: str
    documented: str | None


class EvasionResult(TypedDict):
    """`tokgate evasion --json`: how many attempts came to what, and each of them."""

    stopped: int
    documented: int
    passed: int
    attempts: list[AttemptResult]


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "evasion", EPILOG)
    parser.add_argument(
        "--via",
        metavar="ADDRESS",
        type=_via,
        action="append",
        help="`route`: plainly, where the network redirects it; HOST:PORT or http://HOST:PORT: an HTTP proxy; "
        "socks5://HOST:PORT; may be given several times",
    )
    parser.add_argument("--name", help="the test name, which is banned for this client")
    parser.add_argument(
        "--server",
        metavar="HOST[:PORT]",
        type=partial(host_and_port, port=443),
        help="what answers for it over TLS (default port: 443)",
    )
    parser.add_argument(
        "--http-port",
        metavar="PORT",
        type=_port,
        default=80,
        help="the same server's port for plain HTTP (default: 80)",
    )
    parser.add_argument(
        "--allowed", metavar="NAME", default="www.example.org", help="a name that may pass (default: www.example.org)"
    )
    parser.add_argument(
        "--family", choices=[*Family], action="append", metavar="FAMILY",
        help=f"only {', '.join(Family)}; may be given several times",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="what is documented counts as passed")
    parser.add_argument("--quiet", action="store_true", help="show only what was not stopped")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--list", action="store_true", help="list the attempts and make none")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    attempts = [attempt for attempt in ATTEMPTS.values() if not args.family or attempt.family in args.family]
    if args.list and args.json:
        print_json([{"id": a.id, "family": a.family, "what": a.what, "limit": a.limit} for a in attempts])
        return Exit.DONE
    if args.list:
        show_rows(("attempt", "family", "what it does"), [(each.id, each.family, each.what) for each in attempts])
        return Exit.DONE
    missing = [f"--{key}" for key in ("via", "name", "server") if not getattr(args, key)]
    if missing:
        raise CommandError(f"missing: {', '.join(missing)} (see tokgate evasion --help)", Exit.USAGE)
    tried = [_result(each) for each in _try(args, attempts)]
    counts = Counter(each["verdict"] for each in tried)
    stopped, documented, passed = (counts[verdict] for verdict in TrialResult)
    if args.json:
        print_json(EvasionResult(stopped=stopped, documented=documented, passed=passed, attempts=tried))
    else:
        rows = []
        for each in tried:
            said = " ".join((each["answer"], each["detail"])).strip()
            said += f": {each['documented']}" if each["verdict"] is TrialResult.DOCUMENTED else ""
            if not args.quiet or each["verdict"] is not TrialResult.STOPPED:
                rows.append((each["verdict"], each["by"], each["attempt"], each["what"], visible(said)))
        if rows:
            show_rows(_HEADINGS, rows)
        sys.stdout.write(f"{stopped} stopped, {documented} documented, {passed} passed\n")
    return Exit.FINDINGS if passed or (args.strict and documented) else Exit.DONE


def _try(args: argparse.Namespace, attempts: Sequence[Attempt]) -> list[Trial]:
    host, port = args.server
    try:
        host = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise CommandError(f"{visible(host)}: {error.strerror}") from error
    server, routes = Server(host=host, tls=port, http=args.http_port), []
    for carriage, proxy in args.via:
        route = AttemptRoute(carriage=carriage, proxy=proxy)
        try:
            fit = check(route, server, args.name, args.allowed)
        except TrialError as unfit:
            raise CommandError(str(unfit)) from unfit
        if fit.http is None:
            narrate(f"no plain HTTP at {host}:{args.http_port} by {carriage}: its attempts are left out")
        routes.append((route, fit))
    with Patience("attempts") as patience:
        return list(try_all(routes, args.name, attempts, patience))


def _result(trial: Trial) -> AttemptResult:
    attempt, answer = trial.attempt, trial.answer
    return {
        "attempt": attempt.id,
        "family": attempt.family,
        "by": trial.carriage,
        "what": attempt.what,
        "verdict": trial.verdict,
        "answer": answer.result,
        "detail": answer.detail,
        "documented": None if attempt.limit is None else f"{PATH}#{attempt.limit}",
    }


def _via(text: str) -> tuple[Carriage, Address | None]:
    if text == "route":
        return Carriage.ROUTE, None
    scheme, _, rest = text.rpartition("://")
    if (scheme or "http") not in _SCHEMES:
        raise argparse.ArgumentTypeError(f"{text!r}: route, HOST:PORT, http://HOST:PORT or socks5://HOST:PORT")
    return _SCHEMES[scheme or "http"], host_and_port(rest.rstrip("/"))
