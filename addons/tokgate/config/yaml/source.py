"""The files of a policy: how they are found and read, spans in them, and the report that collects diagnostics."""

import errno
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml

from tokgate.config.diagnostics import Code, Diagnostic, Level, Place, did_you_mean
from tokgate.policy.values import Origin

_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # YAML 1.1 §4.2
_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_ODD_SPACES: Final = re.compile("[\u00a0\u1680\u2000-\u200b\u202f\u205f\u2060\u3000]")
_UTF_16_32: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def odd_space(text: str) -> str | None:
    """The name of the first character that looks like a space, or like nothing, and is no space; None without any."""
    found = _ODD_SPACES.search(text)
    return None if found is None else f"U+{ord(found[0]):04X}, {unicodedata.name(found[0], 'unnamed').lower()}"


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A span within a line; line and column count from 1, `length` is in characters."""

    line: int
    column: int
    length: int = 0


class Source:
    """A file's name, as diagnostics show it, and its text."""

    def __init__(self, file: str, text: str = "", path: Path | None = None) -> None:
        """`text` has no byte order mark. `path` is the file's path, if it differs from `file`."""
        self.file: Final = file
        self.path: Final = Path(file) if path is None else path
        self.text: Final = text

    @cached_property
    def lines(self) -> list[str]:
        """All lines without line breaks. Computed at the first use, since only diagnostics need them."""
        return _BREAK.split(self.text)

    def origin(self, place: TextSpan) -> Origin:
        """The position of a span, as `policy/` holds it."""
        return Origin(self.file, place.line, place.column)

    def line(self, number: int) -> str | None:
        """The text of a line, counted from 1; None if the file doesn't have it."""
        return self.lines[number - 1] if self.text and 0 < number <= len(self.lines) else None


@dataclass(slots=True)
class Report:
    """Collects the errors and warnings of all files of a policy."""

    base: Path | None = None
    """Files below this folder are named relative to it, all others as given."""
    diagnostics: list[Diagnostic] = field(default_factory=list)
    ignored: set[Place] = field(default_factory=set)
    """What comments silence."""

    @property
    def failed(self) -> bool:
        """Whether there is any error."""
        return any(each.level is Level.ERROR for each in self.diagnostics)

    def file_name(self, path: Path) -> str:
        """The name of a file in diagnostics: relative to `base`, if it is below it."""
        return str(path.relative_to(self.base) if self.base is not None and path.is_relative_to(self.base) else path)

    def source(self, path: Path, text: str = "") -> Source:
        """A file, named as this report names it."""
        return Source(self.file_name(path), text, path)

    def error(self, source: Source, place: TextSpan, code: Code, message: str) -> None:
        """Add an error: the policy will not be loaded."""
        self._add(Level.ERROR, source, place, code, message)

    def warning(self, source: Source, place: TextSpan, code: Code, message: str) -> None:
        """Add a warning: allowed, but probably a mistake."""
        self._add(Level.WARNING, source, place, code, message)

    def _add(self, level: Level, source: Source, place: TextSpan, code: Code, message: str) -> None:
        line = source.line(place.line)
        odd = odd_space((line or "")[place.column - 1 : place.column - 1 + place.length])
        if odd is not None and odd not in message:
            message = f"{message} (it holds {odd})"
        self.diagnostics.append(Diagnostic(level, source.origin(place), message, code, line, place.length))

    def sorted(self) -> tuple[Diagnostic, ...]:
        """The diagnostics by file, line and column, without duplicates and without silenced warnings."""
        unique = dict.fromkeys(each for each in self.diagnostics if not each.silenced_by(self.ignored))
        return tuple(sorted(unique, key=lambda d: (d.origin.file, d.origin.line, d.origin.column)))


