"""`tokgate restart`: have the program on disk take over from the running one; no connection is refused or ended."""

import argparse
import json
import sys

from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.service.running import add_confdir_option, ask_running
from tokgate.cli.terminal import narrate
from tokgate.runtime.control_socket import ControlRequest

EPILOG = """\
examples:
  tokgate restart             after an upgrade, or a change of settings that need a restart
  tokgate restart --json      the same for programs

The running tokgate tries the program on disk with its policy, and then goes on as that program, in the same process and
with the same options. Listeners stay open, and open connections go to the new gates. Exit codes: 0 the new program
serves; 1 it does not run, or finds errors in the policy: all stays as it is; 3 no tokgate answers."""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "restart", EPILOG)
    add_confdir_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Request a restart, wait until the new program serves, and print the result."""
    answer = ask_running(args.confdir, ControlRequest.RESTART, lambda text: narrate(f"tokgate: {text}"))
    if args.json:
        sys.stdout.write(json.dumps(answer) + "\n")
    if not answer["ok"]:
        if args.json:
            return Exit.FINDINGS
        raise CommandError(f"not restarted, all stays as it is: {answer['problems']}", Exit.FINDINGS)
    if not args.json:
        how = (
            f"tokgate {answer['version']}"
            if answer["before"] == answer["version"]
            else f"tokgate {answer['before']} -> {answer['version']}"
        )
        sys.stdout.write(f"{how} serves\n")
        if not answer["moves"]:
            sys.stdout.write("open connections stay with the gates of the version before until they end\n")
    return Exit.DONE
