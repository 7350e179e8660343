"""`tokgate status`: the state of the running tokgate, which is found by its folder."""

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.records.record import counted
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command
from tokgate.cli.configuration import add_confdir_option
from tokgate.cli.terminal import print_json, print_lines
from tokgate.gateway.canary.canary import CanaryOrigin
from tokgate.policy.values.text import readable
from tokgate.runtime.banner import written
from tokgate.runtime.control_socket import NAME, Call, ControlRequest, ask
from tokgate.service import last_state
from tokgate.service.privileges import confdir_of_running
from tokgate.service.status import Condition, GatewayStatus, Status, WorkerStatus, has_trouble

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
    add_confdir_option(parser, "as given to `tokgate run`")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also ask the gates for something, where they listen for explicit clients; it leaves no record",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Request the status and print it. Exit code 1 if an operator is needed."""
    state = running_status(args.confdir)
    if args.probe:
        from tokgate.service.doctor.probes import unanswered  # takes a tenth of a second, of which there are ten

        state["problems"] += unanswered(state["listening"], _PATIENCE)
        state["ok"] = state["ok"] and not state["problems"]
    if args.json:
        print_json(state)
    else:
        print_lines(_FRACTION.sub("", readable(line)) for line in _lines(state))  # nobody reads fractions of seconds
    return Exit.DONE if state["ok"] else Exit.FINDINGS


def _lines(state: Status) -> Iterator[str]:
    policy = state["policy"]
    yield from _first(state)
    yield f"policy {policy['version']} of {policy['files']}, loaded {policy['loaded_at']}"
    for each in state["listening"]:
        yield f"  {each['entry']} clients on {written(each['host'], each['port'])}"
    yield from (f"  {error}" for error in policy["errors"][1:])
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
    for exempt in policy["exempt"]:
        by = "" if exempt["by"] is None else f" by {exempt['by']}"
        what = f"{'override' if exempt['override'] else 'exemption'} {exempt['name']}{by}"
        yield f"  {what}: {', '.join(exempt['whom'])} from {exempt['ban']} until {exempt['until']}"
    if state["gateway"] is not None:
        yield from _gateway(state["gateway"])
    for worker in state["workers"]:
        yield ", ".join(_words(worker))


def _first(state: Status) -> Iterator[str]:
    """What somebody has to do, whom exemptions open, and whether bans are in force."""
    policy = state["policy"]
    yield from (f"needs attention: {each}" for each in state["problems"])
    for name in policy["held"]:
        why = "since the files no longer state it: state it, or tokgate reload --lift"
        yield f"needs attention: the ban {name} is held, {why} {name}"
    for worker in state["workers"]:
        if has_trouble(worker["report"]):  # failed inside, lost records, or can't write the log
            yield f"needs attention: {worker['name']}: {', '.join(_reported(worker['report']))}"
    yield from policy["open"]
    if state["busy"] is not None:
        yield f"busy: {state['busy']['what']}, since {state['busy']['since']}"
    if state["known"] != "now":
        yield f"the supervisor does not answer now: this is what it knew at {state['known']}"
    sound = state["ok"] and not policy["open"] and state["known"] == "now"
    yield f"all is well, and {policy['in_force']}" if sound else policy["in_force"]


def _gateway(gateway: GatewayStatus) -> Iterator[str]:
    """The kernel's part, where tokgate keeps it."""
    due = "" if gateway["until"] is None else f", another one is due at {gateway['until']}"
    yield f"gateway: table {gateway['table']} of policy {gateway['policy']}, loaded {gateway['loaded_at']}{due}"
    yield from (f"  {problem}" for problem in gateway["problems"])
    canary = gateway["canary"]
    if canary is not None and canary["unavailable"] is not None:
        yield f"  no canary: {canary['unavailable']}"
    elif canary is not None and canary["at"] is not None:
        said, origin = "all well" if canary["ok"] else "failed", canary["asks_from"]
        where = "" if origin is None else f", asked from {_ASKED_FROM[origin]}"
        yield f"  canary: {said} at {canary['at']}{where}"
    refused = [f"{kind} {number}" for kind, number in gateway["refused"].items() if number]
    if refused:
        yield f"  packets that the kernel refused, and no gate saw: {', '.join(refused)}"


def _words(worker: WorkerStatus) -> Iterator[str]:
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
_MITMPROXY: Final = Path("~/.mitmproxy")
"""The folder of mitmproxy, and so of the addon in a plain mitmproxy, unless it is told another."""


def running_status(confdir: Path | None) -> Status:
    """The state of the running tokgate, within a second: where it does not answer, what it wrote last."""
    return _answer(confdir, lambda folder: last_state.status_of(folder, Instant.now()))


def ask_running(
    confdir: Path | None, request: ControlRequest | Call, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """The answer of the running tokgate. If none answers, the command ends with exit code 3."""
    return _answer(confdir, lambda folder: ask(folder, request, progress))


def _answer[T](confdir: Path | None, asks: Callable[[Path], T | None]) -> T:
    folder = confdir_of_running(NAME) if confdir is None else confdir.expanduser()
    try:
        answer = asks(folder)
    except (OSError, ValueError, last_state.Unanswered) as error:
        raise CommandError(f"the tokgate of {folder} does not answer: {error}", Exit.FAILURE) from error
    if answer is None:
        beside = confdir is None and (_MITMPROXY.expanduser() / NAME).exists()
        hint = f"; the addon in mitmproxy has --confdir {_MITMPROXY}" if beside else ""
        raise CommandError(f"no tokgate runs with --confdir {folder}{hint}", Exit.FAILURE)
    return answer
