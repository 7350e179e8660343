"""Reads a list for `import` and `update`: its content, and where it is from, so far as options, list and git say so."""

import argparse
import hashlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from whenever import Date, Instant

from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.terminal import narrate, shown
from tokgate.config.service_lists.entries import ListFormat, Problem
from tokgate.config.service_lists.formats import NoSuchPart, detect, read_list
from tokgate.config.service_lists.selection import Options, Selection, select
from tokgate.config.yaml.suggestions import listed
from tokgate.policy.services import ServiceSource
from tokgate.policy.values.text import escaped

_LARGEST: Final = 64 << 20
"""Octets of a list."""
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DIGEST: Final = 16
_LONGEST: Final = 200
_FILES_OF_LICENCES: Final = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "COPYING")


@dataclass(frozen=True, slots=True)
class Reading:
    """A list that was read: what is taken of it, where it is from, and its title, if it has one."""

    selection: Selection
    source: ServiceSource
    title: str | None


def read(options: argparse.Namespace, name: str, before: ServiceSource | None = None) -> Reading:
    """Read the list of the options; where these say nothing, as `before` was read."""
    path: Path = options.file
    text = _text(path)
    chosen = _format(options.format, before, text, path)
    last = before or ServiceSource(path.name, chosen.value)
    part = options.part or last.part or name
    attributes = tuple(options.attribute or last.attributes)
    subdomains, keywords = bool(options.subdomains or last.subdomains), bool(options.keywords or last.keywords)
    try:
        found = read_list(chosen, str(path), text, part, lambda other: _included(path, other))
    except NoSuchPart as error:
        raise CommandError(f"{shown(str(path))}: {error}; --part chooses", Exit.USAGE) from None
    except ValueError as error:
        raise CommandError(f"{shown(str(path))} is no list in the format {chosen}: {error}", Exit.FINDINGS) from None
    selection = select(found, Options(frozenset(attributes), subdomains=subdomains, keywords=keywords))
    said = {key: _clean(value) for key, value in found.said.items()}
    git = _git_facts(path)
    source = ServiceSource(
        list=options.source or said.get("list") or git.get("list") or last.list,
        format=chosen.value,
        part=part if chosen is ListFormat.ADGUARD else None,
        revision=options.revision or git.get("revision") or said.get("revision") or _digest(text),
        licence=options.licence or said.get("licence") or git.get("licence") or last.licence,
        date=_day(options.date, said, git, path),
        attributes=attributes,
        subdomains=subdomains,
        keywords=keywords,
    )
    return Reading(selection, source, said.get("title"))


def tell(selection: Selection) -> None:
    """Print what was not taken, each with its line, and how much of it there is."""
    for each in selection.dropped:
        narrate(f"{shown(str(each.place))}: dropped {shown(each.text)}: {each.why}")
    for each in selection.unreadable:
        narrate(f"{shown(str(each.place))}: not read: {shown(each.text)}: {each.why}")


def as_json(problems: list[Problem]) -> list[dict[str, Any]]:
    return [{"file": p.place.file, "line": p.place.line, "text": p.text, "reason": p.why} for p in problems]


def _clean(value: str) -> str:
    """What a list says of itself as one line, without what a terminal or an editor would not show."""
    return escaped(" ".join(value.split()))[:_LONGEST]


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise CommandError(f"{shown(str(path))} is not a file", Exit.USAGE)
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise CommandError(f"{shown(str(path))} is larger than {_LARGEST >> 20} MiB", Exit.FINDINGS)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandError(f"{shown(str(path))} is not UTF-8", Exit.FINDINGS) from None


def _format(asked: str | None, before: ServiceSource | None, text: str, path: Path) -> ListFormat:
    if asked is not None and asked != "auto":
        return ListFormat(asked)
    if asked is None and before is not None:
        return ListFormat(before.format)
    chosen = detect(text)
    if chosen is None:
        known = listed([each.value for each in ListFormat])
        raise CommandError(f"{shown(str(path))}: nothing tells its format; --format is one of {known}", Exit.FINDINGS)
    narrate(f"tokgate: {shown(str(path))} is read as {chosen}")
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
