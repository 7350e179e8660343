"""Reloading: the good state of the files ends in force, whatever happened on the way to it."""

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from whenever import Instant

from labs.waiting import DEADLINE, eventually
from tokgate.config.diagnostics import Code
from tokgate.config.loader import Loaded, load
from tokgate.config.reload import holder as reload_module
from tokgate.config.reload import quiescence
from tokgate.config.reload.holder import (
    PolicyError,
    PolicyHolder,
    Reloaded,
    Revision,
    WorkerThread,
    open_policy,
    revision_of,
)
from tokgate.policy.snapshot import Policy, Snapshot, compile_policy

NOW = Instant.from_utc(2023, 5, 1)

BROKEN = "bans: {tiktok: {title: x"


def policy(title: str) -> str:
    """A valid policy that differs from others by the title of its ban."""
    return (
        "services: {tiktok: {names: {suffix: [tiktok.com]}}}\nnetworks: {offices: {cidrs: [192.0.2.0/24]}}\n"
        f"bans: {{tiktok: {{title: {title}, services: [tiktok], networks: [offices], starts: 2023-03-10}}}}\n"
    )


def title(holder: PolicyHolder) -> str:
    """Which policy is in force."""
    return holder.snapshot.bans["tiktok"].title


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder whose policy is called `first`."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.yaml").write_text(policy("first"))
    return folder


@asynccontextmanager
async def watching(holder: PolicyHolder) -> AsyncIterator[list[Reloaded]]:
    """Watch in the background; gives what was reported."""
    seen: list[Reloaded] = []
    holder.subscribe(seen.append)
    task = asyncio.create_task(holder.watch())
    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


until = partial(eventually, "the holder gets there")


def test_open(path: Path) -> None:
    """A valid policy opens; the holder knows what was read and when."""
    holder = open_policy(path, NOW)
    assert title(holder) == "first"
    assert (holder.loaded_at, holder.last_error) == (NOW, None)
    assert [file.name for file in holder.loaded.files] == ["a.yaml"]


def test_a_named_file_that_changed_while_it_was_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of names that is replaced while tokgate starts is read again, and not taken for what was read."""
    (path / "names.list").write_text("tiktok.com\n")
    (path / "a.yaml").write_text(policy("first").replace("[tiktok.com]", "{file: names.list}"))

    def load_and_replace(folder: Path, now: Instant) -> Loaded:
        loaded = load(folder, now)
        (path / "names.list").write_text("tiktok.com\nclips.example.org\n")
        return loaded

    monkeypatch.setattr(reload_module, "load", load_and_replace)
    assert open_policy(path, NOW).changed()


def test_open_without_valid_policy(path: Path) -> None:
    """There is no starting without a valid policy, and the error shows everything."""
    (path / "b.yaml").write_text("networks: {x: {cidrs: [192.0.2.1/24, nonsense]}}")
    with pytest.raises(PolicyError) as raised:
        open_policy(path, NOW)
    assert [each.code for each in raised.value.diagnostics] == [Code.HOST_BITS, Code.BAD_CIDR]
    assert "192.0.2.0/24" in str(raised.value)


async def test_reload_swaps_or_keeps(path: Path) -> None:
    """A good edit is taken, a bad one changes nothing but the error that is shown; the next good one ends it."""
    holder = open_policy(path, NOW)
    reported: list[Reloaded] = []
    holder.subscribe(reported.append)
    (path / "a.yaml").write_text(policy("second"))
    assert (await holder.reload()).ok
    assert title(holder) == "second"
    kept = holder.snapshot
    (path / "a.yaml").write_text(BROKEN)
    result = await holder.reload()
    assert not result.ok
    assert result.snapshot is holder.snapshot is kept
    assert holder.last_error is not None
    assert "a.yaml:1:16: error:" in holder.last_error
    assert "more)" not in holder.last_error
    assert (holder.errors, holder.failing_since) == (result.diagnostics, result.at)
    (path / "a.yaml").write_text(policy("third"))
    await holder.reload()
    assert [title(holder), holder.last_error, holder.errors, holder.failing_since] == ["third", None, (), None]
    await holder.reload()
    assert [(each.ok, each.recovered) for each in reported] == [
        (True, False),
        (False, False),
        (True, True),
        (True, False),
    ]


async def test_a_fault_of_ours_keeps_the_last_good(path: Path) -> None:
    """Even an exception in loading or compiling leaves the policy in force and is reported."""

    def compiled(stated: Policy) -> Snapshot:
        if stated.bans["tiktok"].title == "second":
            raise RuntimeError("boom")
        return compile_policy(stated)

    holder = open_policy(path, NOW, compiled=compiled)
    (path / "a.yaml").write_text(policy("second"))
    result = await holder.reload()
    assert [each.code for each in result.diagnostics] == [Code.INTERNAL]
    assert title(holder) == "first"
    assert "boom" in (holder.last_error or "")


async def test_a_subscriber_that_fails_stops_nothing(path: Path) -> None:
    """One bad subscriber does not keep others from hearing of a change."""
    holder, heard = open_policy(path, NOW), list[Reloaded]()

    def fail(_: Reloaded) -> None:
        raise RuntimeError("boom")

    holder.subscribe(fail)
    holder.subscribe(heard.append)
    await holder.reload()
    assert len(heard) == 1


async def test_the_event_loop_keeps_running(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading happens in another thread: the loop turns while it lasts."""
    holder, turned = open_policy(path, NOW), asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_a_turn(where: Path, now: Instant) -> object:
        return asyncio.run_coroutine_threadsafe(turned.wait(), loop).result(DEADLINE) and load(where, now)

    monkeypatch.setattr(reload_module, "load", wait_for_a_turn)
    loop.call_later(0.01, turned.set)
    assert (await holder.reload()).ok


