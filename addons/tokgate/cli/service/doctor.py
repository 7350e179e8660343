"""`tokgate doctor`: what keeps tokgate on this machine from doing its work, and what to do about it."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final, TypedDict

from whenever import Instant

from tokgate.cli.commands import Exit, Subparsers, add_command, need
from tokgate.cli.configuration import add_confdir_option, default_log
from tokgate.cli.policy_source import add_policies_option
from tokgate.cli.terminal import print_json
from tokgate.config.extras import Extra
from tokgate.config.loader import load
from tokgate.gate.sockets import Entry
from tokgate.gateway.ruleset import TableOptions, Tproxy, ruleset_of
from tokgate.policy.snapshot import compile_policy
from tokgate.policy.values.text import readable
from tokgate.runtime.control_socket import NAME, ControlRequest, ask
from tokgate.service.doctor import Result, installation, kernel, probes
from tokgate.service.privileges import confdir_of_running

DEFAULT_PROBE: Final = "www.example.com"
EPILOG = """\
examples:
  tokgate doctor              the running tokgate, authority, log and disk, clock, DNS, parent proxies, probes
  sudo tokgate doctor --gateway --policies /etc/tokgate/policies --log /var/log/tokgate/block.ndjson
                              the kernel's part as well: forwarding, connection tracking, rules and routes, the
                              next start

The probes ask for an allowed and a banned name through the explicit proxy, if there is one, and leave their records in
the log. Exit codes: 0 nothing was found; 1 something was, each with what to do."""


class ExaminedPart(TypedDict):
    """What was looked at, and what was seen; `remedy` is null where all is well."""

    subject: str
    said: str
    remedy: str | None
    ok: bool


class Examined(TypedDict):
    """`tokgate doctor --json`."""

    ok: bool
    results: list[ExaminedPart]


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "doctor", EPILOG)
    add_policies_option(parser)
    log = default_log()
    parser.add_argument("--log", metavar="FILE", type=Path, default=log, help=f"block log (default: {log})")
    add_confdir_option(parser, "as given to `tokgate run`")
    parser.add_argument("--gateway", action="store_true", help="also what a gateway needs of the kernel")
    parser.add_argument(
        "--allowed", metavar="NAME", default=DEFAULT_PROBE, help=f"the name to be reached (default: {DEFAULT_PROBE})"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine, and print what was seen. Exit code 1 if anything needs to be done."""
    if args.gateway:
        need(Extra.GATEWAY)
    results = list(_examined(args))
    found = [each for each in results if each.remedy is not None]
    if args.json:
        print_json({"ok": not found, "results": [asdict(each) | {"ok": each.remedy is None} for each in results]})
    else:
        for each in results:
            sys.stdout.write(readable(f"{'!' if each.remedy else ' '} {each.subject}: {each.said}") + "\n")
            if each.remedy:
                sys.stdout.write(readable(f"    {each.remedy}") + "\n")
    return Exit.FINDINGS if found else Exit.DONE


def _examined(args: argparse.Namespace) -> Iterator[Result]:
    now = Instant.now()
    loaded = load(args.policies, now)
    snapshot = None if loaded.policy is None else compile_policy(loaded.policy)
    confdir = confdir_of_running(NAME) if args.confdir is None else args.confdir.expanduser()
    try:
        state = ask(confdir, ControlRequest.STATUS, longest=installation.PATIENCE)
    except (OSError, ValueError) as error:
        yield installation.silent(error)
        state = None
    else:
        yield from installation.running(state, snapshot)
    if snapshot is None:
        yield installation.invalid(loaded.errors, args.policies)
    else:
        yield from installation.authority(confdir, snapshot, now)
        yield from installation.disk(args.log, snapshot)
    yield kernel.clock()
    if args.gateway:
        yield from kernel.gateway(installation.most_connections(state, snapshot))
    if args.gateway and snapshot is not None:
        listening = () if state is None else state.get("listening", ())
        ports = [place["port"] for place in listening if place["entry"] == Entry.TPROXY]
        rules = ruleset_of(snapshot, now, TableOptions(forwarded=Tproxy(ports[0])) if ports else TableOptions())
        yield from kernel.loaded(rules, confdir)
        if isinstance(rules.options.forwarded, Tproxy) and snapshot.settings.egress.client:
            yield from probes.way_back(rules, args.allowed)
    yield probes.resolution(args.allowed)
    if snapshot is not None:
        yield from probes.parents(snapshot.settings.upstream, args.allowed)
    if snapshot is not None and state is not None:
        yield from probes.proxy(state.get("listening", ()), snapshot, args.allowed, now)
