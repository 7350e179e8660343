"""What fails ends in `on_error` and bounds hold: banned names don't pass because of a defect."""

import pytest

from labs.carriers import ALERT, OPENING, Lab, Way
from labs.hello_builder import hello_for
from labs.proxy_lab import ALLOWED, BANNED, policy
from tokgate.traffic.limits import Limits

ERRORS = pytest.mark.parametrize(
    ("on_error", "name", "passes"),
    [("block", BANNED, False), ("block", ALLOWED, True), ("allow", BANNED, True), ("allow", ALLOWED, True)],
)


@ERRORS
@pytest.mark.parametrize("way", [Way.REDIRECTED, Way.SOCKS])
def test_deciding_fails_at_a_hello(lab: Lab, way: Way, on_error: str, name: str, passes: bool) -> None:
    """A TLS connection gets what `on_error` says for its name, with the error in log and counters."""
    origin, said = lab.origin(), hello_for(name)
    carrier = lab.start(policy(on_error=on_error))
    lab.break_deciding()
    assert lab.heard(way, origin.port, said) == (said if passes else ALERT)
    assert origin.accepted == passes
    assert "internal-error" in lab.records.actions
    assert "RuntimeError" in str(carrier.counters.last_error)


@ERRORS
def test_deciding_fails_at_connect(lab: Lab, on_error: str, name: str, passes: bool) -> None:
    """A CONNECT gets what `on_error` says for its host."""
    origin = lab.origin()
    lab.start(policy(on_error=on_error))
    lab.break_deciding()
    with lab.dial(Way.CONNECT) as client:
        assert client.connect(name, origin.port).status == (200 if passes else 403)
    assert "internal-error" in lab.records.actions


@OPENING
@ERRORS
@pytest.mark.parametrize("way", [Way.REDIRECTED, Way.CONNECT])
def test_deciding_fails_at_a_request(lab: Lab, way: Way, on_error: str, name: str, passes: bool) -> None:
    """A plain request gets what `on_error` says for its host."""
    origin = lab.web(tls=False)
    lab.start(policy(on_error=on_error))
    lab.break_deciding()
    assert lab.got(way, origin.port, name).status == (200 if passes else 403)


def test_records_that_fail(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that can't be made changes nothing for the traffic, and is counted."""
    carrier = lab.start()
    monkeypatch.setattr("tokgate.traffic.enforcer.traffic_record", lambda *_: 1 / 0)
    assert lab.heard(Way.REDIRECTED, 1, hello_for(BANNED)) == ALERT
    assert carrier.counters.errors["record"] == 1


@pytest.mark.parametrize("way", [Way.REDIRECTED, Way.CONNECT])
def test_silent_clients_are_closed(lab: Lab, way: Way) -> None:
    """Half a hello, then nothing: closed at the deadline and counted; who has said all is left alone."""
    origin = lab.origin()
    carrier = lab.start()
    with lab.reach(way, origin.port) as talker, lab.reach(way, origin.port) as silent:
        assert talker.echoes(hello_for(ALLOWED))
        silent.send(hello_for(ALLOWED)[:40])
        with lab.reach(way, origin.port) as other:  # served after the silent one's octets were
            assert other.answer(hello_for(BANNED)) == ALERT
        for _ in range(2):  # in a tunnel a client that has begun gets more time once
            carrier.wait(Limits().greeting)
        assert silent.to_end() == b""
        assert talker.echoes(b"still here")
    assert (carrier.counters.timeouts, carrier.counters.unfinished) == (1, 0)
    assert origin.accepted == 1


def test_a_client_that_leaves_is_counted(lab: Lab) -> None:
    """Nobody leaves in the middle of a hello without a trace: it may have been an attempt."""
    carrier = lab.start()
    with lab.reach(Way.REDIRECTED, 1) as client:
        client.send(hello_for(ALLOWED)[:40])
        client.end()
        assert client.to_end() == b""
    assert lab.settled()
    assert (carrier.counters.timeouts, carrier.counters.unfinished) == (0, 1)
