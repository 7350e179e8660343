"""Work is done whether or not the system allows a thread for it."""

import threading

import pytest

from tokgate.config.reload.holder import WorkerThread


async def test_one_thread_does_all_work() -> None:
    """It isn't the event loop's, and the next work needs no other."""
    worker = WorkerThread()
    first = await worker.run(threading.get_ident)
    assert first != threading.get_ident()
    assert await worker.run(threading.get_ident) == first


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
