"""`tokgate service import` and `update`: a service file from a public list, and what a newer list changes in it."""

import argparse
import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypedDict

import yaml
from whenever import Date, Instant

from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.output_file import POLICY_MODE, becoming
from tokgate.cli.policy.known_services import KnownService, find, policy_if_any
from tokgate.cli.terminal import narrate, print_json, print_lines, visible, wants_color
from tokgate.config.loader import load
from tokgate.config.service_lists.entries import EntryKind, ListFormat, Problem
from tokgate.config.service_lists.formats import detect, read_list
from tokgate.config.service_lists.selection import Options, Selection, names_of, select, service_file
from tokgate.config.yaml.suggestions import listed
from tokgate.policy.services import Service, ServiceSource
from tokgate.policy.values.text import escaped


@dataclass(frozen=True, slots=True)
class Reading:
    """A list that was read: what is taken of it, where it is from, and its title, if it has one."""

    selection: Selection
    source: ServiceSource
    title: str | None


class LineLeft(TypedDict):
    """A line of a list that was not taken, and why; lines count from 1."""

    file: str
    line: int
    text: str
    reason: str


class NamesCounted(TypedDict):
    """How many patterns of each kind there are."""

    suffix: int
    exact: int
    regex: int
    address: int


class NamesListed(TypedDict):
    """Patterns by kind."""

    suffix: list[str]
    exact: list[str]
    regex: list[str]
    address: list[str]


class ServiceImported(TypedDict):
    """`tokgate service import --json`. `file` is null, and `yaml` the file's text, where it was printed only."""

    service: str
    file: str | None
    yaml: str | None
    format: ListFormat
    names: NamesCounted
    repeated: int
    dropped: list[LineLeft]
    unreadable: list[LineLeft]


class ServiceUpdated(TypedDict):
    """`tokgate service update --json`."""

    service: str
    format: ListFormat
    revision: str
    added: NamesListed
    removed: NamesListed
    written: bool
    dropped: list[LineLeft]
    unreadable: list[LineLeft]


def import_list(options: argparse.Namespace) -> int:
    """Read the list, report what is not taken of it, and write the file."""
    name: str = options.name
    output: str | None = options.output
    target = None if output == "-" else Path(output or options.policies / "services" / f"{name}.yaml")
    if target is not None and target.exists() and not options.force:
        hint = f"`tokgate service update {name} …` shows what a list changes; --force writes over it"
        raise CommandError(f"{visible(str(target))} is there already: {hint}", Exit.FINDINGS)
    if output is None:
        if options.policies.is_file():
            raise CommandError(
                f"{visible(str(options.policies))} is one file: say with --output where to write", Exit.USAGE
            )
        _refuse_defined(options.policies, name, target)
    reading = read(options)
    selection = reading.selection
    tell(selection)
    if not selection.count:
        raise CommandError(f"{visible(str(options.file))} has nothing to take: no file is written", Exit.FINDINGS)
    title = options.title or reading.title or name
    text = service_file(name, title, reading.source, selection.patterns)
    if target is None and not options.json:
        sys.stdout.write(text)
    elif target is not None:
        write(target, text)
        narrate("tokgate: `tokgate diff` shows what it changes; a ban has to name it")
    if options.json:
        print_json(_imported(name, target, text, reading), ascii_only=False)
    elif target is not None:
        sys.stdout.write(f"{visible(str(target))}: {_counts(reading)}\n")
    return Exit.FINDINGS if selection.unreadable else Exit.DONE


def _refuse_defined(policies: Path, name: str, target: Path | None) -> None:
    """End the command where another file of the policy defines the service."""
    policy = policy_if_any(policies) if policies.exists() else None
    service = None if policy is None else policy.services.get(name)
    taken = () if policy is None or policy.catalogue is None else policy.catalogue.services
    if service is None or name in taken or service.origin is None or Path(service.origin.file) == target:
        return
    raise CommandError(f"the policy has a service {name} already: {service.origin}", Exit.FINDINGS)


def _counts(reading: Reading) -> str:
    selection = reading.selection
    taken = ", ".join(f"{len(values)} {kind}" for kind, values in selection.patterns.items() if values)
    left = f"{len(selection.dropped)} dropped, {len(selection.unreadable)} not read, {selection.repeated} repeated"
    return f"{taken}; {left}"


def _imported(name: str, target: Path | None, text: str, reading: Reading) -> ServiceImported:
    selection = reading.selection
    return {
        "service": name,
        "file": None if target is None else str(target),
        "yaml": text if target is None else None,
        "format": ListFormat(reading.source.format),
        "names": {
            "suffix": len(selection.patterns[EntryKind.SUFFIX]),
            "exact": len(selection.patterns[EntryKind.EXACT]),
            "regex": len(selection.patterns[EntryKind.REGEX]),
            "address": len(selection.patterns[EntryKind.ADDRESS]),
        },
        "repeated": selection.repeated,
        "dropped": as_json(selection.dropped),
        "unreadable": as_json(selection.unreadable),
    }


