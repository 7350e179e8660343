"""The writer under load, with failing disks, on SIGHUP and at the end: it never holds up and never hides a loss."""

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import Any

import pytest
from whenever import Instant

from labs import logs, waiting
from labs.samples import OBSERVER
from tokgate.blocklog.integrity.checkpoint import read_public_key
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import key_path_for, public_path_for, with_rotated
from tokgate.blocklog.read.reader import Line, read
from tokgate.blocklog.records.record import new_stamp
from tokgate.blocklog.write import writer as writer_module
from tokgate.blocklog.write.appender import Appender
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.segment import LogRefused, Rotation, Segment
from tokgate.blocklog.write.writer import LogWriter, WriterLimits

Lines = Callable[..., list[dict[str, Any]]]
type Make = Callable[..., LogWriter]
QUICK = WriterLimits(linger=0.0, retry_first=0.005, retry_longest=0.02)


until = partial(waiting.until, "the writer gets there")


def refusal(number: int = 1) -> dict[str, Any]:
    """A real record; `number` is its source port."""
    return logs.refusal() | {"source": {"ip": "192.0.2.7", "port": number}}


def numbers(records: list[dict[str, Any]]) -> list[int]:
    """The source ports of the records about traffic."""
    return [record["source"]["port"] for record in records if "source" in record]


def lines(*paths: Path) -> list[dict[str, Any]]:
    """The records of files, of which so many are alike that they need not all be checked against the schema."""
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def actions(records: list[dict[str, Any]]) -> list[str]:
    return [record["event"]["action"] for record in records]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "block.ndjson"


@pytest.fixture
def make() -> Iterator[Make]:
    """Starts writers, and closes them after the test."""
    writers = []

    def start(path: Path, limits: WriterLimits = QUICK, options: LogOptions | None = None) -> LogWriter:
        writer = LogWriter(path, OBSERVER, limits=limits, options=options)
        writers.append(writer)
        writer.start()
        return writer

    yield start
    for writer in writers:
        writer.close(0.0)


def test_what_is_put_is_in_the_file(path: Path, make: Make, check_lines: Lines) -> None:
    """After a flush all records are there, in order, and health says so."""
    writer = make(path)
    assert all(writer.put(refusal(n)) for n in range(500))
    assert writer.mark().wait(waiting.DEADLINE)
    assert numbers(check_lines(path)) == list(range(500))
    health = writer.health()
    assert (health.ok, health.dropped, health.queued, health.last_error) == (True, 0, 0, None)
    assert health.written == len(lines(path)) == 501  # with the checkpoint that a run begins with
    assert writer.close(waiting.DEADLINE)
    assert not writer.put(refusal())


def test_the_first_record_is_signed_with_it(path: Path, check_lines: Lines) -> None:
    """Not only when the next record comes: a crash in between would leave it unsigned."""
    writer = LogWriter(path, OBSERVER, limits=QUICK)
    writer.put(refusal())
    writer._turn()
    assert actions(check_lines(path)) == [refusal()["event"]["action"], "log-checkpoint"]
    writer.close(waiting.DEADLINE)


def test_many_threads_lose_nothing(path: Path, make: Make) -> None:
    """Records of eight threads are all there, those of each in its order, over rotations by size."""
    writer = make(path, WriterLimits(queued=1 << 20, rotation=Rotation(max_bytes=200_000)))

    def work(thread: int) -> None:
        for n in range(250):
            writer.put(refusal(thread * 1000 + n))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.close(waiting.DEADLINE)
    files = sorted(path.parent.glob("block-*.ndjson"))
    assert len(files) == writer.health().rotations > 3
    found = numbers(lines(*files, path))
    for first in range(0, 8000, 1000):
        assert [n for n in found if first <= n < first + 1000] == list(range(first, first + 250))
    assert all(file.stat().st_size >= 200_000 for file in files)


