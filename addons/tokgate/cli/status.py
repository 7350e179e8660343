"""`tokgate status`: how a running tokgate is."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any, Final

from tokgate.blocklog.wording import counted
from tokgate.cli.commands import COMMANDS
from tokgate.cli.exits import Exit
from tokgate.cli.running import add_confdir_option, ask_running
from tokgate.proxy.control import Request

EPILOG = """\
examples:
  tokgate status              policy, bans and processes of the tokgate started with the default --confdir
  tokgate status --json       the same for programs

Whatever the mode; of `mitmdump -s addons/tokgate_addon.py`, with --confdir ~/.mitmproxy. Exit codes: 0 all is well;
1 something needs a person: a policy that could not be loaded, internal errors, records lost, a log that can't be
written; 3 no tokgate answers."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `status`."""
    summary = COMMANDS["status"]
    parser = subparsers.add_parser("status", help=summary, description=summary, epilog=EPILOG)
    add_confdir_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and show."""
    state = ask_running(args.confdir, Request.STATUS)
    sys.stdout.write(json.dumps(state) + "\n" if args.json else "\n".join(_lines(state)) + "\n")
    return Exit.DONE if state["ok"] else Exit.FINDINGS


def _lines(state: dict[str, Any]) -> Iterator[str]:
    policy = state["policy"]
    yield f"policy {policy['version']}, loaded {policy['loaded_at']}"
    if policy["error"]:
        yield f"  not in force: {policy['error']}"
    if policy["restart_needed"]:
        yield f"  only after a restart: {', '.join(policy['restart_needed'])}"
    yield f"  next transition: {policy['next_transition'] or 'none'}"
    for ban in policy["bans"]:
        phase = ban["phase"] or "unannounced"
        idle = f" ({ban['idle']})" if ban["idle"] not in (None, phase) else ""
        overdue = " (overdue)" if ban["overdue"] else ""
        yield f"  {phase}: {ban['ban']} for {', '.join(ban['networks'])}{idle}{overdue}"
    for worker in state["workers"]:
        yield ", ".join(_words(worker))


def _words(worker: dict[str, Any]) -> Iterator[str]:
    """What there is to say of a worker; a gate's report has more than an opener's, and a collector has none."""
    yield f"{worker['name']} pid {worker['pid']}, up {worker['seconds']:.0f} s"
    if worker["version"]:
        yield f"policy {worker['version']}" + (" (ending)" if worker["retired"] else "")
    report = worker["report"]
    if "connections" in report:
        clients = f" of {counted(report['clients'], 'client')}" if "clients" in report else ""
        yield counted(report["connections"], "connection") + clients
    yield from (f"{number} × {what}" for what, number in report.get("errors", {}).items())
    yield from (f"{report[key]} {said}" for key, said in _TROUBLE.items() if report.get(key))
    yield from (f"{said}: {report[key]}" for key, said in _ERRORS.items() if report.get(key))


_TROUBLE: Final = {
    "refused_at_limit": "refused at a limit",
    "not_handed_over": "not handed over",
    "records_dropped": "records dropped",
    "timeouts": "silent clients closed",
    "loops": "refused on their way to the proxy itself",
}
_ERRORS: Final = {
    "last_error": "the latest error",
    "log_error": "the log can't be written",
    "policy_error": "its policy",
}