def decode(path: Path, data: bytes, report: Report) -> Source | None:
    """Decode UTF-8, with or without a byte order mark; None, and an error, for anything else."""
    if data.startswith(_UTF_16_32):
        report.error(
            report.source(path), TextSpan(1, 1), Code.ENCODING, "the file is in UTF-16 or UTF-32: save it as UTF-8"
        )
        return None
    try:
        source = report.source(path, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        message = f"byte 0x{error.object[error.start]:02x} is not valid UTF-8: save the file as UTF-8"
        shown = report.source(path, error.object.decode(errors="replace"))  # keeps line and column
        report.error(shown, _after(error.object[: error.start].decode()), Code.ENCODING, message)
        return None
    found = _UNPRINTABLE.search(source.text)
    if found is None:
        return source
    name = "a NUL byte" if found[0] == "\0" else f"the character U+{ord(found[0]):04X}"
    where = _after(source.text[: found.start()])
    report.error(source, where, Code.ENCODING, f"{name} is not allowed; is this a text file in UTF-8?")
    return None


def _after(text: str) -> TextSpan:
    """The place of the character after `text`."""
    lines = _BREAK.split(text)
    return TextSpan(len(lines), len(lines[-1]) + 1, 1)


MAX_BYTES: Final = 16 << 20
"""Largest policy file in octets: several times what 100,000 names take."""

SUFFIXES: Final = (".yaml", ".yml")
_MISNAMED: Final = re.compile(r"\.ya?ml(\.txt)?$", re.IGNORECASE)
"""Ends of names that editors and file managers of other systems give to YAML."""
_HERE: Final = TextSpan(1, 1)
_FIRST: Final = "`tokgate init` writes a first policy"

_Identity = tuple[int, int]
"""Device and inode: a file is read once, whatever names lead to it."""
_LOOP: Final = "a link that leads back to where it stands"


def policy_files(path: Path, report: Report) -> tuple[Path, ...]:
    """The file itself, or all policy files below a folder in name order.

    Hidden files and folders are skipped: editors keep swap files there, Kubernetes its `..data`.
    """
    try:
        is_folder = path.is_dir()
        if not is_folder and not path.exists():
            code = Code.BROKEN_LINK if path.is_symlink() else Code.NOT_FOUND
            report.error(report.source(path), _HERE, code, f"no such file or folder: {_FIRST}")
            return ()
    except OSError as error:
        report.error(report.source(path), _HERE, Code.UNREADABLE, _in_words(error))
        return ()
    if not is_folder:
        return (path,)
    found = tuple(_files(path, report, set()))
    if not found and not report.failed:
        kinds = " or ".join(f"*{suffix}" for suffix in SUFFIXES)
        report.error(
            report.source(path), _HERE, Code.NO_POLICY_FILES, f"the folder holds no policy file ({kinds}): {_FIRST}"
        )
    return found


def read_named_file(path: Path, report: Report) -> bytes | None:
    """The octets of a file in a folder, as by `read_file`; None, and an error, if it is no regular file."""
    if path.exists() and not path.is_file():
        report.error(report.source(path), _HERE, Code.UNREADABLE, "not a regular file")
        return None
    return read_file(path, report)


def read_file(path: Path, report: Report) -> bytes | None:
    """The octets of a file; None, and an error, if it can't be read or is too large."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        report.error(report.source(path), _HERE, Code.UNREADABLE, _in_words(error))
        return None
    if len(data) > MAX_BYTES:
        limit = f"a policy file holds at most {MAX_BYTES >> 20} MiB: split it, policy folders are read whole"
        report.error(report.source(path), _HERE, Code.TOO_LARGE, limit)
        return None
    return data


def _files(path: Path, report: Report, seen: set[_Identity], above: tuple[_Identity, ...] = ()) -> Iterator[Path]:
    """The policy files at and below a path that are not `seen` yet; `above` are the folders that lead to it."""

    def refuse(code: Code, message: str) -> None:
        report.error(report.source(path), _HERE, code, message)

    named, status = path.name.endswith(SUFFIXES), None
    try:
        status = path.stat()
        inside = sorted(path.iterdir()) if path.is_dir() else None
    except OSError as error:
        if named or status is not None or not isinstance(error, FileNotFoundError):
            refuse(*_refusal(path, error))
        return
    identity = status.st_dev, status.st_ino
    if identity in above:
        refuse(Code.LINK_LOOP, _LOOP)
    elif identity in seen:
        return
    elif inside is not None:
        seen.add(identity)
        for each in (each for each in inside if not each.name.startswith(".")):
            yield from _files(each, report, seen, (*above, identity))
    elif named:
        seen.add(identity)
        yield path
    elif _MISNAMED.search(path.name):
        message = f"not read: the name of a policy file ends in {' or '.join(SUFFIXES)}"
        report.warning(report.source(path), _HERE, Code.SKIPPED_FILE, message)


def _refusal(path: Path, error: OSError) -> tuple[Code, str]:
    if error.errno == errno.ELOOP:
        return Code.LINK_LOOP, _LOOP
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return Code.BROKEN_LINK, f"a link to `{path.readlink()}`, which does not exist"
    return Code.UNREADABLE, _in_words(error)


def _in_words(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "vanished while it was being read"
    return f"can't be read: {(error.strerror or str(error)).lower()}"


_IGNORE: Final = re.compile(r"(?:^|[ \t])(?P<all>#[ \t]*tokgate:[ \t]*ignore\b[ \t]*(?P<code>\S*)[ \t]*(?P<reason>.*))")
_FORM: Final = "# tokgate: ignore CODE reason"
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_ignores(source: Source, report: Report, *, is_yaml: bool = True) -> None:
    """Note what the comments of a file silence: on their own line, or alone on it on the next that is no comment.

    Comments without a known code or without a reason silence nothing, and are told.
    """
    if "tokgate:" not in source.text:
        return
    texts = _texts(source) if is_yaml else []
    for number, line in enumerate(source.lines, 1):
        found = _IGNORE.search(line)
        if found is None or any(start <= (number, found.start("all")) < end for start, end in texts):
            continue
        code, place = found["code"], TextSpan(number, found.start("all") + 1, len(found["all"].rstrip()))
        if code not in Code:
            why = f": there is no diagnostic `{code}`{did_you_mean(code, list(Code))}" if code else f": write `{_FORM}`"
            report.warning(source, place, Code.BAD_IGNORE, f"this silences nothing{why}")
        elif not found["reason"].strip():
            message = f"this silences nothing without a reason: write `{_FORM.replace('CODE', code)}`"
            report.warning(source, place, Code.BAD_IGNORE, message)
        else:
            while source.lines[number - 1].lstrip().startswith("#") and number < len(source.lines):
                number += 1
            report.ignored.add((source.file, number, Code(code)))


def _texts(source: Source) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where each text begins and ends, in which `#` is no comment: lines from 1, columns from 0."""
    try:
        events: list[Any] = [
            each for each in yaml.parse(source.text, Loader=_LOADER) if isinstance(each, yaml.ScalarEvent)
        ]
    except yaml.YAMLError:
        return []
    marks = ((each.start_mark, each.end_mark) for each in events)
    return [((start.line + 1, start.column), (end.line + 1, end.column)) for start, end in marks]
