"""`tokgate status`: how a running tokgate is, from its supervisor."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tokgate.cli.exits import CommandError, Exit
from tokgate.proxy.control import ask
from tokgate.proxy.keys import DEFAULT_CONFDIR

EPILOG = """\
examples:
  tokgate status              policy, bans and processes of the tokgate started with the default --confdir
  tokgate status --json       the same for programs

For `tokgate run --mode gate` (not --single). Exit codes: 0 all is well; 1 something needs a person: a policy that could
not be loaded, internal errors, records lost; 3 no tokgate answers."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `status`."""
    summary = "how the running tokgate is: policy, bans, processes"
    parser = subparsers.add_parser("status", help=summary, description=summary, epilog=EPILOG)
    parser.add_argument("--confdir", metavar="DIR", type=Path, help="as given to `tokgate run` (default: ~/.tokgate)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and show."""
    folder = (args.confdir or DEFAULT_CONFDIR).expanduser()
    try:
        state = ask(folder)
    except (OSError, ValueError) as error:
        raise CommandError(f"the tokgate of {folder} does not answer: {error}", Exit.FAILURE) from error
    if state is None:
        raise CommandError(f"no tokgate with gates runs with --confdir {folder}", Exit.FAILURE)
    sys.stdout.write(json.dumps(state) + "\n" if args.json else "\n".join(_lines(state)) + "\n")
    return Exit.DONE if state["ok"] else Exit.FINDINGS


def _lines(state: dict[str, Any]) -> list[str]:
    policy = state["policy"]
    lines = [f"policy {policy['version']}, loaded {policy['loaded_at']}"]
    if policy["error"]:
        lines.append(f"  not in force: {policy['error']}")
    lines.append(f"  next transition: {policy['next_transition'] or 'none'}")
    lines += [
        f"  {ban['phase'] or 'unannounced'}: {ban['ban']} for {', '.join(ban['networks'])}"
        + (f" ({ban['idle']})" if ban["idle"] else "")
        + (" (overdue)" if ban["overdue"] else "")
        for ban in policy["bans"]
    ]
    for worker in state["workers"]:
        report = worker["report"]
        words = [f"{worker['name']} pid {worker['pid']}, up {worker['seconds']:.0f} s"]
        if worker["version"]:
            words.append(f"policy {worker['version']}" + (" (ending)" if worker["retired"] else ""))
        if report:
            words.append(f"{report['connections']} connections of {report['clients']} clients")
            words += [f"{number} × {what}" for what, number in report["errors"].items()]
            words += [f"{report[key]} {said}" for key, said in _TROUBLE.items() if report[key]]
        lines.append(", ".join(words))
    return lines


_TROUBLE = {
    "refused_at_limit": "refused at a limit",
    "not_handed_over": "not handed over",
    "records_dropped": "records dropped",
    "timeouts": "silent clients closed",
    "loops": "loops refused",
}
