"""Finds and reads the files of a policy. Errors of files and folders become diagnostics."""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tokgate.config.diagnostics import Code
from tokgate.config.yaml.source import Report, TextSpan

MAX_BYTES: Final = 16 << 20
"""Largest policy file in octets: several times what 100,000 names take."""

SUFFIXES: Final = (".yaml", ".yml")
_MISNAMED: Final = re.compile(r"\.ya?ml(\.txt)?$", re.IGNORECASE)
"""Ends of names that editors and file managers of other systems give to YAML."""
_HERE: Final = TextSpan(1, 1)
_FIRST: Final = "`tokgate init` writes a first policy"

_Identity = tuple[int, int]
"""Device and inode: a file is read once, whatever names lead to it."""


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
    walk = _Walk(report)
    found = tuple(walk.files(path, ()))
    if not found and not report.failed:
        kinds = " or ".join(f"*{suffix}" for suffix in SUFFIXES)
        report.error(
            report.source(path), _HERE, Code.NO_POLICY_FILES, f"the folder holds no policy file ({kinds}): {_FIRST}"
        )
    return found


def read_other(path: Path, report: Report) -> bytes | None:
    """The octets of a file that a policy names, as by `read`; None, and an error, if it is no regular file."""
    if path.exists() and not path.is_file():
        report.error(report.source(path), _HERE, Code.UNREADABLE, "not a regular file")
        return None
    return read(path, report)


def read(path: Path, report: Report) -> bytes | None:
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


@dataclass(slots=True)
class _Walk:
    """One walk through a folder, with the files and folders that were seen."""

    report: Report
    seen: set[_Identity] = field(default_factory=set)

    def files(self, folder: Path, above: tuple[_Identity, ...]) -> Iterator[Path]:
        """Policy files in and below `folder`; `above` are its parents."""
        try:
            identity = _identity(folder.stat())
            entries = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
        except OSError as error:
            self.report.error(self.report.source(folder), _HERE, Code.UNREADABLE, _in_words(error))
            return
        if identity in above:
            self._loop(folder)
            return
        if identity in self.seen:
            return
        self.seen.add(identity)
        for each in entries:
            yield from self._entry(each, (*above, identity))

    def _entry(self, path: Path, above: tuple[_Identity, ...]) -> Iterator[Path]:
        try:
            status = path.stat()
        except FileNotFoundError:
            if path.name.endswith(SUFFIXES):
                self._gone(path)
            return
        except OSError as error:
            if error.errno == errno.ELOOP:
                self._loop(path)
            else:
                self.report.error(self.report.source(path), _HERE, Code.UNREADABLE, _in_words(error))
            return
        if path.is_dir():
            yield from self.files(path, above)
        elif path.name.endswith(SUFFIXES) and _identity(status) not in self.seen:
            self.seen.add(_identity(status))
            if path.is_file():
                yield path
            else:
                self.report.error(self.report.source(path), _HERE, Code.UNREADABLE, "not a regular file")
        elif _MISNAMED.search(path.name) and _identity(status) not in self.seen:
            message = f"not read: the name of a policy file ends in {' or '.join(SUFFIXES)}"
            self.report.warning(self.report.source(path), _HERE, Code.SKIPPED_FILE, message)

    def _gone(self, path: Path) -> None:
        if path.is_symlink():
            target = f"a link to `{path.readlink()}`, which does not exist"
            self.report.error(self.report.source(path), _HERE, Code.BROKEN_LINK, target)
        else:
            self.report.error(
                self.report.source(path), _HERE, Code.UNREADABLE, "the file vanished while it was being read"
            )

    def _loop(self, path: Path) -> None:
        message = "a link that leads back to where it stands"
        self.report.error(self.report.source(path), _HERE, Code.LINK_LOOP, message)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _in_words(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "vanished while it was being read"
    return f"can't be read: {(error.strerror or str(error)).lower()}"