_TINTS: Final = {"+": "32", "-": "31"}
_Changes = list[tuple[str, EntryKind, str]]
"""`+` or `-`, kind and value."""


def update(options: argparse.Namespace) -> int:
    """Compare a service with a newer list, show the difference, and with `--write` write it."""
    known = find(policy_if_any(options.policies), options.name)
    service = known.service
    file = _own_file(known) if options.write else None
    reading = read(options, service.source)
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
        narrate(f"tokgate: wrote {visible(str(file))}")
    if options.json:
        print_json(_updated(service, reading, changes, written=written), ascii_only=False)
    else:
        _show(service, reading, changes)
    if file is not None and not written:
        raise CommandError(f"{visible(str(options.file))} has nothing to take: nothing is written", Exit.FINDINGS)
    found = bool(reading.selection.unreadable) or (options.exit_code and bool(changes))
    return Exit.FINDINGS if found else Exit.DONE


def _changes(before: dict[EntryKind, list[str]], after: dict[EntryKind, list[str]]) -> _Changes:
    changes: _Changes = []
    for kind, values in before.items():
        old, new = set(values), set(after[kind])
        changes += [("+", kind, value) for value in sorted(new - old)]
        changes += [("-", kind, value) for value in sorted(old - new)]
    return changes


def _own_file(known: KnownService) -> Path:
    """The file of an imported service, which holds nothing else. Raises CommandError for any other."""
    service, origin = known.service, known.service.origin
    if known.from_catalogue or origin is None:
        raise CommandError(
            f"{service.name} is the catalogue's: import the list under a name of your own instead", Exit.FINDINGS
        )
    if service.source is None:
        why = "was not imported, and writing it again would lose its comments: add the names by hand"
        raise CommandError(f"{service.name} ({origin}) {why}", Exit.FINDINGS)
    path = Path(origin.file)
    said = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)  # noqa: S506  (text, lists, mappings)
    if set(said) - {"version", "services"} or set(said["services"]) != {service.name}:
        raise CommandError(f"{visible(origin.file)} holds more than {service.name}: it is not written", Exit.FINDINGS)
    return path


def _show(service: Service, reading: Reading, changes: _Changes) -> None:
    color = wants_color(sys.stdout)
    old = service.source
    was = "not imported" if old is None else " ".join(filter(None, (old.revision, old.date)))
    lines = [
        f"old: {service.name} ({visible(was)})",
        f"new: {visible(reading.source.list)} ({reading.source.revision} {reading.source.date})",
    ]
    for sign, kind, value in changes:
        line = f"{sign}{kind} {visible(value)}"
        lines.append(f"\x1b[{_TINTS[sign]}m{line}\x1b[0m" if color else line)
    signs = [sign for sign, _, _ in changes]
    lines.append(f"{signs.count('+')} added, {signs.count('-')} removed")
    print_lines(lines)


def _updated(service: Service, reading: Reading, changes: _Changes, *, written: bool) -> ServiceUpdated:
    def of(sign: str) -> NamesListed:
        kinds = (EntryKind.SUFFIX, EntryKind.EXACT, EntryKind.REGEX, EntryKind.ADDRESS)
        suffix, exact, regex, address = ([v for s, k, v in changes if (s, k) == (sign, kind)] for kind in kinds)
        return {"suffix": suffix, "exact": exact, "regex": regex, "address": address}

    return {
        "service": service.name,
        "format": ListFormat(reading.source.format),
        "revision": reading.source.revision or "",
        "added": of("+"),
        "removed": of("-"),
        "written": written,
        "dropped": as_json(reading.selection.dropped),
        "unreadable": as_json(reading.selection.unreadable),
    }


_LARGEST: Final = 64 << 20
"""Octets of a list."""
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DIGEST: Final = 16
_LONGEST: Final = 200
_FILES_OF_LICENCES: Final = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "COPYING")


def read(options: argparse.Namespace, before: ServiceSource | None = None) -> Reading:
    """Read the list of the options; where these say nothing, as `before` was read."""
    path: Path = options.file
    text = _text(path)
    chosen = _format(options.format, before, text, path)
    last = before or ServiceSource(path.name, chosen.value)
    attributes = tuple(options.attribute or last.attributes)
    subdomains = bool(options.subdomains or last.subdomains)
    found = read_list(chosen, str(path), text, lambda other: _included(path, other))
    selection = select(found, Options(frozenset(attributes), subdomains=subdomains))
    said = {key: _clean(value) for key, value in found.said.items()}
    git = _git_facts(path)
    source = ServiceSource(
        list=options.source or said.get("list") or git.get("list") or last.list,
        format=chosen.value,
        revision=options.revision or git.get("revision") or said.get("revision") or _digest(text),
        licence=options.licence or said.get("licence") or git.get("licence") or last.licence,
        date=_day(options.date, said, git, path),
        attributes=attributes,
        subdomains=subdomains,
    )
    return Reading(selection, source, said.get("title"))


