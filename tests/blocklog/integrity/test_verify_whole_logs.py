"""What somebody with a shell does to a folder of logs, rotated, packed, of two instances: told by file and line."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from whenever import Instant

from labs.appending import AppenderRuns, append
from labs.samples import OBSERVER
from tokgate.blocklog.atomic_file import zstd
from tokgate.blocklog.integrity.chain_state import Finding
from tokgate.blocklog.integrity.checkpoint import read_public_key, sign
from tokgate.blocklog.integrity.trusted_keys import checkpoints_in
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import with_rotated
from tokgate.blocklog.records.chain import Head, link, stated_head
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.log_state import log_checkpoint
from tokgate.blocklog.records.record import Record, Stamp, encode, new_stamp
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.segment import Rotation

GZ, ZST, PLAIN, CURRENT = 0, 1, 3, -1
"""Files of the log: 16, of some 14 records each."""
_PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstd.compress}
_UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".zst": zstd.decompress}

type Edit = Callable[[Path], object]


class _Ticking(AppenderRuns):
    """Runs in which each record is a moment after the one before."""

    def stamp(self) -> Stamp:
        self.now = self.now.add(microseconds=1)
        return super().stamp()


def _written(folder: Path, text: str) -> None:
    """Four runs of 47 records each, with a checkpoint after ten, rotated by size."""
    folder.mkdir()
    kept: list[str] = []
    options = LogOptions(outlets=(kept.append,), records=10)
    runs = _Ticking(folder / "block.ndjson", Rotation(max_bytes=9000, daily=False), options)
    for number in range(4):
        run = runs.begin()
        for each in range(47):
            append(run, stopped(runs.stamp(), 1, f"{text} {number} {each}"))
        runs.write(run, 0, attest=True)
        run.leave("closed")
    assert not runs.troubles
    (folder / "kept.txt").write_text("\n".join(kept))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two instances' logs, `own` and `other`; the first two files of each are packed."""
    folder = tmp_path_factory.mktemp("logs")
    for name in ("own", "other"):
        _written(folder / name, name)
        for place, ending in ((GZ, ".gz"), (ZST, ".zst")):
            plain = files(folder / name)[place]
            plain.with_name(plain.name + ending).write_bytes(_PACK[ending](plain.read_bytes()))
            plain.unlink()
    return folder


def files(folder: Path) -> list[Path]:
    """The log's files, oldest first, the current one last."""
    return [path for path in with_rotated(folder / "block.ndjson") if path.exists()]


def lines_of(path: Path) -> list[bytes]:
    return _UNPACK.get(path.suffix, bytes)(path.read_bytes()).splitlines(keepends=True)


def put(path: Path, lines: list[bytes]) -> None:
    """Write lines, packed as the file's name says."""
    path.write_bytes(_PACK.get(path.suffix, bytes)(b"".join(lines)))


def edit(place: int, change: Callable[[list[bytes]], object]) -> Edit:

    def do(folder: Path) -> None:
        path = files(folder)[place]
        lines = lines_of(path)
        change(lines)
        put(path, lines)

    return do


def octets(place: int, change: Callable[[bytes], bytes]) -> Edit:
    """Change one file's octets as they are on the disk."""

    def do(folder: Path) -> None:
        path = files(folder)[place]
        path.write_bytes(change(path.read_bytes()))

    return do


def _flip(at: float) -> Callable[[bytes], bytes]:
    def do(data: bytes) -> bytes:
        place = min(int(len(data) * at), len(data) - 1)
        return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]

    return do


def _without_checkpoints(lines: list[bytes]) -> None:
    lines[:] = [line for line in lines if json.loads(line)["event"]["action"] != "log-checkpoint"]


def _forged_deletion(folder: Path) -> None:
    gone = files(folder)[:3]
    record = {
        "@timestamp": "2023-03-10T13:00:00.000000Z",
        "event": {"action": "log-deleted", "sequence": 300, "hash": "0" * 64},
        "tokgate": {"deleted": {"files": [path.name for path in gone], "days": 1}},
    }
    for path in gone:
        path.unlink()
    with files(folder)[CURRENT].open("ab") as stream:
        stream.write(json.dumps(record).encode() + b"\n")


def _moved_line(folder: Path) -> None:
    line = lines_of(files(folder)[PLAIN])[5]
    edit(PLAIN, lambda lines: lines.pop(5))(folder)
    edit(2, lambda lines: lines.append(line))(folder)


def _rehashed(folder: Path) -> None:
    """Everything after a line of the current file says something else, with hashes that fit."""
    path = files(folder)[CURRENT]
    lines = lines_of(path)
    head = stated_head(json.loads(lines[2]))
    for number in range(3, len(lines)):
        record, head = link(head or Head("none"), json.loads(lines[number]) | {"message": "nothing"})
        lines[number] = encode(record)
    put(path, lines)


def _flood(folder: Path) -> None:
    path = files(folder)[CURRENT]
    lines = lines_of(path)
    head = stated_head(json.loads(lines[-1]))
    for _ in range(1600):
        record, head = link(head or Head("none"), json.loads(lines[0]))
        lines.append(encode(record))
    put(path, lines)


def _next(folder: Path, record: Record) -> None:
    """A record behind the last, with a number and a hash that fit."""
    path = files(folder)[CURRENT]
    head = stated_head(json.loads(lines_of(path)[-1]))
    path.write_bytes(path.read_bytes() + encode(link(head or Head("none"), record)[0]))


def _checkpoints(folder: Path) -> list[bytes]:
    return [line for line in lines_of(files(folder)[CURRENT]) if b'"log-checkpoint"' in line]