def test_an_idle_log_tells_what_happens_to_it(
    path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, check_lines: Lines
) -> None:
    """A disk that fills up and a file that is removed reach health although nothing is put."""
    writer = make(path, replace(QUICK, look_every=0.01))
    writer.put(refusal())
    assert writer.mark().wait(waiting.DEADLINE)
    with monkeypatch.context() as full:
        full.setattr(Segment, "room_missing", lambda _, keep: keep)
        until(lambda: not writer.health().ok)
        assert "No space left" in str(writer.health().last_error)
    until(lambda: writer.health().ok)
    path.unlink()
    until(lambda: not writer.health().ok)
    assert writer.health().tampered == "the log's file was removed while it was written"
    until(path.exists)
    until(lambda: "log-continued" in actions(lines(path)))
    assert writer.close(waiting.DEADLINE)
    assert "file" not in check_lines(path)[0]["tokgate"]["continues"]


def test_a_record_that_is_no_json_is_dropped_alone(path: Path, make: Make, check_lines: Lines) -> None:
    """A defect in a builder costs its record, is counted, and the thread lives on."""
    writer = make(path)
    writer.put(refusal(1))
    writer.put({"bad": object()})
    writer.put({"bad": float("nan")})
    writer.put(refusal(2))
    assert writer.mark().wait(waiting.DEADLINE)
    assert writer.close(waiting.DEADLINE)
    records = check_lines(path)
    assert numbers(records) == [1, 2]
    assert sum(record["tokgate"]["gap"]["dropped"] for record in records if "gap" in record["tokgate"]) == 2
    assert "ValueError" in str(writer.health().last_error)


def test_a_defect_in_the_thread_does_not_end_it(
    path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, check_lines: Lines
) -> None:
    """An exception that nobody thought of costs the records at hand; later ones are written."""
    writer = make(path)
    advance = Appender.advance
    monkeypatch.setattr(Appender, "advance", lambda self: 1 / 0)
    writer.put(refusal(1))
    until(lambda: writer.health().errors > 0)
    monkeypatch.setattr(Appender, "advance", advance)
    until(lambda: writer.health().queued == 0)
    writer.put(refusal(2))
    assert writer.close(waiting.DEADLINE)
    records = check_lines(path)
    assert 2 in numbers(records)
    assert writer.health().written == len(records)
    assert numbers(records).count(1) + writer.health().dropped == 1


def test_nothing_is_taken_while_closing(path: Path, make: Make) -> None:
    """Who closes waits for what is queued, not for what others go on to put."""
    path.mkdir()  # so that closing can't end yet
    writer = make(path)
    assert writer.put(refusal())
    closing = threading.Thread(target=writer.close, args=(60,))
    closing.start()
    until(writer._closing.is_set)
    assert not writer.put(refusal())
    path.rmdir()
    closing.join()
    assert "source" in str([line.record for line in read([path]) if isinstance(line, Line)])


