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
from lab_clients import UNRECOGNIZED_NAME, downloading, python
from lab_gateway import Gateway, office_policy
from lab_netns import Lab, wait_until
from lab_origin import ALLOWED, BANNED, LARGE, Origin, to_banned
from whenever import Instant

CUT = str(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
"""What a client sees whose connection crosses the start of a ban."""


def refused(lab: Lab, origin: Origin) -> bool:
    """Whether the banned name is refused now, or cut; anything but that and the origin's page is a failure."""
    answer = python(lab.client, BANNED, 4, False, origin.authority)
    assert answer.error in ("", UNRECOGNIZED_NAME, CUT)
    return bool(answer.error)


def test_ban_starts_and_ends_at_its_instant(
    lab: Lab, origin: Origin, gateway_factory: Callable[..., Gateway], tmp_path: Path
) -> None:
    """Without a restart or a reload the name is reachable before the ban, refused during it, reachable after it."""
    with gateway_factory(tmp_path, policy=office_policy()) as gateway:
        wait_until("the ban that is in force refuses", lambda: refused(lab, origin))
        starts = gateway.soon(3)
        expires = starts.add(seconds=max(3, gateway.pace))
        lasting = office_policy(starts=str(starts), expires=str(expires))
        del lasting["bans"]["office-ban"]["last_day"]
        gateway.write_policy(lasting)
        wait_until("the edit is in force", lambda: not refused(lab, origin))

        seen: list[tuple[Instant, bool, Instant]] = []

        def over() -> bool:
            before = Instant.now()
            result = refused(lab, origin)
            seen.append((before, result, Instant.now()))
            return before > expires.add(seconds=1)

        wait_until("the ban is over", over)
        assert gateway.process
        assert gateway.process.poll() is None

    for before, result, after in seen:
        if after < starts or before >= expires:
            assert not result
        elif before >= starts and after < expires:
            assert result
    assert {result for _, result, _ in seen} == {True, False}
    phases = [record for record in gateway.records() if record["event"]["action"] == "phase-changed"]
    assert len(phases) >= 2


def test_reload_under_load_drops_nothing(
    lab: Lab, origin: Origin, gateway_factory: Callable[..., Gateway], tmp_path: Path
) -> None:
    """Downloads in flight and new connections survive ten reloads, each of which takes effect."""
    expected = hashlib.sha256((origin.folder / "large").read_bytes()).hexdigest()
    digests: list[str] = []
    failures: list[str] = []
    successes: list[str] = []
    done = threading.Event()

    def fetch_large() -> None:
        with downloading(lab.client, origin.authority, LARGE) as stream:
            digests.append(hashlib.sha256(stream.read()).hexdigest())

    def hammer() -> None:
        while not done.is_set():
            answer = python(lab.client, ALLOWED, 6, False, origin.authority)
            (failures if answer.error else successes).append(answer.error)

    def follows(banned: bool) -> bool:
        return refused(lab, origin) == banned

    with gateway_factory(tmp_path, policy=office_policy()) as gateway, contextlib.ExitStack() as stack:
        stack.callback(done.set)  # whatever happens, nobody goes on hammering
        threads = [threading.Thread(target=work) for work in (fetch_large, fetch_large, fetch_large, hammer, hammer)]
        for thread in threads:
            thread.start()
        for turn in range(10):
            banned = turn % 2 == 1
            gateway.write_policy(office_policy(action="block" if banned else "monitor"))
            if turn % 3 == 0:
                gateway.reload()
            assert turn > 2 or all(thread.is_alive() for thread in threads), "reloaded while nothing was under way"
            wait_until(f"edit {turn} is in force", partial(follows, banned))
        done.set()
        for thread in threads:
            thread.join(60)

    assert digests == [expected] * 3
    assert failures == []
    assert len(successes) > 20


def test_wrong_edit_keeps_the_last_good_policy(
    lab: Lab, origin: Origin, gateway_factory: Callable[..., Gateway], tmp_path: Path
) -> None:
    """A misspelt service is shown with its place, logged, and changes nothing; the corrected file takes effect."""
    with gateway_factory(tmp_path, policy=office_policy()) as gateway:
        gateway.write_policy(office_policy(services=["tiktoc"]))
        record = gateway.wait_for_record(
            "the failed load is logged", lambda record: record["event"]["action"] == "policy-load-failed"
        )
        with origin.watch() as seen:
            assert refused(lab, origin)
        assert to_banned(seen) == 0
        assert record["event"]["outcome"] == "failure"
        wait_until("the error is shown", lambda: "tiktoc" in gateway.narrated())
        assert "policy.yaml:" in gateway.narrated()

        gateway.write_policy(office_policy(action="monitor"))
        wait_until("the corrected policy is in force", lambda: not refused(lab, origin))


@pytest.mark.parametrize("mode", ["regular", "gate:explicit"])
def test_no_valid_policy_no_start(
    lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], tmp_path: Path, mode: str
) -> None:
    """tokgate doesn't start with a wrong policy: exit 1, and every error with its place."""
    wrong = office_policy(services=["tiktoc"], networks=["offices"])
    gateway = any_gateway(tmp_path, policy=wrong, mode=mode)
    done = gateway.namespace.run(
        *gateway.command("run", "--mode", mode, "--policies", gateway.policies, "--log", gateway.log),
        env=gateway.environment,
        check=False,
    )

    assert done.returncode == 1
    assert "tiktoc" in done.stderr
    assert "offices" in done.stderr
    assert done.stderr.count("policy.yaml:") >= 2
    with pytest.raises(ConnectionRefusedError):
        gateway.namespace.connect("127.0.0.1", 8080)


def test_end_lets_open_connections_finish(
    lab: Lab, origin: Origin, gateway_factory: Callable[..., Gateway], tmp_path: Path
) -> None:
    """After SIGTERM no new connection is taken, and the download under way gets its last byte."""
    size = 8 << 20
    with gateway_factory(tmp_path, policy=office_policy(), options=["--drain", "20"]) as gateway:
        with downloading(lab.client, origin.authority, size) as stream:
            process = gateway.process
            assert process
            process.terminate()
            wait_until("the port is closed", lambda: not gateway.listens())
            with pytest.raises(ConnectionRefusedError):
                lab.client.connect(Lab.ALLOWED[4], 443)
            assert len(stream.read()) == size
        wait_until("tokgate has ended", lambda: process.poll() is not None)
