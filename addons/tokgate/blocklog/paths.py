"""Names of the block log's companion files, which lie beside it: rotated files, keys, stored state.

Nothing here opens a file.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from whenever import Instant

DEFAULT_LOG: Final = Path("block.ndjson")
PACKED: Final = {".gz": "gzip", ".zst": "zstd"}
"""Suffixes of compressed files, with DuckDB's names for the compression."""
_PACKED: Final = r"(?:\.gz|\.zst)?"
_INSTANT: Final = r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2}\.[0-9]{6})Z"
_ARCHIVED: Final = re.compile(rf"(.+)-{_INSTANT}(?:\..+)?")


# -- written beside the log by its writer, and by who reads it


def key_path_for(log: Path) -> Path:
    """The default file of the key that signs the log: `block.key` for `block.ndjson`."""
    return log.with_suffix(".key")


def public_path_for(key: Path) -> Path:
    """The public part of a key: `block.pub` for `block.key`."""
    return key.with_suffix(".pub")


def secret_path_for(log: Path) -> Path:
    """The secret of pseudonyms: `block.pseudonyms` for `block.ndjson`."""
    return log.with_suffix(".pseudonyms")


def warned_path_for(log: Path) -> Path:
    """The file of clients that continue past a warning: `block.warned`."""
    return log.with_suffix(".warned")


def notified_path_for(log: Path) -> Path:
    """The file of notices that were sent: `block.told.json`."""
    return log.with_suffix(".told.json")


def requests_path_for(log: Path) -> Path:
    """The folder of requests for exceptions: `block.requests`."""
    return log.with_suffix(".requests")


def heads_path_for(log: Path) -> Path:
    """The file of hashes of the latest records: `block.heads`."""
    return log.with_suffix(".heads")


def successions_path_for(log: Path) -> Path:
    """The file of checkpoints that announced the next key: `block.successions`; the same for files rotated away."""
    named = _ARCHIVED.fullmatch(log.name)
    return log.with_name(f"{log.stem if named is None else named[1]}.successions")


def access_path_for(log: Path) -> Path:
    """The file of who looked into the log: `block.access.ndjson`."""
    return log.with_name(f"{log.stem}.access{log.suffix}")


# -- files that were rotated away


def archive_name(path: Path, at: Instant) -> Path:
    """A free name beside `path`: `block-20230310T230000.000000Z.ndjson`; if it is taken, some microseconds later."""
    while True:
        moment = at.format_iso(unit="microsecond", basic=True)
        target = path.with_name(f"{path.stem}-{moment}{path.suffix}")
        if not os.path.lexists(target):
            return target
        at = at.add(microseconds=1)  # names still sort by time, unlike with a number appended


def end_of_archive(name: str) -> Instant | None:
    """The instant in a name that `archive_name` made, whatever its suffixes; None for other names."""
    named = _ARCHIVED.fullmatch(name)
    return None if named is None else _instant(named)


def archived(path: Path) -> Iterator[tuple[Path, Instant]]:
    """Files named by `archive_name`, also compressed, with their instants; oldest first. Raises OSError."""
    ours = re.compile(rf"{re.escape(path.stem)}-{_INSTANT}{re.escape(path.suffix)}{_PACKED}")
    for entry in sorted(path.parent.iterdir()):
        named = ours.fullmatch(entry.name)
        if named is not None and (at := _instant(named)) is not None and entry.is_file():
            yield entry, at


def _instant(named: re.Match[str]) -> Instant | None:
    year, month, day, hour, minute, second = named.groups()[-6:]
    try:
        return Instant.parse_iso(f"{year}-{month}-{day}T{hour}:{minute}:{second}Z")
    except ValueError:
        return None


def with_rotated(path: Path) -> list[Path]:
    """The rotated files of `path`, oldest first, then `path` itself if it exists.

    tokgate's are `block-<instant>.ndjson`; logrotate's `block.ndjson.2.gz` and `block.ndjson-20230310` are found too.
    A compressed copy is left out while its file is there: `gzip` is not done yet, and `zstd` leaves the file.
    """
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    ours = re.compile(rf"{stem}-[0-9]{{8}}T[0-9.]+Z{suffix}{_PACKED}")
    dated = re.compile(rf"{stem}{suffix}-[0-9]+{_PACKED}")
    counted = re.compile(rf"{stem}{suffix}\.([0-9]+){_PACKED}")
    found: list[tuple[int, str]] = []
    for entry in path.parent.iterdir() if path.parent.is_dir() else ():
        number = counted.fullmatch(entry.name)
        if number is not None:
            found.append((-int(number[1]), entry.name))
        elif ours.fullmatch(entry.name) or dated.fullmatch(entry.name):
            found.append((-(1 << 62), entry.name))
    names: dict[str, str] = {}
    for _, name in sorted(found):
        names.setdefault(_unpacked(name), name)  # a file sorts before its copies
    files = [path.with_name(name) for name in names.values()]
    return [*files, path] if path.exists() or not files else files


def every_file(path: Path) -> list[Path]:
    """The files of a log that are there, oldest first."""
    return [file for file in with_rotated(path) if file.exists()]


def whole_log(named: Iterable[Path], *, rotated: bool = True) -> list[Path]:
    """The files of logs, oldest first, with the rotated ones; a named file also if it is not there."""
    return list(dict.fromkeys(file for path in named for file in (with_rotated(path) if rotated else [path])))


def bare_name(name: str) -> str:
    """The name of a rotated file without suffixes, which its compressed forms share."""
    return Path(_unpacked(name)).stem


def _unpacked(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".zst")
