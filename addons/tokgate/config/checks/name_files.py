"""Reads the files of names that services name, each file once for each kind of pattern, with the place of each name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pydantic_core import PydanticCustomError

from tokgate.config.checks.name_list import NameList
from tokgate.config.checks.sections import PolicyEntry, Sections
from tokgate.config.diagnostics import Code
from tokgate.config.format import name_patterns
from tokgate.config.format.services import ServiceModel
from tokgate.config.yaml import files
from tokgate.config.yaml.source import Report, TextSpan, decode
from tokgate.policy.services import PatternKind

MAX_REPORTED: Final = 20
"""Most lines whose errors are reported one by one; the rest is counted."""
_PARSERS: Final[dict[PatternKind, Callable[[Any], str]]] = {
    PatternKind.SUFFIX: name_patterns.suffix,
    PatternKind.EXACT: name_patterns.exact,
    PatternKind.LABEL: name_patterns.label,
    PatternKind.REGEX: name_patterns.regex,
}


def read(sections: Sections, report: Report) -> None:
    """Read all files of names into `sections.name_lists`, and check them."""
    for entry in sections.services.values():
        for kind in PatternKind:
            for number, file in enumerate(() if entry.model is None else entry.model.names.files(kind)):
                path = entry.beside(file)
                key = path, kind
                if key not in sections.name_lists:
                    sections.name_lists[key] = None  # reload watches for it
                    place = entry.place_of_file(kind, number)
                    if _allowed(path, entry, place, sections, report):
                        sections.name_lists[key] = _read(path, kind, report)


def _allowed(path: Path, entry: PolicyEntry[ServiceModel], place: TextSpan, sections: Sections, report: Report) -> bool:
    """Whether a file is there, in the folder of the policy or one of `settings.name_files`."""
    stated = [Path(folder).resolve() for folder in sections.settings.get("name_files", ())]
    if not any(path.resolve().is_relative_to(folder) for folder in (sections.root.resolve(), *stated)):
        message = (
            f"`{report.file_name(path)}` is outside the folder of the policy: move it there, or name its folder in "
            "`settings.name_files`"
        )
        report.error(entry.source, place, Code.FILE_OUTSIDE, message)
        return False
    if not path.exists():
        report.error(entry.source, place, Code.NOT_FOUND, f"there is no file `{report.file_name(path)}`")
        return False
    return True


def _read(path: Path, kind: PatternKind, report: Report) -> NameList | None:
    data = files.read_other(path, report)
    source = None if data is None else decode(path, data, report)
    if source is None:
        return None
    parse = _PARSERS[kind]
    patterns: list[tuple[str, TextSpan]] = []
    wrong: list[tuple[TextSpan, PydanticCustomError]] = []
    for number, line in enumerate(source.lines, 1):
        written = _without_comment(line).strip()
        if not written:
            continue
        place = TextSpan(number, line.index(written) + 1, len(written))
        try:
            patterns.append((parse(written), place))
        except PydanticCustomError as error:
            wrong.append((place, error))
    for place, found in wrong[:MAX_REPORTED]:
        report.error(source, place, Code(found.type), found.message())
    if len(wrong) > MAX_REPORTED:
        rest = f"{len(wrong) - MAX_REPORTED} more lines are no `{kind}`"
        report.error(source, wrong[MAX_REPORTED][0], Code.BAD_PATTERN, rest)
    if not patterns and not wrong:
        message = "the file holds no name: take out what refers to it, if that is meant"
        report.error(source, TextSpan(1, 1), Code.NO_NAMES, message)
    return NameList(source, tuple(patterns))


def _without_comment(line: str) -> str:
    """A line up to a `#` at its beginning or after white space: in a regular expression it may stand."""
    if line.lstrip().startswith("#"):
        return ""
    for at, character in enumerate(line):
        if character == "#" and line[at - 1].isspace():
            return line[:at]
    return line
