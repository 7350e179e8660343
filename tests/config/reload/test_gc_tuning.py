"""A policy is made and let go without the collector."""

import gc
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import valid
from tokgate.config.loader import load
from tokgate.config.reload.gc_tuning import without_collections
from tokgate.policy.decide import decide
from tokgate.policy.snapshot import Snapshot, compile_policy

NOW = Instant.from_utc(2023, 5, 1)


POLICY = """
services: {clips: {names: {suffix: [clips.example.org]}}}
networks: {office: {cidrs: [10.0.0.0/24]}}
bans: {ban: {title: Clips, services: [clips], networks: [office], starts: 2023-03-10}}
"""


def compiled(path: Path) -> Snapshot:
    """The policy in a file, with something remembered in each of its memories."""
    snapshot = compile_policy(valid(load(path, NOW)))
    for host in ("clips.example.org", "192.0.2.1", "Clips.example.org"):
        decide(snapshot, "10.0.0.1", host, NOW)
    return snapshot


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "policy.yaml"


@pytest.fixture
def uncollected() -> Iterator[None]:
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