def test_a_record_that_closing_overtakes_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put just as the writer ends is not in the log, and nobody is told that it is."""

    class Overtaken(queue.SimpleQueue[Any]):
        def qsize(self) -> int:
            if threading.current_thread() is threading.main_thread():  # in `put`, after its look whether we are closing
                writer.close(waiting.DEADLINE)
            return super().qsize()

    writer = LogWriter(path, OBSERVER, limits=QUICK)
    monkeypatch.setattr(writer, "_queue", Overtaken())
    writer.start()
    assert not writer.put(refusal())
    assert writer.health().dropped == 1


def test_closing_a_writer_that_never_started(path: Path) -> None:
    """It is harmless, and what was put by then counts as lost."""
    writer = LogWriter(path, OBSERVER)
    assert writer.close(0.1)
    other = LogWriter(path, OBSERVER)
    other.put(refusal())
    assert not other.close(0.1)
    assert other.health().dropped == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(mount)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"no tmpfs could be mounted: {made.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.parametrize(
    ("ballast", "keep_free", "told"),
    [(104, 0, "No space left on device"), (64, 256 << 20, "settings.log.keep_free")],
    ids=["full", "room for others"],
)
def test_a_disk_that_fills_up_and_is_cleared(
    small_disk: Path, make: Make, check_lines: Lines, ballast: int, keep_free: int, told: str
) -> None:
    """Records queue, then are dropped and counted; others find a twentieth of the disk; with room all is told of."""
    (small_disk / "ballast").write_bytes(b"x" * (ballast << 10))
    path = small_disk / "block.ndjson"
    limits = WriterLimits(queued=20, batch=1, linger=0, retry_first=0.005, retry_longest=0.02)
    writer, put = make(path, limits, options=LogOptions(keep_free=keep_free)), 0
    while writer.health().dropped < 10:
        writer.put(refusal(put))
        put += 1
        threading.Event().wait(0.001)
    assert told in str(writer.health().last_error)
    if keep_free:
        (small_disk / "other").write_bytes(b"x" * 4096)
    (small_disk / "ballast").unlink()
    assert writer.close(waiting.DEADLINE)
    records = check_lines(path)
    gaps = sum(record["tokgate"]["gap"]["dropped"] for record in records if record["event"]["action"] == "log-gap")
    assert gaps == writer.health().dropped >= 10
    assert len(numbers(records)) + gaps == put


@pytest.mark.parametrize("kind", ["pipe", "link", "device"])
def test_what_is_no_file(path: Path, make: Make, kind: str) -> None:
    """Nothing would prove what went there, and a link could lead anywhere: a writer doesn't start."""
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null" if kind == "device" else path.with_name("other"))
    with pytest.raises(LogRefused, match="name a file"):
        make(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_something_else_in_the_files_place(path: Path, make: Make, check_lines: Lines, kind: str) -> None:
    """Whatever is put where the file was: records wait, health is red, and none is lost once the path is free."""
    writer = make(path)
    writer.put(refusal(0))
    assert writer.mark().wait(waiting.DEADLINE)
    moved = path.with_name("moved.ndjson")
    path.rename(moved)
    reader = None
    if kind == "pipe":
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    elif kind == "link":
        path.symlink_to(moved.name)
    else:
        path.mkdir()
    writer.put(refusal(1))
    until(lambda: not writer.health().ok)
    if reader is not None:
        assert os.read(reader, 1) == b""
        os.close(reader)
    path.rmdir() if kind == "folder" else path.unlink()
    writer.put(refusal(2))
    assert writer.mark().wait(waiting.DEADLINE)
    assert writer.health().ok
    assert writer.close(waiting.DEADLINE)
    assert numbers(check_lines(moved, path)) == [0, 1, 2]
    assert list(Verifier().run([moved, path])) == []


KILLS = 20
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from whenever import Instant
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.record import Observer, new_stamp
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.segment import Rotation
from tokgate.blocklog.write.writer import LogWriter, WriterLimits

path, rounds, evolving = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "evolving"
observer = Observer(hostname="gw1.example.org", version="0.1.0")
limits = WriterLimits(linger=0, rotation=Rotation(max_bytes=200_000))

def write(number, told):
    writer = LogWriter(path, observer, limits=limits, options=LogOptions(records=50, forward_secure=evolving))
    writer.start()
    while True:
        for _ in range(20):
            writer.put(stopped(new_stamp(Instant.now(), observer), 1, f"number {number}"))
            number += 1
        if writer.mark().wait(60):
            os.write(told, f"{number}\\n".encode())

acknowledged = 0
for _ in range(rounds):
    read, told = os.pipe()
    child = os.fork()  # only the writers have threads
    if not child:
        os.close(read)  # so that it ends with its parent
        write(acknowledged, told)
    os.close(told)
    answers = os.fdopen(read)
    for _ in range(random.randint(1, 3)):
        acknowledged = int(answers.readline())
    time.sleep(random.random() * 0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    acknowledged = max([acknowledged, *(int(line) for line in answers if line.endswith("\\n"))])
print(acknowledged)
"""


@pytest.mark.parametrize("keys", ["one", "evolving"])
def test_killed_in_a_loop_nothing_acknowledged_is_lost(path: Path, keys: str) -> None:
    """SIGKILL at random moments: what a flush confirmed is there, and the log verifies without a finding."""
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(KILLS), keys],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    acknowledged = int(run.stdout)
    survivor = LogWriter(path, OBSERVER, limits=QUICK)
    survivor.start()
    assert survivor.close(waiting.DEADLINE)
    files = with_rotated(path)
    found = set()
    for line in read(files):
        if isinstance(line, Line) and "reason" in line.record["event"]:
            found.add(line.record["event"]["reason"])
    assert found >= {f"number {number}" for number in range(acknowledged)}
    assert acknowledged >= KILLS * 20
    verifier = Verifier([read_public_key(public_path_for(key_path_for(path)))])
    assert list(verifier.run(files)) == []
    assert len(verifier.chains) == 1
    assert verifier.unfinished is None


def test_a_line_by_others_is_told_at_once(path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet log is looked at as well: health is red, the lines are counted, and the log says which; for an hour."""
    writer = make(path, replace(QUICK, look_every=0.01))
    writer.put(refusal())
    assert writer.mark().wait(waiting.DEADLINE)
    assert writer.health().ok
    lines = path.read_bytes().count(b"\n")
    with path.open("ab") as file:
        file.write(b"by somebody else\n")
    waiting.until("it is told", lambda: b"log-foreign" in path.read_bytes())
    health = writer.health()
    assert (health.ok, health.foreign, health.failing_since) == (False, 1, None)
    assert health.tampered == f"1 line by others, from block.ndjson:{lines + 1} on"
    monkeypatch.setattr(writer_module, "_TAMPERED", 0.0)
    assert writer.health().ok


def test_ids_sort_by_time_and_are_uuids() -> None:
    """A later event has the greater id (RFC 9562, version 7); what isn't time is random."""
    moment = Instant.from_utc(2026, 3, 10)
    ids = [uuid.UUID(new_stamp(moment, OBSERVER).id) for _ in range(300)]
    assert str(max(ids)) < new_stamp(moment.add(milliseconds=1), OBSERVER).id
    assert {(each.version, each.variant, each.int >> 80) for each in ids} == {
        (7, uuid.RFC_4122, moment.timestamp(unit="millisecond"))
    }
    changing = reduce(or_, (each.int ^ ids[0].int for each in ids))
    assert changing == ((1 << 12) - 1) << 64 | (1 << 62) - 1


def test_a_failing_log_is_said_once(
    path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What tokgate prints says that the log can't be written, what helps, and when it is written again."""

    def refused(_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as broken:
        broken.setattr(Appender, "ready", refused)
        broken.setattr(Appender, "advance", refused)
        writer = make(path)
        writer.put(refusal())
        until(lambda: writer.health().errors > 2)
    until(lambda: writer.health().ok)
    said = [record.getMessage() for record in caplog.records]
    (failure,) = [text for text in said if "can't be written" in text]
    assert failure.startswith(f"the log {path} can't be written: [Errno 13] Permission denied: ")
    assert failure.endswith(f"; this is user {os.geteuid()}: chown -R {os.geteuid()} {path.parent}")
    assert f"the log {path} is written again" in said


def test_a_log_handler_that_fails_costs_no_record(path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """mitmproxy's handler raises in whoever warns once its event loop is closed."""

    class Closed(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            raise RuntimeError("Event loop is closed")

    handler = Closed()
    logging.getLogger().addHandler(handler)
    try:
        with monkeypatch.context() as broken:
            broken.setattr(Appender, "ready", lambda _: (path.parent / "missing").stat())
            writer = make(path)
            writer.put(refusal(1))
            until(lambda: writer.health().errors > 2)
        until(lambda: writer.health().ok)
        assert writer.mark().wait(waiting.DEADLINE)
    finally:
        logging.getLogger().removeHandler(handler)
    assert numbers([line.record for line in read([path]) if isinstance(line, Line)]) == [1]
