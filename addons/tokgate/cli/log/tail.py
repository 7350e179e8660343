"""`tokgate log tail`: the latest records, and new ones as they are written."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokgate.blocklog.read.follow import Follower
from tokgate.blocklog.read.reader import Filter, Junk, Line, instant_of, read, text_at
from tokgate.cli.exits import Exit
from tokgate.cli.log.output import UnreadableLineReporter, console_on_stdout, require
from tokgate.cli.terminal import shown

if TYPE_CHECKING:
    from rich.console import Console

POLL_SECONDS: Final = 0.25
_STYLES: Final = {"block": "bold red", "warn": "yellow", "monitor": "cyan", "allow": "green"}


def tail(files: list[Path], wanted: Filter, *, lines: int, follow: bool, as_json: bool) -> Exit:
    """Print the last `lines` records; with `follow`, continue until interrupted. Files may then be missing at first."""
    if not follow:
        require(files)
    junk = UnreadableLineReporter()
    latest: deque[Line] = deque()
    followers = [Follower(path) for path in files] if follow else []
    sources = [follower.poll() for follower in followers] if follow else [read([path]) for path in files]
    for source in sources:
        latest.extend(deque(_wanted(source, wanted, junk), maxlen=lines))
    in_time = sorted(latest, key=lambda line: text_at(line.record, "@timestamp") or "")
    printer = _Printer(as_json=as_json)
    printer.print(in_time[-lines:] if lines else ())
    try:
        while followers:
            for follower in followers:
                printer.print(_wanted(follower.poll(), wanted, junk))
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:  # the way to end --follow
        pass
    junk.close()
    return Exit.DONE


def _wanted(source: Iterable[Line | Junk], wanted: Filter, junk: "UnreadableLineReporter") -> Iterator[Line]:
    for line in source:
        if isinstance(line, Junk):
            junk.tell(line)
        elif wanted.accepts(line.record):
            yield line


class _Printer:
    """Prints records: as JSON, or as `time  verdict  sentence`."""

    def __init__(self, *, as_json: bool) -> None:
        self._console = None if as_json else console_on_stdout()

    def print(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if self._console is None:
                sys.stdout.write(line.raw.decode("utf-8", "backslashreplace") + "\n")
            else:
                self._show(self._console, line)
        sys.stdout.flush()

    def _show(self, console: "Console", line: Line) -> None:
        from rich.text import Text

        record = line.record
        at = instant_of(record)
        when = at.format_iso(unit="second", sep=" ") if at is not None else "(no time)"
        verdict = text_at(record, "tokgate", "verdict")
        label = verdict or text_at(record, "event", "action") or "?"
        text = Text()
        text.append(when, "dim")
        text.append(f"  {shown(label):<9} ", _STYLES.get(label, "magenta"))
        text.append(shown(text_at(record, "message") or "(no message)"))
        console.print(text, soft_wrap=True)
