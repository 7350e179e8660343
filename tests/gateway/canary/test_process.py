"""The canary in a kernel: namespaces and links of its own, real connections, and nothing that stays."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import present
from labs.netns import Namespace
from labs.waiting import until
from tokgate.gateway.canary import canary as supervisor_side
from tokgate.gateway.canary import links
from tokgate.gateway.canary.canary import Canary, Change
from tokgate.gateway.canary.definition import Clients
from tokgate.gateway.canary.links import CLIENT_DEVICE, SERVER_DEVICE
from tokgate.policy.settings import CanarySettings
from tokgate.service.child_programs import module_command, module_environment

pytestmark = pytest.mark.skipif(not shutil.which("ip") or os.geteuid() != 0, reason="needs ip and root")
OFTEN = CanarySettings(seconds=1)
NOBODY: Clients = {}
PROCESS = module_command("tokgate.gateway.canary.process")


class Place:
    """A thread that stays in a namespace: the canary ends with the thread that has started it."""

    def __init__(self, namespace: Namespace) -> None:
        self.thread = ThreadPoolExecutor(1, initializer=lambda: self.enter(namespace))

    @staticmethod
    def enter(namespace: Namespace) -> None:
        descriptor = os.open(Path("/run/netns") / namespace.name, os.O_RDONLY)
        os.setns(descriptor, os.CLONE_NEWNET)
        os.close(descriptor)

    def look(self, canary: Canary) -> Change | None:
        """As the supervisor does, again and again."""
        return self.thread.submit(lambda: canary.look(Instant.now())).result()

    def change(self, canary: Canary, settings: CanarySettings = OFTEN, clients: Clients = NOBODY) -> Change:
        """The next time that it fails or recovers, with these settings."""
        canary.follow(settings, clients)
        return until("the canary fails or recovers", lambda: self.look(canary))


@pytest.fixture
def place(namespace: Namespace) -> Iterator[Place]:
    """In an empty namespace."""
    made = Place(namespace)
    yield made
    made.thread.shutdown()


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Canary]:
    """One that is not started yet, and has no gates to wait for."""
    monkeypatch.setattr(supervisor_side, "GRACE", 0.0)
    made = Canary(PROCESS, module_environment())
    yield made
    made.stop()
    made.let_go()


def test_without_any_gate(namespace: Namespace, place: Place, canary: Canary) -> None:
    """Where this machine only forwards, the banned name gets to the server: that is what it is for."""
    namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    namespace.run("ip", "addr", "add", "192.0.2.254/32", "dev", "lo")
    clients = {"office": ("198.51.100.254", "2001:db8:9::254"), "here": ("192.0.2.254",)}
    change = place.change(canary, clients=clients)
    passed = "the banned test name passed"
    among = [f"IPv{4 + 2 * n} from {each} in network office: {passed}" for n, each in enumerate(clients["office"])]
    assert change == Change(True, (f"IPv4: {passed}", f"IPv6: {passed}", *among))
    state = present(canary.state())
    assert (state["ok"], state["problems"], state["unavailable"]) == (False, list(change.problems), None)
    assert "198.18.116.6" in namespace.output("ip", "rule")
    assert state["asks_from"] == "namespace"
    place.thread.submit(canary.stop).result()
    assert canary.state() is None
    until("its links are gone", lambda: not {CLIENT_DEVICE, SERVER_DEVICE} & _devices(namespace))
    until("its rules are gone", lambda: "198.18.116" not in namespace.output("ip", "rule"))


DENIED = """\
import errno, os
def unshare(_):
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
os.unshare = unshare
from tokgate.gateway.canary.process import main
main()
"""
"""A canary's process that can make no namespace."""


