"""`tokgate service update`: what a newer list changes in a service, and its file written again."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.services.held import Held, find, opened
from tokgate.cli.services.reading import Reading, as_json, read, tell
from tokgate.cli.services.writing import write
from tokgate.cli.terminal import narrate, shown, wants_color
from tokgate.config.service_lists.entries import EntryKind
from tokgate.config.service_lists.selection import names_of, service_file
from tokgate.policy.services import Service

_TINTS: Final = {"+": "32", "-": "31"}

_Changes = list[tuple[str, EntryKind, str]]
"""`+` or `-`, kind and value."""


def run(options: argparse.Namespace) -> int:
    """Compare a service with a newer list, show the difference, and with `--write` write it."""
    held = find(opened(options.policies), options.name)
    service = held.service
    file = _file_of(held) if options.write else None
    reading = read(options, service.name, service.source)
    tell(reading.selection)
    before, after = names_of(service), dict(reading.selection.patterns)
    if not after[EntryKind.ADDRESS]:  # most lists know of no addresses: those of the file were added by hand
        after[EntryKind.ADDRESS] = before[EntryKind.ADDRESS]
    if options.keep:
        after = {kind: sorted({*after[kind], *before[kind]}) for kind in after}
    changes = _changes(before, after)
    written = file is not None and bool(reading.selection.count)
    if file is not None and written:
        write(file, service_file(service.name, service.title, reading.source, after, service))
        narrate(f"tokgate: wrote {shown(str(file))}")
    if options.json:
        sys.stdout.write(json.dumps(_document(service, reading, changes, written=written), ensure_ascii=False) + "\n")
    else:
        _show(service, reading, changes)
    if file is not None and not written:
        raise CommandError(f"{shown(str(options.file))} has nothing to take: nothing is written", Exit.FINDINGS)
    found = bool(reading.selection.unreadable) or (options.exit_code and bool(changes))
    return Exit.FINDINGS if found else Exit.DONE


def _changes(before: dict[EntryKind, list[str]], after: dict[EntryKind, list[str]]) -> _Changes:
    changes: _Changes = []
    for kind, values in before.items():
        old, new = set(values), set(after[kind])
        changes += [("+", kind, value) for value in sorted(new - old)]
        changes += [("-", kind, value) for value in sorted(old - new)]
    return changes


def _file_of(held: Held) -> Path:
    """The file of an imported service, which holds nothing else. Raises CommandError for any other."""
    service, origin = held.service, held.service.origin
    if held.from_catalogue or origin is None:
        raise CommandError(
            f"{service.name} is the catalogue's: import the list under a name of your own instead", Exit.FINDINGS
        )
    if service.source is None:
        why = "was not imported, and writing it again would lose its comments: add the names by hand"
        raise CommandError(f"{service.name} ({origin}) {why}", Exit.FINDINGS)
    path = Path(origin.file)
    said = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)  # noqa: S506  (text, lists, mappings)
    if set(said) - {"version", "services"} or set(said["services"]) != {service.name}:
        raise CommandError(f"{shown(origin.file)} holds more than {service.name}: it is not written", Exit.FINDINGS)
    return path


def _show(service: Service, reading: Reading, changes: _Changes) -> None:
    color = wants_color(sys.stdout)
    old = service.source
    was = "not imported" if old is None else " ".join(filter(None, (old.revision, old.date)))
    lines = [
        f"old: {service.name} ({shown(was)})",
        f"new: {shown(reading.source.list)} ({reading.source.revision} {reading.source.date})",
    ]
    for sign, kind, value in changes:
        line = f"{sign}{kind} {shown(value)}"
        lines.append(f"\x1b[{_TINTS[sign]}m{line}\x1b[0m" if color else line)
    signs = [sign for sign, _, _ in changes]
    lines.append(f"{signs.count('+')} added, {signs.count('-')} removed")
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _document(service: Service, reading: Reading, changes: _Changes, *, written: bool) -> dict[str, Any]:
    def of(wanted: str) -> dict[str, list[str]]:
        return {
            kind.value: [v for s, k, v in changes if (s, k) == (wanted, kind)] for kind in reading.selection.patterns
        }

    return {
        "service": service.name,
        "format": reading.source.format,
        "revision": reading.source.revision,
        "added": of("+"),
        "removed": of("-"),
        "written": written,
        "dropped": as_json(reading.selection.dropped),
        "unreadable": as_json(reading.selection.unreadable),
    }
