"""`tokgate log summary`: who, what, when and why, as tables or JSON."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokgate.blocklog.reader import Filter, Junk, Line, read, with_rotated
from tokgate.blocklog.summary import By, Summariser, Summary, Table
from tokgate.cli.exits import Exit
from tokgate.cli.log_output import JunkTeller, console_on_stdout, require
from tokgate.cli.terminal import progress_on_stderr, shown

if TYPE_CHECKING:
    from rich.console import Console

_TITLES: Final = {
    By.ATTEMPT: "Who tried what",
    By.CLIENT: "Clients",
    By.NAME: "Names",
    By.BAN: "Bans",
    By.SERVICE: "Services",
    By.NETWORK: "Networks",
    By.SIGNAL: "Seen in",
    By.REASON: "Reasons",
    By.ACTION: "What was done",
    By.VERDICT: "Verdicts",
}
_COLUMNS: Final = {By.ATTEMPT: ("client", "name", "ban", "network")}
_SHOWN_BY_DEFAULT: Final = (By.ATTEMPT, By.CLIENT, By.NAME, By.BAN, By.NETWORK, By.SIGNAL, By.ACTION)


def summarise(named: list[Path], wanted: Filter, *, rotated: bool, by: list[By], top: int, as_json: bool) -> Exit:
    """Count and show; `by` empty means the usual tables, or all of them in JSON."""
    require(named, rotated=rotated)
    files = list(dict.fromkeys(p for path in named for p in with_rotated(path))) if rotated else named
    summary = _count_up(files, wanted, top)
    tables = tuple(dict.fromkeys(by))
    if as_json:
        sys.stdout.write(json.dumps(_as_json(summary, tables or tuple(By)), ensure_ascii=False) + "\n")
    else:
        _show_summary(summary, tables or _SHOWN_BY_DEFAULT)
    return Exit.DONE


def _count_up(files: list[Path], wanted: Filter, top: int) -> Summary:
    counting, junk = Summariser(), JunkTeller()
    for line in _with_progress(read(files)):
        if isinstance(line, Junk):
            junk.tell(line)
            counting.add(line)
        elif wanted.accepts(line.record):
            counting.add(line)
    junk.close()
    return counting.summary(top)


def _with_progress(lines: Iterator[Line | Junk]) -> Iterator[Line | Junk]:
    """The same lines; somebody who waits at a terminal sees how many have been read."""
    if not sys.stderr.isatty():
        yield from lines
        return
    with progress_on_stderr(count=True) as progress:
        task = progress.add_task("reading", total=None)
        for number, line in enumerate(lines, 1):
            yield line
            if number % 10_000 == 0:
                progress.update(task, completed=number)


def _as_json(summary: Summary, tables: tuple[By, ...]) -> dict[str, Any]:
    return {
        "first": summary.first,
        "last": summary.last,
        "records": summary.records,
        "events": summary.events,
        "dropped": summary.dropped,
        "unreadable": summary.junk,
        "tables": {by.value: _table_as_json(by, summary.tables[by]) for by in tables},
    }


def _table_as_json(by: By, table: Table) -> dict[str, Any]:
    columns = _COLUMNS.get(by, (by.value,))
    rows = [
        dict(zip(columns, row.key, strict=True)) | {"count": row.count, "first": row.first, "last": row.last}
        for row in table.rows
    ]
    return {"keys": table.keys, "rows": rows, "other": table.other}


def _show_summary(summary: Summary, tables: tuple[By, ...]) -> None:
    from rich.text import Text

    console = console_on_stdout()
    when = f" from {summary.first} to {summary.last}" if summary.first is not None else ""
    console.print(Text(f"{summary.events} events{when}, in {summary.records} records", "bold"), soft_wrap=True)
    if summary.dropped:
        console.print(Text(f"{summary.dropped} records were dropped (log-gap)", "bold red"))
    if summary.junk:
        console.print(Text(f"{summary.junk} lines could not be read", "bold red"))
    for by in tables:
        if summary.tables[by].keys:
            _show_table(console, by, summary.tables[by])


def _show_table(console: "Console", by: By, table: Table) -> None:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(title=_TITLES[by], title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in _COLUMNS.get(by, (by.value,)):
        grid.add_column(column, overflow="fold")
    # On a narrow terminal names are folded; a number or a time that was cut short would be wrong.
    widest = max(len("events"), *(len(str(row.count)) for row in table.rows), len(str(table.other)))
    grid.add_column("events", justify="right", no_wrap=True, min_width=widest)
    grid.add_column("first", no_wrap=True, min_width=17)
    grid.add_column("last", no_wrap=True, min_width=17)
    for row in table.rows:
        cells = [Text(shown(part)) for part in row.key]
        grid.add_row(*cells, str(row.count), _to_minute(row.first), _to_minute(row.last))
    if table.other:
        blank = [""] * (len(_COLUMNS.get(by, (by.value,))) - 1)
        grid.add_row(f"({table.keys - len(table.rows)} others)", *blank, str(table.other), "", "")
    console.print()
    console.print(grid)


def _to_minute(timestamp: str) -> str:
    return shown(timestamp[:16].replace("T", " ") + "Z") if len(timestamp) == 27 else shown(timestamp)
