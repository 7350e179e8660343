"""What somebody with a shell does to a folder of files, packed and not: told by file and line; moving is no offence."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from labs.appending import AppenderRuns
from tokgate.blocklog.atomic_file import zstd
from tokgate.blocklog.integrity.chain_state import Finding
from tokgate.blocklog.integrity.checkpoint import read_public_key
from tokgate.blocklog.integrity.trusted_keys import checkpoints_in
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import every_file
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.segment import Rotation

GZ, ZST, PLAIN, CURRENT = 0, 1, 3, -1
"""Files of the log: 18, of some 13 records each."""
_PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstd.compress}
_UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".zst": zstd.decompress}

type Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs of 47 records each, with a checkpoint after ten, rotated by size; the first two files are packed."""
    folder, kept = tmp_path_factory.mktemp("log"), list[str]()
    options = LogOptions(outlets=(kept.append,), records=10)
    runs = AppenderRuns(folder / "block.ndjson", Rotation(max_bytes=9000, daily=False), options)
    for _ in range(4):
        runs.run(47)
    assert not runs.troubles
    (folder / "kept.txt").write_text("\n".join(kept))
    for plain, (ending, pack) in zip(runs.files, _PACK.items(), strict=False):
        plain.with_name(plain.name + ending).write_bytes(pack(plain.read_bytes()))
        plain.unlink()
    return folder


def files(folder: Path) -> list[Path]:
    """The log's files, oldest first, the current one last."""
    return every_file(folder / "block.ndjson")


def edit(place: int, change: Callable[[list[bytes]], object]) -> Edit:
    """Change one file's lines, packed as its name says."""

    def do(folder: Path) -> None:
        path = files(folder)[place]
        lines = _UNPACK.get(path.suffix, bytes)(path.read_bytes()).splitlines(keepends=True)
        change(lines)
        path.write_bytes(_PACK.get(path.suffix, bytes)(b"".join(lines)))

    return do


def octets(place: int, change: Callable[[bytes], bytes]) -> Edit:
    """Change one file's octets as they are on the disk."""

    def do(folder: Path) -> None:
        path = files(folder)[place]
        path.write_bytes(change(path.read_bytes()))

    return do


def _flip(at: float) -> Callable[[bytes], bytes]:
    def do(data: bytes) -> bytes:
        place = int(len(data) * at)
        return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]

    return do


