"""`tokgate reload` and `tokgate restart`: have the running tokgate read its policy, or go on as the program on disk."""

import argparse
import sys
from collections.abc import Iterator
from typing import Final, NotRequired, TypedDict, cast

from tokgate.blocklog.records.record import counted
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command
from tokgate.cli.configuration import add_confdir_option
from tokgate.cli.service.status import ask_running
from tokgate.cli.terminal import narrate, print_json, print_lines, visible, wants_color, you
from tokgate.config.diagnostics import Code, Diagnostic, Level, render
from tokgate.policy.values import Origin
from tokgate.runtime.control_socket import Call, ControlRequest
from tokgate.service.reload_answer import ReloadAnswer, SourceDiagnostic

_RELOAD_EPILOG = """\
examples:
  tokgate reload              read the policy now, wait until every worker has it, show what changed
  tokgate reload --json       the same for programs
  tokgate reload --lift tiktok-2023
                              also lift this ban, which vanished from the files and is held back

A running tokgate also reads its policy when a file changes: what is in force already is shown with the change that
brought it. Exit codes: 0 in force; 1 the policy has errors, the last good one stays; 3 no tokgate answers, or a worker
does not take the policy over. A ban that is held back, or not to be lifted since it isn't, makes 1, too."""
_MARKS: Final = {"added": "+", "removed": "-", "changed": "~"}


class Restarted(TypedDict):
    """`tokgate restart --json`. Either `problems` says why all stays as it is, or the other keys say what serves now.

    `moves`: open connections went to the new program.
    """

    ok: bool
    problems: NotRequired[str]
    before: NotRequired[str]
    version: NotRequired[str]
    moves: NotRequired[bool]


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "reload", _RELOAD_EPILOG)
    add_confdir_option(parser, "as given to `tokgate run`")
    parser.add_argument(
        "--lift", metavar="BAN", action="append", default=[],
        help="lift a ban that is held back since the files no longer state it; repeatable",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Request a reload, wait until all workers have it, and print the result."""
    call = Call(ControlRequest.RELOAD, tuple(args.lift), you() if args.lift else "")
    answer = cast("ReloadAnswer", ask_running(args.confdir, call, lambda text: narrate(f"tokgate: {text}")))
    if args.json:
        print_json(answer)
    else:
        print_lines(_lines(answer, wants_color(sys.stdout)))
        if not answer["read"]:
            narrate(f"tokgate: policy {answer['version']} stays in force")
        elif answer["diagnostics"]:
            narrate(f"tokgate: {counted(len(answer['diagnostics']), 'warning')}: tokgate check")
    for name in answer["not_held"]:
        narrate(f"tokgate: no ban {visible(name)} is held back: nothing to lift")
    if not answer["read"] or answer["bans"]["held"] or answer["not_held"]:
        return Exit.FINDINGS
    return Exit.DONE if answer["ok"] else Exit.FAILURE


def _lines(answer: ReloadAnswer, color: bool) -> Iterator[str]:
    if not answer["read"]:
        yield from (render(_diagnostic(each), color=color) for each in answer["diagnostics"])
        return
    old, new = answer["before"], answer["version"]
    since = f", in force since {answer['since']}" if answer["unchanged"] else ""
    yield f"policy {new}{since}" if old == new else f"policy {old} -> {new}{since}"
    yield from _changes(answer)
    bans = answer["bans"]
    for what, names in (("begun", bans["begun"]), ("ended", bans["ended"]), ("lifted", bans["lifted"])):
        if names:
            yield f"bans {what}: {', '.join(map(visible, names))}"
    for name in map(visible, answer["bans"]["held"]):
        yield f"held, since the files no longer state it: {name} (say why under `lifted`, or reload --lift {name})"
    if answer["revision"]:
        since = ", and uncommitted changes" if answer["revision"]["uncommitted"] else ""
        yield f"written by {visible(answer['revision']['author'])} ({answer['revision']['commit']}){since}"
    if answer["workers"]:
        yield f"in force in {', '.join(answer['workers'])}"
    if answer["missing"]:
        yield f"not taken over by {', '.join(answer['missing'])}"
    if answer["gateway"] is not None:
        yield f"in the kernel: table {answer['gateway']['table']} of policy {answer['gateway']['policy']}"
        yield from (f"  {problem}" for problem in answer["gateway"]["problems"])
    if answer["restart_needed"]:
        yield f"only after a restart: {', '.join(answer['restart_needed'])}"


def _changes(answer: ReloadAnswer) -> Iterator[str]:
    for change in answer["changes"]:
        what = f": {', '.join(map(visible, change['what']))}" if change["what"] else ""
        yield f"  {_MARKS[change['how']]} {change['section']} {visible(change['name'])}{what}"
    if answer["more_changes"]:
        yield f"  and {answer['more_changes']} more"
    for each in map(visible, answer["weaker_settings"]):
        yield f"a setting now lets more pass than before: {each}"
    if answer["before"] != answer["version"] and not (answer["changes"] or answer["bans"]["held"]):
        yield "  only words that decide nothing"


def _diagnostic(said: SourceDiagnostic) -> Diagnostic:
    origin = Origin(said["file"], said["line"], said["column"])
    return Diagnostic(Level(said["level"]), origin, said["message"], Code(said["code"]), said["source"], said["length"])


_RESTART_EPILOG = """\
examples:
  tokgate restart             after an upgrade, or a change of settings that need a restart
  tokgate restart --json      the same for programs

The running tokgate tries the program on disk with its policy, and then goes on as that program, in the same process and
with the same options. Listeners stay open, and open connections go to the new gates. Exit codes: 0 the new program
serves; 1 it does not run, or finds errors in the policy: all stays as it is; 3 no tokgate answers."""


def add_restart(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "restart", _RESTART_EPILOG)
    add_confdir_option(parser, "as given to `tokgate run`")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=restart)


def restart(args: argparse.Namespace) -> int:
    """Request a restart, wait until the new program serves, and print the result."""
    answer = ask_running(args.confdir, ControlRequest.RESTART, lambda text: narrate(f"tokgate: {text}"))
    if args.json:
        print_json(answer)
    if not answer["ok"]:
        if args.json:
            return Exit.FINDINGS
        raise CommandError(f"not restarted, all stays as it is: {answer['problems']}", Exit.FINDINGS)
    if not args.json:
        before = "" if answer["before"] == answer["version"] else f"{answer['before']} -> "
        sys.stdout.write(f"tokgate {before}{answer['version']} serves\n")
        if not answer["moves"]:
            sys.stdout.write("open connections stay with the gates of the version before until they end\n")
    return Exit.DONE
