"""Sorts log files by the order in which they were written, and decodes lines more strictly than `reader`."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final

from tokgate.blocklog.paths import with_rotated
from tokgate.blocklog.read.reader import MAX_LINE, UNREADABLE, open_log
from tokgate.blocklog.records.chain import Head, stated_head
from tokgate.blocklog.records.record import Record, text_at

LONGEST_LINE: Final = 64 << 20
"""Longest line that is read whole, in octets."""
_LOOK_FOR_FIRST: Final = 32
"""Lines of a file that are searched for its first record."""


type OpenLog = Callable[[Path], BinaryIO]
"""Opens a log file for reading, decompressed."""


def in_order(files: Iterable[Path], opener: OpenLog = open_log) -> list[Path]:
    """Files in the order in which they were written, by chain and record number; files without records come last."""
    begins: dict[str, str] = {}
    places: list[tuple[str, int, Path]] = []
    for path in files:
        found = first_record(path, opener)
        if found is None:
            places.append(("", 0, path))
            continue
        record, head = found
        at = text_at(record, "@timestamp") or ""
        begins[head.chain] = min(begins.get(head.chain, at), at)
        places.append((head.chain, head.sequence, path))
    return [path for _, _, path in sorted(places, key=lambda one: (one[0] == "", begins.get(one[0], ""), *one[:2]))]


def written_last(path: Path) -> Path | None:
    """The rotated file of `path` that was written last, by its records; None if that is unknown. Raises OSError.

    Its name may be earlier than others', if the clock went back. It is unknown if only Parquet is left of a later file.
    """
    known = [file for file in with_rotated(path) if file != path and first_record(file, open_log) is not None]
    if not known:
        return None
    latest = in_order(known)[-1]
    later = f"{max(file.name for file in known).partition('Z.')[0]}Z.parquet"
    return None if any(made.name > later for made in path.parent.glob(f"{path.stem}-*.parquet")) else latest


def first_record(path: Path, opener: OpenLog) -> tuple[Record, Head] | None:
    """A file's first record, and its head; None if its first lines hold none. Raises OSError."""
    if path.is_dir():  # verifying reports it, as what can't be read below
        return None
    with opener(path) as stream:
        try:
            for _ in range(_LOOK_FOR_FIRST):
                record, _ = decode_strictly(stream.readline(LONGEST_LINE))
                head = stated_head(record) if record is not None else None
                if record is not None and head is not None:
                    return record, head
        except (*UNREADABLE, ValueError):
            return None
    return None


def decode_strictly(raw: bytes) -> tuple[Record | None, str | None]:
    """The record of a line, and a key that occurs twice in one of its objects, which readers treat differently.

    No record if some reader would skip the line: another encoding than UTF-8, a byte order mark, too long a line.
    """
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> Record:
        collected = dict(pairs)
        if len(collected) != len(pairs):
            keys = [key for key, _ in pairs]
            repeated.append(next(key for key in keys if keys.count(key) > 1))
        return collected

    try:
        value = json.loads(raw.decode(), object_pairs_hook=collect) if len(raw) <= MAX_LINE else None
    except (ValueError, RecursionError):
        return None, None
    return (value, repeated[0] if repeated else None) if isinstance(value, dict) else (None, None)
