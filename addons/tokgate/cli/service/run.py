"""`tokgate run`: runs the proxy in the foreground until a signal ends it."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from tokgate.block_page.authority import DEFAULT_CONFDIR
from tokgate.cli.arguments import argument_of, whole_number
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command, need
from tokgate.cli.configuration import add_confdir_option, default_log
from tokgate.cli.policy_source import add_policies_option
from tokgate.cli.service.gateway import add_redirect_options, bypass_by_mark, read_mark
from tokgate.config.diagnostics import did_you_mean, listed, near
from tokgate.config.extras import Extra
from tokgate.gate.sockets import Entry
from tokgate.gateway.ruleset import Bypass, Redirect, TableOptions, Tproxy
from tokgate.runtime.banner import drop_what_cannot_be_written, say
from tokgate.service import privileges
from tokgate.service.listeners import EVERYWHERE, MAX_PORT, ListenEndpoint, endpoints, free_port, scrapers_endpoint

DEFAULT_MODE: Final = "gate:explicit"
TPROXY_MODE: Final = "gate:tproxy"
MITMPROXY_MODES: Final = ("regular", "transparent", "socks5", "dns")
"""The first words of mitmproxy's own modes that tokgate can be started in."""
_USER_HINT: Final = "make a user `tokgate` (deploy/README.md), or name one with --user"
_count: Final = whole_number("number of processes", 1, 1024)
_DAY: Final = 86_400
"""Seconds."""
EPILOG: Final = """\
examples:
  tokgate run                                    explicit proxy on 127.0.0.1:8080, policies from ./policies
  tokgate run --mode gate                        clients that `tokgate ruleset` redirects; gates, one a core
  tokgate run --mode gate@8443 --mode gate:explicit@8080
                                                 redirected and explicit clients (gate:tproxy for nftables tproxy)
  tokgate run --mode regular@8080 --mode transparent@8443
                                                 the same by mitmproxy alone: slower, and without gates
  tokgate run --mode dns@192.0.2.53:53 --name-server 203.0.113.53
                                                 resolver for clients that name it: refused names don't exist
  sudo tokgate run --gateway                     all that a gateway needs, kernel included: clients need no settings
  sudo tokgate run --gateway --mode gate:explicit@192.0.2.1:8080
                                                 the same, and an explicit proxy
  sudo tokgate run --gateway --redirect          the same where the kernel has no TPROXY
  sudo tokgate run --gateway --local             this machine's own programs are filtered as well
  sudo tokgate run --mode gate:tproxy --user tokgate
                                                 listens as root may, then is that user, with what the mode needs

SIGHUP reads the policies again. SIGTERM takes no new connections and lets the open ones finish;
a second one ends at once."""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "run", EPILOG)
    parser.add_argument(
        "--mode",
        metavar="MODE[@[HOST:]PORT]",
        action="append",
        help=f"{DEFAULT_MODE} (default), gate, gate:tproxy; or mitmproxy alone, without gates: regular, transparent, "
        "socks5, dns; may be given several times",
    )
    parser.add_argument(
        "--gateway",
        action="store_true",
        help="load nftables rules, policy routes and settings of a Linux gateway, keep them in step with the policy, "
        "and take them out at the end; adds the mode gate:tproxy, on a port that no other mode has",
    )
    add_redirect_options(parser)
    parser.add_argument("--workers", metavar="N", type=_count, help="gates (default: one a core)")
    parser.add_argument(
        "--openers",
        metavar="N",
        type=_count,
        help="mitmproxy processes behind the gates (default: one a core, at least two, at most eight)",
    )
    parser.add_argument("--mark", metavar="N", type=read_mark, help="firewall mark on tokgate's own connections")
    add_policies_option(parser)
    log = default_log()
    parser.add_argument("--log", metavar="FILE", type=Path, default=log, help=f"block log (default: {log})")
    parser.add_argument(
        "--listen-host",
        metavar="H",
        help="address to listen on, '' for every one (default: loopback; every address for redirected clients)",
    )
    parser.add_argument(
        "--listen-port", metavar="P", type=whole_number("port", 0, MAX_PORT), help="port to listen on (default: 8080)"
    )
    add_confdir_option(parser, "folder of the page's authority")
    parser.add_argument(
        "--user",
        metavar="USER",
        help="who to be when started as root, with the capabilities that the modes need (default: `tokgate`, where "
        "that user exists; `root` to stay root)",
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
        type=argument_of(scrapers_endpoint),
        help="serve /metrics (Prometheus) and /healthz there; without HOST on loopback",
    )
    parser.add_argument(
        "--name-server",
        metavar="ADDRESS",
        type=ip_address,
        action="append",
        default=[],
        help="resolver that is asked in dns mode; may be given several times: the "
        "next is asked where one gives no answer (default: the system's)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the proxy until a signal ends it."""
    if args.metrics is not None:
        need(Extra.METRICS)
    drop_what_cannot_be_written()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="tokgate: %(levelname)s: %(message)s")
    if args.gateway:
        need(Extra.GATEWAY)
    modes = _modes(args)
    words = [privileges.kind_of(mode) for mode in modes]
    for mode, word in zip(modes, words, strict=True):
        if word not in ("gate", *MITMPROXY_MODES):
            known = ("gate", "gate:explicit", "gate:tproxy", *MITMPROXY_MODES)
            if word == "wireguard":
                hint = "; phones reach the gateway through its own WireGuard (tokgate phone, docs/phones.md)"
            else:
                hint = did_you_mean(word, known) if near(word, known) else ""
            raise CommandError(f"unknown mode `{mode}`{hint}; there are {listed(known)}", Exit.USAGE)
    if "gate" not in words:
        _leave_root(args, [privileges.port_of(mode, args.listen_port) for mode in modes])
        return _run_mitmproxy(args, modes)
    if {*words} != {"gate"}:
        raise CommandError("gates and mitmproxy's own modes are separate: start tokgate twice", Exit.USAGE)
    try:
        stated = _with_tproxy_port(args, modes) if args.gateway else modes
        places = endpoints(stated, args.listen_host, args.listen_port)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    gateway = _gateway(args, places)
    _leave_root(args, [place.port for place in places], places)
    return _supervise(args, places, gateway)


