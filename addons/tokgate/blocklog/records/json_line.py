"""Encodes a record as one line of JSON, and decodes it."""

import json
from typing import Final

from tokgate.blocklog.records.record import Record

_encoder: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode(record: Record) -> bytes:
    """One line of UTF-8 with its newline. Raises TypeError or ValueError for what JSON can't represent."""
    # A lone surrogate becomes a JSON escape, which is valid in strings, the only place where one can be.
    return _encoder.encode(record).encode("utf-8", "backslashreplace") + b"\n"


def decode(line: bytes) -> Record:
    """The record of a line. Raises ValueError for anything else than a JSON object in UTF-8."""
    try:
        value = json.loads(line.decode("utf-8"))  # of bytes, json would also take UTF-16 and UTF-32
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
