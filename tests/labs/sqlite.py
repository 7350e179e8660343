"""Sigma rules run for real: as SQL, by SQLite, over lines of the log flattened to columns."""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sigma.backends.sqlite.sqlite import sqliteBackend
from sigma.collection import SigmaCollection
from sigma.processing.pipeline import ProcessingPipeline

from tokgate.blocklog.records.log_schema import log_schema


def alerts(rule: Path, pipeline: Path, records: Sequence[Mapping[str, Any]]) -> int:
    """How many alerts a rule makes of records."""
    backend = sqliteBackend(ProcessingPipeline.from_yaml(pipeline.read_text(encoding="utf-8")))
    (query,) = backend.convert(SigmaCollection.from_yaml(rule.read_text(encoding="utf-8")))
    query = query.replace("<TABLE_NAME>", "logs")
    with closing(sqlite3.connect(":memory:")) as database:
        database.create_function("REGEXP", 2, lambda pattern, text: text is not None and bool(re.search(pattern, text)))
        names = ["timestamp", *dict.fromkeys(_leaves(log_schema()))]
        database.execute(f"CREATE TABLE logs ({', '.join(f'`{name}`' for name in names)})")
        for record in records:
            flat = {name: value for name, value in _flat(record) if name in names} | {"timestamp": record["@timestamp"]}
            columns = ", ".join(f"`{name}`" for name in flat)
            database.execute(f"INSERT INTO logs ({columns}) VALUES ({', '.join('?' * len(flat))})", list(flat.values()))
        return len(database.execute(query).fetchall())


def _leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        if inner.get("properties"):
            yield from _leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def _flat(fields: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Fields by their names with dots. Lists stand for themselves: no rule looks into one."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", str(value) if isinstance(value, list) else value
