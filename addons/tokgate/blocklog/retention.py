"""How long the log is kept: whole files that were rotated away long enough ago are deleted, oldest first."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from whenever import Instant

_INSTANT: Final = r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2}\.[0-9]{6})Z"


def expired(path: Path, before: Instant) -> Iterator[Path]:
    """Files rotated away from `path` by tokgate itself, whose last line is from before an instant; oldest first.

    Others' names don't say when their content ends: who made them deletes them. Raises OSError.
    """
    packed = rf"(?:{re.escape(path.suffix)}(?:\.gz|\.zst)?|\.parquet)"  # the last is what `tokgate log compact` makes
    ours = re.compile(rf"{re.escape(path.stem)}-{_INSTANT}{packed}")
    for entry in sorted(path.parent.iterdir()):
        named = ours.fullmatch(entry.name)
        if named is not None and (ended := _instant(named)) is not None and ended <= before and entry.is_file():
            yield entry


def _instant(named: re.Match[str]) -> Instant | None:
    year, month, day, hour, minute, second = named.groups()
    try:
        return Instant.parse_iso(f"{year}-{month}-{day}T{hour}:{minute}:{second}Z")
    except ValueError:
        return None