def tell(selection: Selection) -> None:
    """Print what was not taken, each with its line, and how much of it there is."""
    for each in selection.dropped:
        narrate(f"{visible(str(each.place))}: dropped {visible(each.text)}: {each.why}")
    for each in selection.unreadable:
        narrate(f"{visible(str(each.place))}: not read: {visible(each.text)}: {each.why}")


def as_json(problems: list[Problem]) -> list[LineLeft]:
    return [{"file": p.place.file, "line": p.place.line, "text": p.text, "reason": p.why} for p in problems]


def _clean(value: str) -> str:
    """What a list says of itself as one line, without what a terminal or an editor would not show."""
    return escaped(" ".join(value.split()))[:_LONGEST]


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise CommandError(f"{visible(str(path))} is not a file", Exit.USAGE)
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise CommandError(f"{visible(str(path))} is larger than {_LARGEST >> 20} MiB", Exit.FINDINGS)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandError(f"{visible(str(path))} is not UTF-8", Exit.FINDINGS) from None


def _format(asked: str | None, before: ServiceSource | None, text: str, path: Path) -> ListFormat:
    if asked is not None and asked != "auto":
        return ListFormat(asked)
    if asked is None and before is not None:
        return ListFormat(before.format)
    chosen = detect(text)
    if chosen is None:
        known = listed([each.value for each in ListFormat])
        raise CommandError(f"{visible(str(path))}: nothing tells its format; --format is one of {known}", Exit.FINDINGS)
    narrate(f"tokgate: {visible(str(path))} is read as {chosen}")
    return chosen


def _included(path: Path, name: str) -> str | None:
    """The text of a list beside this one; None if there is none, or if the name leads out of the folder."""
    other = path.parent / name
    if Path(name).name != name or not other.is_file():
        return None
    return _text(other)


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]}"


def _day(asked: Date | None, said: dict[str, str], git: dict[str, str], path: Path) -> str:
    """The day of the list, as YYYY-MM-DD."""
    if asked is not None:
        return asked.format_iso()
    written = _DAY.search(said.get("date", ""))
    if written is not None:
        return written[0]
    return git.get("date") or Instant.from_timestamp(int(path.stat().st_mtime)).to_tz("UTC").date().format_iso()


def _git_facts(path: Path) -> dict[str, str]:
    """What git knows of a list that is unchanged in a work tree: commit, day, remote; and the licence there."""
    folder = path.resolve().parent
    top = _git(folder, "rev-parse", "--show-toplevel")
    tracked = top and _git(folder, "ls-files", "--error-unmatch", path.name)
    if not tracked or _git(folder, "status", "--porcelain", "--", path.name):
        return {}
    facts = {
        "revision": _git(folder, "log", "-1", "--format=%H"),
        "date": _git(folder, "log", "-1", "--format=%cs"),
        "list": re.sub(r"//[^/@]*@", "//", _git(folder, "remote", "get-url", "origin")),
        "licence": _licence(Path(top)),
    }
    return {key: value for key, value in facts.items() if value}


def _licence(folder: Path) -> str:
    """The first line of the licence's file, which is its name in the common ones."""
    file = next((folder / name for name in _FILES_OF_LICENCES if (folder / name).is_file()), None)
    text = "" if file is None else file.read_text(encoding="utf-8", errors="replace")
    return next((line.strip("# \t") for line in text.splitlines() if line.strip()), "")[:100]


def _git(folder: Path, *arguments: str) -> str:
    """The output of git, stripped; empty where it fails or isn't there."""
    try:
        done = subprocess.run(("git", "-C", str(folder), *arguments), capture_output=True, check=False)  # noqa: S607
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.decode(errors="replace").strip()


def write(path: Path, text: str) -> None:
    """Write the file. Raises CommandError where the text is no valid policy, and OSError."""
    _check(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    with becoming(path) as draft:
        draft.write_text(text, encoding="utf-8")
    if path.is_file():
        path.chmod(POLICY_MODE)


def _check(text: str) -> None:
    with TemporaryDirectory(prefix="tokgate-") as folder:
        draft = Path(folder, "service.yaml")
        draft.write_text(text, encoding="utf-8")
        errors = load(draft, Instant.now()).errors
    if errors:
        raise CommandError(f"the file would not load: {errors[0].message} (line {errors[0].origin.line})")