def _modes(args: argparse.Namespace) -> tuple[str, ...]:
    """The modes, with those that `--gateway` needs."""
    stated = tuple(args.mode or ())
    if not args.gateway:
        if args.redirect is not None or args.local is not None:
            raise CommandError("--redirect and --local are for --gateway", Exit.USAGE)
        return stated or (DEFAULT_MODE,)
    if args.redirect is None and not any(mode.partition("@")[0] == TPROXY_MODE for mode in stated):
        stated = (TPROXY_MODE, *stated)
    redirected = dict.fromkeys(ports for ports in (args.redirect, args.local) if ports is not None)
    return (*(f"gate@{ports}" for ports in redirected), *stated)


def _with_tproxy_port(args: argparse.Namespace, modes: tuple[str, ...]) -> tuple[str, ...]:
    """The modes, with a port for gate:tproxy where none is stated: no client dials it, so it gives way to all others.

    Raises:
        ValueError: a mode is malformed, or two want the same port.
    """
    others = endpoints([mode for mode in modes if mode != TPROXY_MODE], args.listen_host, args.listen_port)
    taken = {place.port for place in others} | ({args.metrics[1]} if args.metrics else set())
    port = free_port(taken, args.listen_port)
    return tuple(f"{TPROXY_MODE}@{port}" if mode == TPROXY_MODE else mode for mode in modes)


