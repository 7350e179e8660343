"""Log files in the order in which they were written, and their lines read more strictly than readers do."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final

from tokgate.blocklog.chain import Head, stated_head
from tokgate.blocklog.document import Record
from tokgate.blocklog.reader import MAX_LINE, open_log, text_at, with_rotated

LONGEST_LINE: Final = 64 << 20
"""Longest line that is looked at as a whole, in octets."""
_LOOK_FOR_FIRST: Final = 32
"""Lines in which a file's first record must be found for the file to be put in its place among others."""


type Opener = Callable[[Path], BinaryIO]
"""Gives the octets of a log file as they were written, whatever it is packed in."""


def in_order(files: Iterable[Path], opener: Opener = open_log) -> list[Path]:
    """Files in the order in which they were written, by chain and number. Those without any keep theirs, at the end."""
    begins: dict[str, str] = {}
    places: list[tuple[str, int, Path]] = []
    for path in files:
        found = _first_record(path, opener)
        if found is None:
            places.append(("", 0, path))
            continue
        record, head = found
        at = text_at(record, "@timestamp") or ""
        begins[head.chain] = min(begins.get(head.chain, at), at)
        places.append((head.chain, head.sequence, path))
    return [path for _, _, path in sorted(places, key=lambda one: (one[0] == "", begins.get(one[0], ""), *one[:2]))]


def written_last(path: Path) -> Path | None:
    """The file that was written last of those rotated away from `path`, by its records; None if that can't be told.

    A clock that went back may have given it an earlier name than others have. Where `tokgate log compact` left only
    Parquet of a later one, that can't be read here. Raises OSError.
    """
    known = [file for file in with_rotated(path) if file != path and _first_record(file, open_log) is not None]
    if not known:
        return None
    latest = in_order(known)[-1]
    later = f"{max(file.name for file in known).partition('Z.')[0]}Z.parquet"
    return None if any(made.name > later for made in path.parent.glob(f"{path.stem}-*.parquet")) else latest


def _first_record(path: Path, opener: Opener) -> tuple[Record, Head] | None:
    with opener(path) as stream:
        try:
            for _ in range(_LOOK_FOR_FIRST):
                record, _ = decode_strictly(stream.readline(LONGEST_LINE))
                head = stated_head(record) if record is not None else None
                if record is not None and head is not None:
                    return record, head
        except (OSError, EOFError, ValueError):  # reading it will tell
            return None
    return None


def decode_strictly(raw: bytes) -> tuple[Record | None, str | None]:
    """The record of a line; and a key that stands twice in one of its objects, where readers would differ.

    None for what some reader would pass over: other encodings than UTF-8, a byte order mark, a line that is too long.
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
