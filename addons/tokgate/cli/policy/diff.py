"""`tokgate diff`: the differences between two policies, and their effect on recorded traffic."""

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.analytics.sources import each_line_once
from tokgate.blocklog.paths import PACKED, PARQUET
from tokgate.blocklog.read.reader import Junk
from tokgate.cli.arguments import add_span_options, common_zone, settle, span_of, time_argument, whole_number
from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.log.source import tell_of
from tokgate.cli.log.verify_files import opener_of
from tokgate.cli.policy.differences import Differences, compare, document, text
from tokgate.cli.policy.replay import Replay, read_flows, read_log
from tokgate.cli.policy.simulate import QueryReader
from tokgate.cli.policy_source import SOURCE, open_source
from tokgate.cli.terminal import Patience, narrate, print_json, print_lines, visible, wants_color
from tokgate.policy.snapshot import Snapshot

_PACKED: Final = {*PACKED, PARQUET}
_MOST_EXAMPLES: Final = 10_000
EPILOG = """\
examples:
  tokgate diff HEAD:policies policies               what the edits in the work tree change in the year to come
  tokgate diff main:policies policies --from 2023-01-01 --to 2024-01-01
  tokgate diff old/ new/ --log block.ndjson         for the events in the log
  tokgate diff old/ new/ --flows flows.ndjson --at 2023-03-10T08:00+01:00
                                                    for all traffic, as if it came at that time
  tokgate diff HEAD:policies policies --exit-code   for scripts: 1 when anything differs

OLD and NEW are folders or files, or REV:DIR for a folder in a git revision (DIR relative to where you are).
Without --log and --flows the policies are compared by themselves: which service changes its verdict in which network,
from when until when (a client in several networks gets the strictest of them); who becomes or ceases to be exempt; what
each definition says more (+) or less (-). With --log and --flows traffic is decided by both policies as well. Flows
are lines as `tokgate simulate` takes them, with `at` unless --at is given. The block log names no allowed traffic, so
it can show what becomes allowed, not what becomes blocked: that takes flows.

The exit code is 0 whether or not anything differs, unless --exit-code is given."""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "diff", EPILOG)
    parser.add_argument("old", metavar="OLD", help=f"the policies as they were: {SOURCE}")
    parser.add_argument("new", metavar="NEW", help=f"the policies as they would be: {SOURCE}")
    add_span_options(parser)
    parser.add_argument("--log", nargs="+", action="extend", default=[], type=Path, metavar="FILE",
                        help="decide the events of block logs again, those rotated away included")  # fmt: skip
    parser.add_argument("--flows", nargs="+", action="extend", default=[], metavar="FILE",
                        help="decide these flows (NDJSON), - for standard input")  # fmt: skip
    parser.add_argument("--at", type=time_argument, metavar="TIME",
                        help="decide all traffic at this time, not at its own")  # fmt: skip
    parser.add_argument(
        "--top",
        type=whole_number("number of rows", 1, _MOST_EXAMPLES),
        default=5,
        metavar="N",
        help="rows of each table (default: 5)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--exit-code", action="store_true", help="exit 1 when anything differs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare two policies, replay traffic with both, and print the differences."""
    now = Instant.now().round("second", mode="floor")
    old, new = open_source(options.old, now), open_source(options.new, now)
    within = span_of(options, common_zone(new.policy.networks.values()), now)
    differences = compare(old, new, within)
    replay = _replay(options, old, new) if options.log or options.flows else None
    if options.json:
        print_json(document(options.old, options.new, differences, replay, options.top))
    else:
        lines = text(options.old, options.new, differences, replay, options.top, wants_color(sys.stdout))
        print_lines(lines)
    _tell(differences, replay)
    found = differences.any or (replay is not None and replay.changed > 0)
    return Exit.FINDINGS if options.exit_code and found else Exit.DONE


def _replay(options: argparse.Namespace, old: Snapshot, new: Snapshot) -> Replay:
    """Decide all traffic with both policies, with progress on a terminal."""
    at = None if options.at is None else settle(options.at, common_zone(new.policy.networks.values()))
    replay = Replay(old, new, at)
    logs = each_line_once(options.log)
    for path in logs:
        if not path.exists():
            raise CommandError(f"there is no log at {visible(str(path))}")
    plain = [file for file in options.flows if file != "-"] + [path for path in logs if path.suffix not in _PACKED]
    total = sum(Path(file).stat().st_size for file in plain)
    known = len(plain) == len(options.flows) + len(logs)
    done = 0
    with Patience("replaying", size=True) as show:

        def progress(size: int) -> None:
            nonlocal done
            done += size
            if known and total:
                show(min(done, total), total)

        reader = QueryReader(new, at, live=False)
        for flow in chain(read_log(logs, opener_of(logs), progress), read_flows(options.flows, reader, progress)):
            if isinstance(flow, Junk):
                replay.pass_over(flow)
            else:
                replay.add(flow)
    return replay


def _tell(differences: Differences, replay: Replay | None) -> None:
    """Print notes on the comparison itself."""
    if differences.old.version == differences.new.version:
        narrate("tokgate: both say the same: one version")
    elif not differences.any:
        narrate("tokgate: written otherwise, but nothing that anybody gets or reads differs")
    if replay is not None:
        tell_of(replay.junk, replay.unreadable)
    if replay is not None and replay.other_version:
        narrate(f"tokgate: {replay.other_version} events were recorded under another policy than OLD")