def as_editors_do(path: Path) -> None:
    """A new file is renamed over the old one."""
    (path / ".a.yaml.swp").write_text(policy("good"))
    (path / ".a.yaml.swp").rename(path / "a.yaml")


def after_mistakes(path: Path) -> None:
    """Two bad edits and a good one within a moment."""
    for text in (BROKEN, "nonsense", policy("good")):
        (path / "a.yaml").write_text(text)


@pytest.mark.parametrize("edit", [as_editors_do, after_mistakes])
@pytest.mark.parametrize(("early", "file"), [(True, ""), (False, ""), (False, "a.yaml")])
async def test_a_good_state_of_the_files_ends_in_force(
    path: Path, edit: Callable[[Path], None], early: bool, file: str
) -> None:
    """However it came about, also between opening and watching; and where the policy is one file."""
    holder = open_policy(path / file, NOW)
    if early:
        edit(path)
    async with watching(holder):
        if not early:
            edit(path)
        await until(lambda: title(holder) == "good")
        assert holder.last_error is None


async def test_files_at_rest_are_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken file is reported when it is written, and not at each look."""
    monkeypatch.setattr(reload_module, "LOOK_EVERY", 0.01)
    holder, looks, changed = open_policy(path, NOW), list[bool](), PolicyHolder.changed

    def look(holder: PolicyHolder) -> bool:
        looks.append(changed(holder))
        return looks[-1]

    monkeypatch.setattr(PolicyHolder, "changed", look)
    async with watching(holder) as seen:
        (path / "a.yaml").write_text(BROKEN)
        await until(lambda: seen)
        enough = len(looks) + 5
        await until(lambda: len(looks) >= enough)
        assert [each.ok for each in seen] == [False]


async def test_who_wrote_the_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record names the author of the last commit, and that somebody changed the files after it."""
    for key, value in (("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_AUTHOR_NAME", "Alice"), ("GIT_COMMITTER_NAME", "A")):
        monkeypatch.setenv(key, value)
    for key in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(key, "alice@example.org")

    def git(*words: str) -> str:
        command = ("git", "-C", str(path), *words)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    holder = open_policy(path, NOW)
    assert revision_of(path) is None
    git("init", "-q")
    (path / "a.yaml").write_text(policy("second"))
    git("add", "a.yaml")
    assert (await holder.reload()).revision is None
    git("commit", "-qm", "The second")
    (path / "a.yaml").write_text(policy("third"))
    found = (await holder.reload()).revision
    assert found is not None
    assert (found.author, found.uncommitted, len(found.commit)) == ("Alice <alice@example.org>", True, 7)
    git("commit", "-qam", "The third")
    os.utime(path / "a.yaml", (0, 0))  # git would note in its index that this is no change
    index = (path / ".git/index").read_bytes()
    assert revision_of(path / "a.yaml") == Revision(commit=git("rev-parse", "--short", "HEAD"), author=found.author)
    assert (path / ".git/index").read_bytes() == index  # it took no lock, for which a pull would fail


async def test_replaced_folder(path: Path) -> None:
    """A folder that is removed and put back, by another or the same name, is followed."""
    holder = open_policy(path, NOW)
    async with watching(holder):
        shutil.rmtree(path)
        await until(lambda: holder.last_error is not None)
        assert title(holder) == "first"
        path.mkdir()
        (path / "a.yaml").write_text(policy("again"))
        await until(lambda: title(holder) == "again")
        fresh = path.with_name("fresh")
        fresh.mkdir()
        (fresh / "a.yaml").write_text(policy("moved"))
        path.rename(path.with_name("old"))
        fresh.rename(path)
        await until(lambda: title(holder) == "moved")
        (path / "a.yaml").write_text(policy("edited"))
        await until(lambda: title(holder) == "edited")