def _by_another_key(folder: Path) -> None:
    """A checkpoint over all records, by a key of the forger's own."""
    head = stated_head(json.loads(lines_of(files(folder)[CURRENT])[-1]))
    made = sign(Ed25519PrivateKey.generate(), head or Head("none"), "2023-03-10T13:00:00Z", 0)
    _next(folder, log_checkpoint(new_stamp(Instant.parse_iso(made.at), OBSERVER), made.as_json()))


def _all_by_another_key(folder: Path) -> None:
    """The whole log rechained, and each checkpoint signed anew, by a key of the forger's own."""
    key, head = Ed25519PrivateKey.generate(), None
    for path in files(folder):
        lines = []
        for line in lines_of(path):
            record = json.loads(line)
            head = head or Head(record["tokgate"]["chain"])
            said = record["tokgate"].get("checkpoint")
            if said is not None:
                record["tokgate"]["checkpoint"] = sign(key, head, said["at"], 0).as_json()
            if "continues" in record["tokgate"]:
                record["tokgate"]["continues"] |= {"sequence": head.sequence, "hash": head.hash}
            record, head = link(head, record)
            lines.append(encode(record))
        put(path, lines)


def _older_copy(folder: Path) -> None:
    *_, before, current = files(folder)
    current.unlink()
    before.rename(current)


def _of_other(place: int, some: slice) -> Edit:
    def do(folder: Path) -> None:
        theirs = lines_of(files(folder.parent.parent / "other")[place])
        edit(place, lambda lines: lines.__setitem__(some, theirs[some]))(folder)

    return do


def _all_of_other(folder: Path) -> None:
    for path in files(folder):
        path.unlink()
    for path in files(folder.parent.parent / "other"):
        shutil.copy(path, folder)


ANYWHERE: dict[str, Callable[[list[bytes]], object]] = {
    "the first deleted": lambda lines: lines.pop(0),
    "the last deleted": lambda lines: lines.pop(),
    "one changed": lambda lines: lines.__setitem__(5, lines[5].replace(b"own", b"his")),
    "cut in the last line": lambda lines: lines.__setitem__(-1, lines[-1][:50]),
    "two made one": lambda lines: lines.__setitem__(5, lines[5].rstrip(b"\n")),
    "zeros": lambda lines: lines.insert(5, bytes(100) + b"\n"),
    "emptied": lambda lines: lines.clear(),
    "checkpoints deleted": _without_checkpoints,
    "from one checkpoint to the next": lambda lines: lines.__delitem__(slice(3, 14)),
    "a byte order mark": lambda lines: lines.__setitem__(0, b"\xef\xbb\xbf" + lines[0]),
    "another encoding": lambda lines: lines.__setitem__(5, lines[5].decode().encode("utf-16")),
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
    "three deleted, with a forged record of it": _forged_deletion,
    "a line in another file": _moved_line,
    "a copy of a file": lambda folder: shutil.copy(
        files(folder)[PLAIN], folder / "block-20240101T000000.000000Z.ndjson"
    ),
    "an older copy": _older_copy,
    "another instance's lines": _of_other(PLAIN, slice(5, 8)),
    "another instance's tail": _of_other(CURRENT, slice(5, None)),
    "another instance's file": _of_other(PLAIN, slice(None)),
    "another instance's log": _all_of_other,
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
    "rehashed from a line on": _rehashed,
    "sixteen hundred forged records": _flood,
    "a checkpoint replayed": lambda folder: octets(CURRENT, lambda data: data + _checkpoints(folder)[0])(folder),
    "a checkpoint replayed as the next record": lambda folder: _next(folder, json.loads(_checkpoints(folder)[0])),
    "a checkpoint by another key": _by_another_key,
    "all of it by another key": _all_by_another_key,
    "text appended": octets(CURRENT, lambda data: data + b"hello\n"),
    "text appended without an end": octets(CURRENT, lambda data: data + b"hello"),
    "a record of no chain appended": octets(CURRENT, lambda data: data + b'{"@timestamp":"2023-03-10T13:00:00Z"}\n'),
}
HARMLESS: dict[str, Edit] = {
    "nothing": lambda _: None,
    "packed later": lambda folder: octets(PLAIN, bytes)(folder),
    "packed in two parts": octets(
        GZ, lambda data: gzip.compress(gzip.decompress(data)[:5000]) + gzip.compress(gzip.decompress(data)[5000:])
    ),
    "written anew by a shipper": edit(
        PLAIN, lambda lines: lines.__setitem__(slice(None), [json.dumps(json.loads(x)).encode() + b"\n" for x in lines])
    ),
    "names swapped": lambda folder: (
        (first := files(folder)[2]).rename(folder / "aside"),
        (second := files(folder)[3]).rename(first),
        (folder / "aside").rename(second),
    ),
}


def _forged_tail(folder: Path) -> None:
    for number in range(5):
        _next(folder, json.loads(lines_of(files(folder)[CURRENT])[0]) | {"message": f"forged {number}"})


def _cut_with_what_was_kept(folder: Path) -> None:
    lines, kept = lines_of(files(folder)[CURRENT]), (folder / "kept.txt").read_text().splitlines()
    signed = [number for number, line in enumerate(lines) if b'"log-checkpoint"' in line]
    put(files(folder)[CURRENT], lines[: signed[-2] + 1])
    (folder / "kept.txt").write_text("\n".join(kept[:-1]))


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
    folder = tmp_path / "logs" / "own"
    shutil.copytree(written / "own", folder)
    (tmp_path / "other").symlink_to(written / "other")
    change(folder)
    with (folder / "kept.txt").open() as kept:
        checkpoints = [*checkpoints_in(kept, "kept.txt")]
    trusted = [read_public_key(written / "own" / "block.pub")]
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
