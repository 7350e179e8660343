"""`tokgate status`: the state of the running tokgate, which is found by its folder."""

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypedDict

from tokgate.blocklog.records.record import counted
from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.configuration import add_confdir_option
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.terminal import print_json, print_lines
from tokgate.gate.sockets import Entry
from tokgate.gateway.canary.canary import CanaryOrigin
from tokgate.policy.decision import Phase
from tokgate.policy.observation import KernelRefusal
from tokgate.policy.values.text import readable
from tokgate.runtime.control_socket import NAME, Call, ControlRequest, ask
from tokgate.runtime.status import Condition, has_trouble
from tokgate.service.doctor.probes import unanswered
from tokgate.service.privileges import confdir_of_running

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


class TakenServices(TypedDict):
    """Services from the catalogue inside the package, and its version."""

    version: str
    services: list[str]


class TermStatus(TypedDict):
    """The term of a ban that another extends, in one time zone; `ends` is null where it has no end."""

    ban: str
    starts: str
    ends: str | None


class BanStatus(TypedDict):
    """A ban in the networks of one time zone. `idle` says why it does not apply although its phase would.

    `held`: the files no longer state it, and nobody has lifted it. `extends` has the earlier bans, the first first.
    """

    ban: str
    zone: str
    networks: list[str]
    phase: Phase | None
    idle: str | None
    overdue: bool
    held: bool
    extends: list[TermStatus]
    extended_by: list[str]
    next: str | None
    ends: str | None


class PolicyStatus(TypedDict):
    """The policy in force; `error` is why what the files state is not, `errors` are all that say so, at most 20."""

    version: str
    loaded_at: str
    error: str | None
    errors: list[str]
    error_since: str | None
    restart_needed: list[str]
    next_transition: str | None
    held: list[str]
    catalogue: TakenServices | None
    bans: list[BanStatus]


class WorkerStatus(TypedDict):
    """A process. The keys of `report` depend on what it does; docs/admin.md has those to watch."""

    name: str
    pid: int
    seconds: float
    version: str | None
    retired: bool
    condition: Condition
    report: dict[str, object]


class GatewayDifferences(TypedDict):
    """How the kernel differs now from what it should be, in sentences, by part."""

    table: list[str]
    routes: list[str]
    settings: list[str]
    listeners: list[str]
    conflicts: list[str]


class GatewayRestored(TypedDict):
    """How often the kernel's part was put back, when last, and what differed then."""

    count: int
    at: str | None
    what: list[str]


class CanaryStatus(TypedDict):
    """The gateway's canary: `ok` unless two probes in a row failed; `at` of the last probe that says so.

    `asks_from`: a network namespace of its own, or the machine itself where none can be made; null before such a probe.
    `unavailable` is why there can be none, and then nothing is known.
    """

    ok: bool
    at: str | None
    seconds: int
    problems: list[str]
    asks_from: CanaryOrigin | None
    unavailable: str | None


class GatewayStatus(TypedDict):
    """The kernel's part of a gateway. `ok`: nothing differs, nor did in the last two minutes.

    `refused` are packets that the kernel refused since tokgate's start, and no gate saw.
    """

    ok: bool
    table: str
    policy: str | None
    loaded_at: str
    until: str | None
    problems: list[str]
    differences: GatewayDifferences
    restored: GatewayRestored
    refused: dict[KernelRefusal, int]
    canary: CanaryStatus | None


class ListenerStatus(TypedDict):
    """Where gates listen; `entry` says how clients come there."""

    entry: Entry
    host: str
    port: int


class Status(TypedDict):
    """`tokgate status --json`. `ok`: no operator is needed; `problems`: what can't do its work now, in sentences.

    `listening` has the listeners of gates that are processes of their own.
    """

    ok: bool
    problems: list[str]
    at: str
    listening: list[ListenerStatus]
    policy: PolicyStatus
    gateway: GatewayStatus | None
    workers: list[WorkerStatus]


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
    state = ask_running(args.confdir, ControlRequest.STATUS)
    if args.probe and (silent := list(unanswered(state["listening"], _PATIENCE))):
        state["problems"] += silent
        state["ok"] = False
    if args.json:
        print_json(state)
    else:
        print_lines(map(_shown, _lines(state)))
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
_MITMPROXY: Final = Path("~/.mitmproxy")
"""The folder of mitmproxy, and so of the addon in a plain mitmproxy, unless it is told another."""


def ask_running(
    confdir: Path | None, request: ControlRequest | Call, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """The answer of the running tokgate. If none answers, the command ends with exit code 3."""
    folder = confdir_of_running(NAME) if confdir is None else confdir.expanduser()
    try:
        answer = ask(folder, request, progress)
    except (OSError, ValueError) as error:
        raise CommandError(f"the tokgate of {folder} does not answer: {error}", Exit.FAILURE) from error
    if answer is None:
        beside = confdir is None and (_MITMPROXY.expanduser() / NAME).exists()
        hint = f"; the addon in mitmproxy has --confdir {_MITMPROXY}" if beside else ""
        raise CommandError(f"no tokgate runs with --confdir {folder}{hint}", Exit.FAILURE)
    return answer
