"""`tokgate run --gateway` where something is wrong: damage, a canary that is refused, a crash, an unfit host."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import partial

import pytest

from labs.gateway import Gateway, office_policy, reaches, refused, refuses
from labs.netns import Lab, wait_until
from labs.origin import ALLOWED, BANNED, Origin

Make = Callable[..., Gateway]


DAMAGE = {
    "table flushed": ("nft flush ruleset", "table inet tokgate is not loaded"),
    "table asleep": ("nft add table inet tokgate { flags dormant; }", "the table is asleep"),
    "another's table": ("nft flush ruleset; add table inet tokgate", "table inet tokgate is somebody else's"),
    "rule gone": ("nft flush chain inet tokgate to_gate", "chain to_gate lacks 5 rules"),
    "route gone": ("ip rule del priority 746", "IPv4: the policy rule 746 that looks mark"),
    "forwarding off": ("sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward is 0"),
}


def _is_told(gateway: Gateway, said: str) -> bool:
    return said in str(gateway.status()["gateway"]["problems"])


def test_damage(lab: Lab, origin: Origin, make: Make) -> None:
    """Whatever somebody takes out comes back at once; status, metrics and health are red, and the log says why.

    Then, with `on_stop: closed`, nobody under a ban passes while tokgate is updated, and others do.
    """
    policy = office_policy() | {"settings": {"gateway": {"on_stop": "closed"}}}
    with make(policy, options=("--metrics", "9300")) as gateway:
        for command, said in DAMAGE.values():
            lab.gateway.run(*command.split())
            wait_until("status is red", partial(_is_told, gateway, said))
            wait_until("it is restored", lambda: not any(gateway.status()["gateway"]["differences"].values()), 30)
            assert refused(lab, origin, 4)
        assert not gateway.status()["ok"]
        code = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9300/healthz")
        assert lab.gateway.run(*code).stdout == "503"
        metrics = lab.gateway.run("curl", "-s", "http://127.0.0.1:9300/metrics").stdout
        assert "tokgate_gateway_in_step 0" in metrics
        assert f"tokgate_gateway_restored_total {len(DAMAGE)}" in metrics
        actions = [r["event"]["action"] for r in gateway.records() if r["event"]["action"].startswith("gateway")]
        assert actions == ["gateway-differs", "gateway-restored"] * len(DAMAGE)
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        gateway.process.wait(20)
        assert not reaches(lab, origin, ALLOWED, 4)
        assert not reaches(lab, origin, BANNED, 4)
        assert reaches(lab, origin, BANNED, 4, "guest")
        gateway.asked("gateway", "down", "--policies", gateway.policies)
        assert reaches(lab, origin, ALLOWED, 4)


DROP = "table inet other { chain drops { type filter hook prerouting priority -400; tcp dport 443 drop; }; }"


STOPPED = {
    "packets dropped by others": (f"nft {DROP}", "nft delete table inet other", "had no answer"),
    "packets of a network dropped by others": (
        f"nft {DROP.replace('tcp dport 443', 'ip saddr 192.0.2.0/24 tcp dport 443')}",
        "nft delete table inet other",
        "IPv4 from 192.0.2.254 in network office: the banned test name had no answer",
    ),
    "marks routed elsewhere": (
        "ip rule add priority 700 fwmark 0x746b lookup main",
        "ip rule del priority 700",
        "IPv4: the banned test name",
    ),
}
"""What stops enforcement although table and routes are as they should be, and the end of that."""


def test_the_canary(lab: Lab, make: Make, unchanged: None) -> None:
    """It shows that enforcement works, that it has stopped, and that it works again; then nothing of it is left."""
    policy = office_policy() | {"settings": {"gateway": {"canary": {"seconds": 1}}}}
    before = lab.gateway.run("ip", "-br", "link").stdout.count("\n")
    with make(policy, options=("--metrics", "9300")) as gateway:

        def green() -> bool:
            told = gateway.status()
            return told["ok"] and told["gateway"]["canary"]["at"] is not None

        def metric() -> str:
            exposed = lab.gateway.run("curl", "-s", "http://127.0.0.1:9300/metrics").stdout
            return next(line for line in exposed.splitlines() if line.startswith("tokgate_gateway_canary "))

        wait_until("enforcement works", green)
        assert metric() == "tokgate_gateway_canary 1.0"
        for family in (4, 6):  # QUIC on another port is refused by the kernel alone, which counts it
            with lab.client.datagrams(Lab.ALLOWED[family], 8443) as near:
                near.settimeout(20)
                near.send(b"\xc3\x00\x00\x00\x01".ljust(1200, b"\0"))
                with pytest.raises(ConnectionRefusedError):
                    near.recv(1)
        assert gateway.status()["gateway"]["refused"]["quic_other_ports"] == 2
        metrics = lab.gateway.run("curl", "-s", "http://127.0.0.1:9300/metrics").stdout
        assert 'tokgate_gateway_refused_packets_total{kind="quic_other_ports"} 2' in metrics
        for begin, end, said in STOPPED.values():
            lab.gateway.run(*begin.split(maxsplit=1 if begin.startswith("nft") else -1))
            wait_until("the canary is red", lambda said=said: _is_told(gateway, said))  # type: ignore[misc]
            assert metric() == "tokgate_gateway_canary 0.0"
            code = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9300/healthz")
            assert lab.gateway.run(*code).stdout == "503"
            lab.gateway.run(*end.split())
            wait_until("it is green again", green)
    wait_until("its links are gone", lambda: lab.gateway.run("ip", "-br", "link").stdout.count("\n") == before)
    actions = [r["event"]["action"] for r in gateway.records() if r["event"]["action"].startswith("canary")]
    assert actions == ["canary-failed", "canary-recovered"] * len(STOPPED)
    assert all("canary.tokgate" not in json.dumps(r) for r in gateway.records())
    counted = [r["tokgate"] for r in gateway.records() if r["event"]["action"] == "coverage-counted"]
    assert all(each["coverage"] == {} for each in counted)
    assert sum(each.get("gateway", {}).get("refused", {}).get("quic_other_ports", 0) for each in counted) == 2


@pytest.mark.parametrize("on_crash", ["closed", "open"])
def test_a_crash(lab: Lab, origin: Origin, make: Make, on_crash: str) -> None:
    """The rules stay: who is under a ban is refused, or passes where the policy says so; everybody else passes."""
    policy = office_policy() | {"settings": {"gateway": {"on_crash": on_crash}}}
    gateway = make(policy).__enter__()
    try:
        assert refused(lab, origin, 4)
        gateway.wait_for_record(
            "the refusal is logged", refuses(BANNED, Lab.CLIENT[4])
        )  # else the next log begins with it
        assert gateway.process is not None
        gateway.process.kill()
        gateway.process.wait()
        wait_until("no gate listens", lambda: not gateway.listens())
        for family in (4, 6):
            assert reaches(lab, origin, BANNED, family, "guest")
            assert reaches(lab, origin, BANNED, family) is (on_crash == "open")
        for file in gateway.log.parent.glob("block*"):  # the log lacks an end; a new one begins
            file.unlink()
        with make(policy) as again:
            assert refused(lab, origin, 4)
            wait_until("all is well", lambda: again.status()["ok"])
    finally:
        gateway._end()


def test_a_host_that_does_not_allow_it(lab: Lab, make: Make) -> None:
    """It says why, changes nothing, and exits with 3."""
    lab.gateway.run("nft", "add", "table", "inet", "tokgate")
    try:
        with pytest.raises(RuntimeError, match="tokgate ended") as told, make(office_policy()):
            pass
        assert "nothing was changed" in str(told.value)
        assert "a table inet tokgate that tokgate did not make" in str(told.value)
    finally:
        lab.gateway.run("nft", "delete", "table", "inet", "tokgate", check=False)
