"""The files that belong to a log: each has its own name beside it, and none is made beside what is no file."""

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
    ]
    assert [str(path) for path in found] == [
        "logs/block.key",
        "logs/block.pub",
        "logs/block.pseudonyms",
        "logs/block.warned",
        "logs/block.told.json",
    ]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_file_is_known_in_any_compression(ending: str) -> None:
    """What a log states to continue may have been compressed meanwhile."""
    assert paths.bare_name(f"block-20230310T230000.000000Z.ndjson{ending}") == "block-20230310T230000.000000Z"


def test_a_log_is_its_files_and_never_a_file_twice(tmp_path: Path) -> None:
    """Rotated and compressed, oldest first; of a file and its compressed copy the file."""
    names = [
        "block-20230309T000000.000000Z.ndjson.zst", "block-20230310T000000.000000Z.ndjson",
        "block-20230310T000000.000000Z.ndjson.zst", "block.ndjson", "other.ndjson", "block.html",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    log = tmp_path / "block.ndjson"
    assert [path.name for path in paths.whole_log([log, log])] == [names[0], names[1], names[3]]
    assert paths.every_file(log) == paths.whole_log([log])
    assert paths.whole_log([log], rotated=False) == [log]
    missing = tmp_path / "missing.ndjson"
    assert (paths.whole_log([missing]), paths.every_file(missing)) == ([missing], [])
