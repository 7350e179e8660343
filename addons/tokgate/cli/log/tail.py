"""`tokgate log tail`: the latest records, and new ones as they are written."""

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.blocklog.paths import PACKED, end_of_archive, with_rotated
from tokgate.blocklog.read.reader import Filter, Follower, Junk, Line, open_log, read
from tokgate.blocklog.records.record import instant_of, text_at
from tokgate.cli.arguments import whole_number
from tokgate.cli.commands import Exit, Subparsers, add_subcommand
from tokgate.cli.configuration import default_log
from tokgate.cli.log.access import add_purpose
from tokgate.cli.log.source import UnreadableLineReporter, add_source, require, wanted_of
from tokgate.cli.log.verify import CurrentLog
from tokgate.cli.terminal import Patience, styled, visible

_EPILOG: Final = """\
examples:
  tokgate log tail -f                               the last 20 records, then new ones as they come
  tokgate log tail -n 5 --name tiktok.com --verdict block
  tokgate log tail -f --json | jq -r '.source.ip'   the records themselves, one a line

Unreadable lines are reported on stderr and skipped. Ctrl-C ends --follow with exit code 0."""
POLL_SECONDS: Final = 0.25
_TICK: Final = 10_000
_STYLES: Final = {"block": "1;31", "warn": "33", "monitor": "36", "allow": "32"}
_OTHER: Final = "35"
_TIME: Final = "2"

type Source = Iterable[Line | Junk]
type Part = tuple[Instant | None, Source]
"""The lines of a file, and when it ended, where its name tells."""


def add_parsers(commands: Subparsers) -> None:
    parser = add_subcommand(commands, "tail", "show the latest records", _EPILOG)
    add_source(parser)
    add_purpose(parser)
    rows = whole_number("number of rows")
    parser.add_argument("-n", "--lines", type=rows, default=20, metavar="N", help="how many records (default: 20)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new records, also after rotation")
    parser.add_argument("--json", action="store_true", help="the records themselves, one a line")
    parser.set_defaults(log_run=tail)


def tail(args: argparse.Namespace) -> Exit:
    """Print the last `--lines` records, also of rotated files; with `--follow`, continue until interrupted.

    With `--follow` files may be missing at first; and with filters as well it begins with the current files, since the
    latest that they accept may be anywhere.
    """
    files, wanted, lines, follow = args.log or [default_log()], wanted_of(args), args.lines, args.follow
    if not follow:
        require(files)
    junk = UnreadableLineReporter()
    latest: list[Line] = []
    followers = [Follower(path) for path in files] if follow else []
    with Patience("reading") as patience:
        for number, path in enumerate(files):
            found: list[Line] = []
            sources = _followed(followers[number], path, back=wanted == Filter()) if follow else _backwards(path, files)
            for ended, source in sources:
                if ended is not None and wanted.since is not None and ended <= wanted.since:
                    break
                found[:0] = deque(_wanted(_counted(source, patience), wanted, junk), maxlen=lines)
                if len(found) >= lines:
                    break
            latest += found
    in_time = sorted(latest, key=lambda line: text_at(line.record, "@timestamp") or "")
    _print(in_time[-lines:] if lines else (), as_json=args.json)
    try:
        while followers:
            for follower in followers:
                _print(_wanted(follower.poll(), wanted, junk), as_json=args.json)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:  # the way to end --follow
        pass
    junk.close()
    return Exit.DONE


def _backwards(path: Path, named: list[Path]) -> Iterator[Part]:
    """A file, then those rotated away from it, the latest first, without any that is `named` itself."""
    with CurrentLog(path) as current:  # it may be rotated meanwhile
        yield None, read([path], open_log if path.suffix in PACKED else current.open)
        with suppress(PermissionError):  # the folder can't be listed
            for file in reversed(current.files()):
                if file not in named:
                    yield end_of_archive(file.name), _of_rotated(file)


def _followed(follower: Follower, path: Path, *, back: bool) -> Iterator[Part]:
    """What the follower reads first, then the files rotated away before that, the latest first."""
    yield None, follower.poll()
    with suppress(PermissionError):
        for file in reversed(with_rotated(path)) if back else ():
            if file != path and not follower.reads(file):
                yield end_of_archive(file.name), _of_rotated(file)


def _of_rotated(file: Path) -> Source:
    try:
        yield from read([file])
    except FileNotFoundError:  # deleted or renamed just now
        return
    except PermissionError as error:
        yield Junk(str(file), 1, 0, f"the rest can't be read: {error.strerror}")


def _counted(source: Source, patience: Patience) -> Source:
    for number, line in enumerate(source, 1):
        if number % _TICK == 0:
            patience(number, None)
        yield line


def _wanted(source: Iterable[Line | Junk], wanted: Filter, junk: "UnreadableLineReporter") -> Iterator[Line]:
    for line in source:
        if isinstance(line, Junk):
            junk.tell(line)
        elif wanted.accepts(line.record):
            yield line


def _print(lines: Iterable[Line], *, as_json: bool) -> None:
    """Print records: as JSON, or as `time  verdict  sentence`."""
    for line in lines:
        record, at = line.record, instant_of(line.record)
        when = at.format_iso(unit="second", sep=" ") if at is not None else "(no time)"
        label = text_at(record, "tokgate", "verdict") or text_at(record, "event", "action") or "?"
        said = visible(text_at(record, "message") or "(no message)")
        told = f"{styled(when, _TIME)}  {styled(f'{visible(label):<9}', _STYLES.get(label, _OTHER))} {said}"
        sys.stdout.write((line.raw.decode("utf-8", "backslashreplace") if as_json else told) + "\n")
    sys.stdout.flush()