async def test_who_asks_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many who ask at once cost one reading, also with an edit in the midst of it; who asks later gets another."""
    holder = open_policy(path, NOW)
    seen: list[Reloaded] = []
    holder.subscribe(seen.append)
    loop, asked, read = asyncio.get_running_loop(), list[asyncio.Task[Reloaded]](), 0

    def ask() -> None:
        asked.extend(loop.create_task(holder.reload()) for _ in range(5))

    def reading(where: Path, now: Instant) -> Loaded:
        nonlocal read
        read += 1
        loaded = load(where, now)
        if read == 1:
            (path / "a.yaml").write_text(policy("third"))
            loop.call_soon_threadsafe(ask)
        return loaded

    monkeypatch.setattr(reload_module, "load", reading)
    (path / "a.yaml").write_text(policy("second"))
    first = await holder.reload()
    assert [await each for each in asked] == [first] * 5
    assert seen == [first]
    assert title(holder) == "third"
    assert read == 2
    assert (await holder.reload()) is not first
    assert read == 3


def test_files_that_never_rest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That they are not read yet is told as why they are not in force."""
    monkeypatch.setattr(quiescence, "UNSTABLE_AFTER", -1.0)
    holder = open_policy(path, NOW)
    assert holder.stability_check().stable_state() is None
    assert "keep changing" in (holder.last_error or "")
    assert holder.failing_since is not None


async def test_swapped_links(tmp_path: Path) -> None:
    """A ConfigMap's `..data`, and a link to the folder itself, are swapped in one step and followed."""
    for name in ("one", "two"):
        (tmp_path / "map" / f"..{name}").mkdir(parents=True)
        (tmp_path / "map" / f"..{name}" / "a.yaml").write_text(policy(name))
    (tmp_path / "map" / "..data").symlink_to("..one")
    (tmp_path / "map" / "a.yaml").symlink_to("..data/a.yaml")
    (tmp_path / "link").symlink_to("map")
    holder = open_policy(tmp_path / "link", NOW)
    assert title(holder) == "one"
    async with watching(holder):
        (tmp_path / "map" / "..tmp").symlink_to("..two")
        (tmp_path / "map" / "..tmp").rename(tmp_path / "map" / "..data")
        await until(lambda: title(holder) == "two")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "a.yaml").write_text(policy("other"))
        (tmp_path / "new").symlink_to("other")
        (tmp_path / "new").rename(tmp_path / "link")
        await until(lambda: title(holder) == "other")


async def test_what_says_the_same_is_not_exchanged(path: Path) -> None:
    """Comments change nothing in force; a ban that moves to another file does, since records name its file."""
    holder = open_policy(path, NOW)
    before = holder.snapshot
    (path / "a.yaml").write_text(policy("first") + "# a comment\n")
    result = await holder.reload()
    assert result.ok
    assert holder.snapshot is before
    assert (result.changes, holder.last_change) == ((), None)
    (path / "a.yaml").rename(path / "b.yaml")
    await holder.reload()
    assert holder.snapshot is not before
    assert holder.snapshot.version == before.version


async def test_changed(path: Path) -> None:
    """Whether there is something to read can be asked, of policy files alone; reading settles it, even when wrong."""
    holder = open_policy(path, NOW)
    (path / "README.md").write_text("x")
    assert not holder.changed()
    os.utime(path / "a.yaml")
    assert holder.changed()
    (path / "a.yaml").write_text(BROKEN)
    await holder.reload()
    assert not holder.changed()


async def test_without_a_thread_the_event_loop_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until one can be started; then it is that one's, even when no further one can be."""

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    worker = WorkerThread()
    with monkeypatch.context() as starved:
        starved.setattr(threading.Thread, "start", refused)
        assert await worker.run(threading.get_ident) == threading.get_ident()
    kept = await worker.run(threading.get_ident)
    assert kept != threading.get_ident()
    monkeypatch.setattr(threading.Thread, "start", refused)
    assert await worker.run(threading.get_ident) == kept


async def test_an_error_of_the_work_is_the_callers() -> None:
    """It is done once, also if it raises what a thread that can't be started does."""
    tried = []

    def work() -> None:
        tried.append(1)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await WorkerThread().run(work)
    assert len(tried) == 1