ANYWHERE: dict[str, Callable[[list[bytes]], object]] = {
    "the first deleted": lambda lines: lines.pop(0),
    "the last deleted": lambda lines: lines.pop(),
    "one changed": lambda lines: lines.__setitem__(5, lines[5].replace(b"gw1", b"gw2")),
    "emptied": lambda lines: lines.clear(),
}
MANIPULATIONS: dict[str, Edit] = {
    f"{what}, {name}": edit(place, change)
    for what, change in ANYWHERE.items()
    for name, place in (("gz", GZ), ("zst", ZST), ("plain", PLAIN), ("current", CURRENT))
} | {
    "a packed file deleted": lambda folder: files(folder)[GZ].unlink(),
    "a file deleted": lambda folder: files(folder)[PLAIN].unlink(),
    "the current file deleted": lambda folder: files(folder)[CURRENT].unlink(),
    "all but the current deleted": lambda folder: [path.rename(folder / path.stem[-5:]) for path in files(folder)[:-1]],
    "a copy of a file": lambda folder: shutil.copy(
        files(folder)[PLAIN], folder / "block-20240101T000000.000000Z.ndjson"
    ),
    "gz cut": octets(GZ, lambda data: data[: len(data) // 2]),
    "gz without its sum": octets(GZ, lambda data: data[:-4]),
    "gz with another head": octets(GZ, _flip(0)),
    "gz flipped": octets(GZ, _flip(0.5)),
    "gz and more": octets(GZ, lambda data: data + b"more"),
    "gz and another line": octets(GZ, lambda data: data + gzip.compress(b'{"x":1}\n')),
    "gz of nothing": octets(GZ, lambda _: b""),
    "zst cut": octets(ZST, lambda data: data[:-1]),
    "zst with another head": octets(ZST, _flip(0)),
    "zst flipped": octets(ZST, _flip(0.5)),
    "zst and more": octets(ZST, lambda data: data + b"more"),
    "zst of nothing": octets(ZST, lambda _: b""),
}
HARMLESS: dict[str, Edit] = {
    "nothing": lambda _: None,
    "packed in two parts": octets(
        GZ, lambda data: gzip.compress(gzip.decompress(data)[:5000]) + gzip.compress(gzip.decompress(data)[5000:])
    ),
    "written anew by a shipper": edit(
        PLAIN, lambda lines: lines.__setitem__(slice(None), [_spread(line) for line in lines])
    ),
    "without its last newline": octets(CURRENT, lambda data: data[:-1]),
    "names swapped": lambda folder: (
        (first := files(folder)[2]).rename(folder / "aside"),
        (second := files(folder)[3]).rename(first),
        (folder / "aside").rename(second),
    ),
}


def _spread(line: bytes) -> bytes:
    """The same content, with white space and in another order."""
    return json.dumps(json.loads(line), sort_keys=True).encode() + b"\n"


def _forged_tail(folder: Path) -> None:
    runs = AppenderRuns(folder / "block.ndjson")
    runs.forge(*(json.loads(files(folder)[CURRENT].read_bytes().splitlines()[0]) for _ in range(5)))


def _cut_with_what_was_kept(folder: Path) -> None:
    lines, kept = files(folder)[CURRENT].read_bytes().splitlines(keepends=True), (folder / "kept.txt").read_text()
    signed = [number for number, line in enumerate(lines) if b'"log-checkpoint"' in line]
    files(folder)[CURRENT].write_bytes(b"".join(lines[: signed[-2] + 1]))
    (folder / "kept.txt").write_text(kept.rpartition("\n")[0])


DOCUMENTED: dict[str, tuple[Edit, str]] = {
    "five forged records behind the last": (
        _forged_tail,
        "records that somebody appends to the log of a run that was killed look like its last ones",
    ),
    "a tail that no checkpoint elsewhere attests": (
        _cut_with_what_was_kept,
        "records since the last checkpoint that was sent elsewhere, up to a minute of them, can be cut",
    ),
}
DOCS = Path(__file__).parents[3] / "docs" / "log.md"


def _found(written: Path, tmp_path: Path, change: Edit) -> list[Finding]:
    folder = tmp_path / "log"
    shutil.copytree(written, folder)
    change(folder)
    with (folder / "kept.txt").open() as kept:
        checkpoints = [*checkpoints_in(kept, "kept.txt")]
    trusted = [read_public_key(written / "block.pub")]
    return [*Verifier(trusted, checkpoints, whole=True).run(files(folder))]


@pytest.mark.parametrize("change", MANIPULATIONS.values(), ids=MANIPULATIONS)
def test_it_is_found(written: Path, tmp_path: Path, change: Edit) -> None:
    """With a file of the log and a line in it."""
    found = _found(written, tmp_path, change)
    assert found
    assert all(finding.line >= 1 and Path(finding.file).name.startswith(("block", "kept")) for finding in found)


@pytest.mark.parametrize(("change", "said"), DOCUMENTED.values(), ids=DOCUMENTED)
def test_it_is_documented(written: Path, tmp_path: Path, change: Edit, said: str) -> None:
    """What no verification can find is said to whoever relies on one."""
    assert _found(written, tmp_path, change) == []
    assert said in " ".join(DOCS.read_text().split())


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_nobody_is_accused(written: Path, tmp_path: Path, change: Edit) -> None:
    """What leaves each record as it was, in a place of its own, is no finding."""
    assert _found(written, tmp_path, change) == []