def test_where_no_namespace_can_be_made(namespace: Namespace, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container it asks from the machine itself, over both versions of IP, and says so; nothing of it stays."""
    monkeypatch.setattr(supervisor_side, "GRACE", 0.0)
    made = Canary([sys.executable, "-c", DENIED], module_environment())
    change = place.change(made)
    assert change == Change(True, tuple(f"IPv{version}: the banned test name passed" for version in (4, 6)))
    state = present(made.state())
    assert (state["asks_from"], state["unavailable"]) == ("machine", None)
    assert "198.18.116.6" in namespace.output("ip", "rule")
    place.thread.submit(made.stop).result()
    made.let_go()
    assert CLIENT_DEVICE not in _devices(namespace)
    assert "747" not in namespace.output("ip", "rule") + namespace.output("ip", "-6", "rule")


def test_where_it_can_not_ask_at_all(place: Place) -> None:
    """Behind redirection nothing brings this machine's own packets to a gate: there is no canary, and it says why."""
    made = Canary([sys.executable, "-c", DENIED], module_environment(), tproxy=False)
    made.follow(OFTEN, {})

    def unavailable() -> object:
        place.look(made)
        return (made.state() or {})["unavailable"]

    assert until("it gives up", unavailable) == "PermissionError: [Errno 1] Operation not permitted"
    made.stop()
    made.let_go()


def _devices(namespace: Namespace) -> set[str]:
    return {each["ifname"] for each in json.loads(namespace.output("ip", "-j", "link"))}


def test_links_that_somebody_takes_out(namespace: Namespace, place: Place, canary: Canary) -> None:
    """What it says would be of them alone, for ever: after a failure they are made anew."""
    namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    place.change(canary)
    namespace.run("ip", "link", "del", CLIENT_DEVICE)
    assert CLIENT_DEVICE not in _devices(namespace)
    until("it is there again", lambda: place.look(canary) or CLIENT_DEVICE in _devices(namespace))


def test_what_a_crash_has_left(namespace: Namespace, place: Place, canary: Canary) -> None:
    """The routes of one that asked from inside are taken out by the next one, wherever that asks from."""
    namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for listener in namespace.inside(lambda: links.make_inside(OFTEN, (4, 6))):
        listener.close()
    place.change(canary)
    assert "747" not in namespace.output("ip", "rule") + namespace.output("ip", "-6", "rule")


def test_other_addresses(namespace: Namespace, place: Place, canary: Canary) -> None:
    """An edit of its settings is followed: the canary moves."""
    namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    place.change(canary)
    elsewhere = replace(OFTEN, ipv4=IPv4Network("10.99.99.0/29"))
    place.change(canary, elsewhere)
    shown = namespace.output("ip", "addr")
    assert "10.99.99.1/30" in shown
    assert "198.18.116.1" not in shown


@pytest.mark.parametrize("taken", ["198.18.116.5", "198.18.116.6"])
def test_addresses_that_are_taken(namespace: Namespace, place: Place, canary: Canary, taken: str) -> None:
    """It does not take from others what is theirs, and says why there is none."""
    namespace.run("ip", "addr", "add", f"{taken}/24", "dev", "lo")
    canary.follow(OFTEN, {})
    assert place.look(canary) is None
    state = present(canary.state())
    assert (state["ok"], state["unavailable"]) == (True, f"{taken} is in use on this machine")
    assert CLIENT_DEVICE not in _devices(namespace)
    assert 0 < canary.due() <= supervisor_side.RESTART


def test_one_that_dies(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary that says nothing is red like one that fails, and started again."""
    monkeypatch.setattr(supervisor_side, "GRACE", 0.0)
    monkeypatch.setattr(supervisor_side, "_LONGEST", 0.0)
    monkeypatch.setattr(supervisor_side, "AGAIN", 0.01)
    made = Canary([sys.executable, "-c", "", "ignored"], dict(os.environ))
    change = place.change(made)
    assert change == Change(True, ("the canary says nothing: it is started again",))
    made.stop()
    made.let_go()


def test_gates_that_start(namespace: Namespace, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While gates begin nothing is red, however often it fails."""
    namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    made = Canary(PROCESS, module_environment())
    made.follow(OFTEN, {})

    def failures() -> bool:
        assert place.look(made) is None
        return made._failures > 2

    until("it failed three times", failures)
    state = present(made.state())
    assert state["ok"]
    monkeypatch.setattr(made, "_red_from", 0.0)
    assert until("it is red", lambda: place.look(made)).failed
    made.stop()
    made.let_go()


def test_none() -> None:
    """Where the policy wants none there is none."""
    made = Canary(PROCESS, {})
    assert (made.look(Instant.now()), made.state(), made.due()) == (None, None, float("inf"))
    made.follow(CanarySettings(enabled=False), {})
    assert (made.look(Instant.now()), made.state(), made.due()) == (None, None, float("inf"))
    made.let_go()
