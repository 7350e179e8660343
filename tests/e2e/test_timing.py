"""A ban keeps its instants and a policy its edits while tokgate runs: no restart, no lost connection."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from labs.clients import UNRECOGNIZED_NAME, downloading, python
from labs.gateway import Gateway, office_policy
from labs.netns import Lab, wait_until
from labs.origin import ALLOWED, BANNED, LARGE, Origin

RELOADS = int(os.environ.get("TOKGATE_TEST_RELOADS", "4"))
CUT = str(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
"""What a client sees whose connection crosses the start of a ban."""


def refused(lab: Lab, origin: Origin) -> bool:
    """Whether the banned name is refused now, or cut; anything but that and the origin's page is a failure."""
    answer = python(lab.client, BANNED, 4, False, origin.authority)
    assert answer.error in ("", UNRECOGNIZED_NAME, CUT)
    return bool(answer.error)


@pytest.mark.parametrize("carrier", ["mitmproxy", "gates"], indirect=True)
def test_reload_under_load_drops_nothing(
    lab: Lab, origin: Origin, gateway_factory: Callable[..., Gateway], tmp_path: Path
) -> None:
    """Downloads in flight and new connections survive reloads, each of which takes effect."""
    size = LARGE // 2  # four seconds: each sees some reloads
    expected = hashlib.sha256((origin.folder / "large").read_bytes()[:size]).hexdigest()
    digests: list[str] = []
    failures: list[str] = []
    successes: list[str] = []
    done = threading.Event()

    def fetch_large() -> None:
        while not done.is_set():
            with downloading(lab.client, origin.authority, size) as stream:
                digests.append(hashlib.sha256(stream.read()).hexdigest())

    def hammer() -> None:
        while not done.wait(0.02):
            answer = python(lab.client, ALLOWED, 6, False, origin.authority)
            (failures if answer.error else successes).append(answer.error)

    def follows(banned: bool) -> bool:
        return refused(lab, origin) == banned

    with gateway_factory(tmp_path, policy=office_policy()) as gateway, contextlib.ExitStack() as stack:
        stack.callback(done.set)  # whatever happens, nobody goes on hammering
        threads = [threading.Thread(target=work) for work in (fetch_large, fetch_large, fetch_large, hammer, hammer)]
        for thread in threads:
            thread.start()
        for turn in range(RELOADS):
            banned = turn % 2 == 1
            gateway.write_policy(office_policy(action="block" if banned else "monitor"))
            if turn % 3 == 0:
                gateway.reload()
            assert all(thread.is_alive() for thread in threads), "reloaded while nothing was under way"
            wait_until(f"edit {turn} is in force", partial(follows, banned))
        wait_until("many have come meanwhile", lambda: len(digests) >= 3 and len(successes) > 20)
        done.set()
        for thread in threads:
            thread.join(60)

    assert set(digests) == {expected}
    assert failures == [], gateway.narrated()