def _gateway(args: argparse.Namespace, places: tuple[ListenEndpoint, ...]) -> TableOptions | None:
    """What the kernel is to bring to which port."""
    if not args.gateway:
        return None
    bypass = _bypass(args)
    if args.local is not None and bypass is None:
        raise CommandError(
            "--local needs a user of tokgate's own, or --mark: else its own connections came back to it", Exit.USAGE
        )
    local = None if args.local is None else Redirect(args.local)
    if args.redirect is not None:
        return TableOptions(forwarded=Redirect(args.redirect), local=local, bypass=bypass)
    ports = {place.port for place in places if place.entry is Entry.TPROXY}
    if len(ports) != 1 or 0 in ports:
        raise CommandError("--gateway needs one port for gate:tproxy, as in gate:tproxy@8080", Exit.USAGE)
    if any(place.entry is Entry.TPROXY and place.host not in EVERYWHERE for place in places):
        raise CommandError("--gateway needs gate:tproxy on every address: leave its host out", Exit.USAGE)
    return TableOptions(forwarded=Tproxy(*ports), local=local, bypass=bypass)


def _bypass(args: argparse.Namespace) -> Bypass | None:
    """How tokgate's own connections are told from others of this machine."""
    if args.mark is not None:
        return bypass_by_mark(args.mark)
    try:
        account = None if args.local is None else privileges.account_to_become(args.user)
    except privileges.PrivilegeError as error:
        raise CommandError(str(error)) from error
    uid = os.geteuid() if account is None else account.pw_uid
    return Bypass.by_uid(uid) if args.local is not None and uid else None


def _leave_root(args: argparse.Namespace, ports: list[int], endpoints: Sequence[ListenEndpoint] = ()) -> None:
    """Started as root, go on as a user of our own, before there are threads; or say aloud that it isn't so."""
    try:
        account = privileges.account_to_become(args.user)
        if account is not None:
            confdir = None if args.confdir is None else args.confdir.expanduser()
            places = privileges.Places(args.policies, args.log, confdir)
            running = privileges.needed_to_run(args.mark, endpoints, gateway=args.gateway)
            ports += () if args.metrics is None else [args.metrics[1]]
            privileges.become(account, privileges.needed_to_listen(ports, running), places)
            say(f"running as {account.pw_name}")
        elif os.geteuid() == 0 and args.user is None:
            say(f"WARNING: running as root, and so does all that reads what clients send: {_USER_HINT}")
    except privileges.PrivilegeError as error:
        raise CommandError(str(error)) from error


def _run_mitmproxy(args: argparse.Namespace, modes: tuple[str, ...]) -> int:
    from tokgate.service import mitmproxy_process

    options = mitmproxy_process.RunOptions(
        modes=modes,
        policies=args.policies,
        log=args.log,
        listen_host=args.listen_host,
        listen_port=args.listen_port,
        confdir=args.confdir or DEFAULT_CONFDIR,
        drain=args.drain,
        name_servers=tuple(map(str, args.name_server)),
        metrics=args.metrics,
        mark=args.mark,
    )
    code = asyncio.run(mitmproxy_process.run(options))
    if any(privileges.kind_of(mode) not in ("regular", "transparent", "socks5") for mode in modes):  # it carries UDP
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the threads for that crash in an interpreter that is being taken down; all is written by now
    return code


def _supervise(args: argparse.Namespace, places: tuple[ListenEndpoint, ...], gateway: TableOptions | None) -> int:
    from tokgate.service.child_programs import SuperviseOptions
    from tokgate.service.start import supervise

    cores = len(os.sched_getaffinity(0))
    options = SuperviseOptions(
        endpoints=places,
        policies=args.policies,
        log=args.log,
        confdir=(args.confdir or DEFAULT_CONFDIR).expanduser(),
        workers=args.workers or cores,
        openers=args.openers or min(max(2, cores), 8),
        drain=args.drain,
        mark=args.mark,
        metrics=args.metrics,
        gateway=gateway,
    )
    return supervise(options, say)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < _DAY:
        raise ValueError
    return seconds
