"""The files that belong to a log: each has its own name beside it, and none is made beside what is no file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tokgate.blocklog import paths

LOG = Path("logs/block.ndjson")


def test_companions_have_names_of_their_own() -> None:
    """No file beside the log overwrites another, or is taken for a part of the log."""
    key = paths.key_path_for(LOG)
    found = [
        key,
        paths.public_path_for(key),
        paths.secret_path_for(LOG),
        paths.warned_path_for(LOG),
        paths.notified_path_for(LOG),
        paths.compacted(LOG),
    ]
    assert [str(path) for path in found] == [
        "logs/block.key",
        "logs/block.pub",
        "logs/block.pseudonyms",
        "logs/block.warned",
        "logs/block.told.json",
        "logs/block.parquet",
    ]


def test_nothing_of_it_is_read_as_the_log(tmp_path: Path) -> None:
    """Keys and state beside a log are not lines of it, nor are they ever deleted as old ones."""
    log = tmp_path / "block.ndjson"
    key = paths.key_path_for(log)
    kept = (key, paths.public_path_for(key), paths.secret_path_for(log), paths.warned_path_for(log))
    for path in (log, *kept, paths.notified_path_for(log)):
        assert path is not None
        path.touch()
    assert paths.with_rotated(log) == [log]
    assert list(paths.archived(log)) == []
    assert list(paths.parquet_of(log)) == []


@pytest.mark.parametrize("name_for", [paths.warned_path_for, paths.notified_path_for])
def test_beside_a_device_there_is_nothing(name_for: Callable[[Path], Path | None]) -> None:
    """A log that goes to a pipe or a device gets no files in the device's folder."""
    assert name_for(Path("/dev/null")) is None


@pytest.mark.parametrize(
    ("name", "parquet"),
    [
        ("block-20230310T230000.000000Z.ndjson", "block-20230310T230000.000000Z.parquet"),
        ("block-20230310T230000.000000Z.ndjson.gz", "block-20230310T230000.000000Z.parquet"),
        ("block.ndjson-20230310", "block.ndjson-20230310.parquet"),
        ("block.ndjson.1", None),
        ("block.ndjson.1.gz", None),
    ],
)
def test_parquet_of_a_rotated_file(name: str, parquet: str | None) -> None:
    """A name that the next rotation gives to other lines has none: it would stand for the wrong ones."""
    assert paths.compacted(Path(name)) == (None if parquet is None else Path(parquet))
    if parquet is not None:
        assert paths.bare_name(name) == paths.bare_name(name.removesuffix(".gz"))
