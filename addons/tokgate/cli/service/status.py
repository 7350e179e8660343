"""`tokgate status`: the state of the running tokgate."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

from tokgate.blocklog.records.record import counted
from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.exits import Exit
from tokgate.cli.service.running import add_confdir_option, ask_running
from tokgate.gateway.canary.canary import CanaryOrigin
from tokgate.policy.values.text import readable
from tokgate.runtime.control_socket import ControlRequest
from tokgate.runtime.status import Condition, has_trouble
from tokgate.service.doctor.probes import unanswered

_FRACTION: Final = re.compile(r"(?<=T\d\d:\d\d:\d\d)\.\d+(?=Z)")
_PATIENCE: Final = 3.0
"""Seconds for the answer to a probe."""
_ASKED_FROM: Final = {
    CanaryOrigin.NAMESPACE: "a network namespace of its own",
    CanaryOrigin.MACHINE: "this machine itself",
}
EPILOG = """\
examples:
  tokgate status              policy, bans and processes of the tokgate started with the default --confdir
  tokgate status --json       the same for programs
  tokgate status --probe      a health check: the proxy itself is asked as well

Whatever the mode; of `mitmdump -s addons/tokgate_addon.py`, with --confdir ~/.mitmproxy. Exit codes: 0 all is well;
1 something needs a person: a process that hangs, keeps dying or is at its limit, a policy that could not be loaded,
a ban that is held back, internal errors, records lost, a log that can't be written; 3 no tokgate answers."""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "status", EPILOG)
    add_confdir_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also ask the gates for something, where they listen for explicit clients; it leaves no record",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Request the status and print it. Exit code 1 if an operator is needed."""
    state = ask_running(args.confdir, ControlRequest.STATUS)
    if args.probe and (silent := list(unanswered(state["listening"], _PATIENCE))):
        state["problems"] += silent
        state["ok"] = False
    sys.stdout.write(json.dumps(state) + "\n" if args.json else "\n".join(map(_shown, _lines(state))) + "\n")
    return Exit.DONE if state["ok"] else Exit.FINDINGS


def _shown(line: str) -> str:
    """A line for a terminal; nobody reads fractions of seconds."""
    return _FRACTION.sub("", readable(line))


def _lines(state: dict[str, Any]) -> Iterator[str]:
    policy = state["policy"]
    attention = [*state["problems"], *_held(policy["held"]), *_troubled(state["workers"])]
    yield from (f"needs attention: {each}" for each in attention)
    if state["ok"]:
        yield "all is well"
    yield f"policy {policy['version']}, loaded {policy['loaded_at']}"
    if policy["restart_needed"]:
        yield f"  only after a restart: {', '.join(policy['restart_needed'])}"
    taken = policy.get("catalogue")
    if taken:
        yield f"  from the catalogue, version {taken['version']}: {', '.join(taken['services'])}"
    yield f"  next transition: {policy['next_transition'] or 'none'}"
    for ban in policy["bans"]:
        phase = ban["phase"] or "unannounced"
        idle = f" ({ban['idle']})" if ban["idle"] not in (None, phase) else ""
        overdue = " (overdue)" if ban["overdue"] else ""
        held = " (held)" if ban["held"] else ""
        yield f"  {phase}: {ban['ban']} for {', '.join(ban['networks'])}{idle}{overdue}{held}"
        for term in ban["extends"]:
            yield f"    extends {term['ban']}, from {term['starts']} to {term['ends'] or 'no end'}"
        if ban["extended_by"]:
            yield f"    extended by {', '.join(ban['extended_by'])}"
    if state["gateway"] is not None:
        yield from _gateway(state["gateway"])
    for worker in state["workers"]:
        yield ", ".join(_words(worker))


def _held(names: list[str]) -> Iterator[str]:
    for name in names:
        yield f"the ban {name} is held, since the files no longer state it: state it, or tokgate reload --lift {name}"


def _troubled(workers: list[dict[str, Any]]) -> Iterator[str]:
    """The processes that failed inside, lost records or can't write the log, with what they say of it."""
    for worker in workers:
        if has_trouble(worker["report"]):
            yield f"{worker['name']}: {', '.join(_reported(worker['report']))}"


def _gateway(gateway: dict[str, Any]) -> Iterator[str]:
    """The kernel's part, where tokgate keeps it."""
    due = "" if gateway["until"] is None else f", another one is due at {gateway['until']}"
    yield f"gateway: table {gateway['table']} of policy {gateway['policy']}, loaded {gateway['loaded_at']}{due}"
    yield from (f"  {problem}" for problem in gateway["problems"])
    canary = gateway["canary"]
    if canary is not None and canary["unavailable"] is not None:
        yield f"  no canary: {canary['unavailable']}"
    elif canary is not None and canary["at"] is not None:
        said = "all well" if canary["ok"] else "failed"
        yield f"  canary: {said} at {canary['at']}, asked from {_ASKED_FROM[canary['asks_from']]}"
    refused = [f"{kind} {number}" for kind, number in gateway["refused"].items() if number]
    if refused:
        yield f"  packets that the kernel refused, and no gate saw: {', '.join(refused)}"


def _words(worker: dict[str, Any]) -> Iterator[str]:
    """A worker's report in words. A gate reports more than an opener, a collector nothing."""
    yield f"{worker['name']} pid {worker['pid']}, up {_age(worker['seconds'])}"
    if worker["version"]:
        yield f"policy {worker['version']}"
    if worker["condition"] != Condition.SERVING:
        yield worker["condition"]
    report = worker["report"]
    if "connections" in report:
        clients = f" of {counted(report['clients'], 'client')}" if "clients" in report else ""
        yield counted(report["connections"], "connection") + clients
    yield from _reported(report)


def _age(seconds: float) -> str:
    """How long, in the largest unit of which there are three."""
    for length, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 3 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _reported(report: dict[str, Any]) -> Iterator[str]:
    """What a process has to tell beside its connections."""
    yield from (f"{counted(number, 'internal error')} in {what}" for what, number in report.get("errors", {}).items())
    yield from (f"{report[key]} {said}" for key, said in _TROUBLE.items() if report.get(key))
    yield from (f"{said}: {report[key]}" for key, said in _ERRORS.items() if report.get(key))


_TROUBLE: Final = {
    "refused_at_limit": "connections refused at a limit",
    "not_handed_over": "connections that no opener took",
    "records_dropped": "records lost",
    "timeouts": "silent clients closed",
    "loops": "connections refused on their way to the proxy itself",
}
_ERRORS: Final = {
    "last_error": "the latest error",
    "log_error": "the log can't be written",
    "policy_error": "the newest policy can't be read",
}
