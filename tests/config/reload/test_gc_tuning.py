"""A policy is made and let go without the collector, and without holding up other threads."""

import asyncio
import gc
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from whenever import Instant

from tokgate.config.loader import load
from tokgate.config.reload.gc_tuning import free_in_slices, freeze_objects, without_collections
from tokgate.config.reload.holder import open_policy
from tokgate.policy.decide import decide
from tokgate.policy.snapshot import Snapshot, compile_policy

NOW = Instant.from_utc(2023, 5, 1)
SHARE = 0.05
"""Of the processor time that reading takes as a whole. It is 0.02 or less; a collection in between takes 0.1."""


def policy(names: int, networks: int, tag: str) -> str:
    """A policy with so many names and networks."""
    suffixes = "".join(f"        - n{number}.{tag}.example.org\n" for number in range(names))
    cidrs = "".join(f"  net{number}: {{cidrs: [10.{number >> 8}.{number & 255}.0/24]}}\n" for number in range(networks))
    listed = ", ".join(f"net{number}" for number in range(networks))
    return (
        f"services:\n  clips:\n    names:\n      suffix:\n{suffixes}networks:\n{cidrs}"
        f"bans: {{ban: {{title: Clips, services: [clips], networks: [{listed}], starts: 2023-03-10}}}}\n"
    )


def compiled(path: Path) -> Snapshot:
    """The policy in a file, with something remembered in each of its memories."""
    loaded = load(path, NOW)
    assert loaded.policy is not None
    snapshot = compile_policy(loaded.policy)
    for host in ("n1.a.example.org", "192.0.2.1", "N1.a.example.org"):
        decide(snapshot, "10.0.0.1", host, NOW)
    return snapshot


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small policy."""
    (tmp_path / "policy.yaml").write_text(policy(10, 3, "a"))
    return tmp_path / "policy.yaml"


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without a collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_a_policy_needs_no_collector(path: Path) -> None:
    """Nothing in a snapshot refers back to it, and reading leaves nothing behind: the last reference frees it all."""
    compiled(path)  # what is made once stays
    gc.collect()
    snapshot = compiled(path)
    assert gc.collect() == 0
    whole, services = weakref.ref(snapshot), weakref.ref(snapshot.services)
    del snapshot
    assert (whole(), services()) == (None, None)
    assert gc.collect() == 0


@pytest.mark.usefixtures("uncollected")
def test_release(path: Path) -> None:
    """What is let go bit by bit is gone in the end, whole; what others hold on to stays whole."""
    held = [compiled(path)]
    kept, gone = held[0].services, weakref.ref(held[0])
    free_in_slices(held)
    assert (held, gone()) == ([], None)
    assert kept.match("n1.a.example.org").hits


def test_undisturbed() -> None:
    """No collection meanwhile; everything is as before afterwards, also after a failure."""
    before = sys.getswitchinterval()

    def fail() -> None:
        with without_collections():
            assert not gc.isenabled()
            assert sys.getswitchinterval() < before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.isenabled()
    assert sys.getswitchinterval() == before


async def test_a_reload_stalls_nobody(tmp_path: Path) -> None:
    """10,000 networks and 100,000 names: nothing stops the event loop while they are read, exchanged and let go.

    Counted in the process's own processor time, and beside all of it. A crowded machine may leave the event loop
    waiting all the same, but hardly each time; whatever stops it here would stop it at each reload.
    """
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "a.yaml").write_text(policy(10, 3, "a"))
    holder = open_policy(policies, Instant.now())
    freeze_objects()
    turns: list[float] = []

    async def turn() -> None:
        while True:
            began = time.process_time()
            await asyncio.sleep(0.001)
            turns.append(time.process_time() - began)

    tasks = [asyncio.create_task(holder.watch()), asyncio.create_task(turn())]
    shares: list[float] = []
    for tag in "abcdefgh":
        (tmp_path / "new").write_text(policy(100_000, 10_000, tag))
        version = holder.snapshot.version
        turns.clear()
        began = time.process_time()
        (tmp_path / "new").rename(policies / "a.yaml")
        replaced = weakref.ref(holder.snapshot)
        while holder.snapshot.version == version or replaced() is not None:
            await asyncio.sleep(0.01)
        assert len(turns) > 100
        shares.append(max(turns) / (time.process_time() - began))
        if len(shares) > 1 and shares[-1] < SHARE:  # from the second on a large policy is replaced
            break
    else:
        pytest.fail(f"each reload held the event loop up: {shares}")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
