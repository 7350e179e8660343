"""What the kernel says about itself, each state with what to do."""

from pathlib import Path
from typing import ClassVar

import pytest

from labs.builders import at, ban, snapshot
from tokgate.gateway.ruleset import Ruleset, TableOptions, ruleset_of
from tokgate.service.doctor import Result, kernel

WELL = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv4/conf/all/rp_filter": "2",
    "ipv4/conf/eth0/rp_filter": "0",
    "netfilter/nf_conntrack_count": "79",
    "netfilter/nf_conntrack_max": "100",
}


def _found(folder: Path, **changed: str | None) -> list[tuple[str, str]]:
    """Subjects and remedies of what is wrong."""
    for name, value in (WELL | {key.replace("__", "/"): value for key, value in changed.items()}).items():
        if value is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
    return [(each.subject, each.remedy) for each in kernel.gateway(50, folder, folder) if each.remedy is not None]


def test_all_is_well(tmp_path: Path) -> None:
    """Nothing is made up on a gateway that works, and nobody has to turn on an IPv6 that there isn't."""
    assert _found(tmp_path, ipv6__conf__all__forwarding=None) == []
    assert _found(tmp_path) == []
    assert len(list(kernel.gateway(50, tmp_path, tmp_path))) == 5


@pytest.mark.parametrize(
    ("name", "value", "subject", "remedy"),
    [
        ("ipv4__ip_forward", "0", "IPv4 forwarding", "net.ipv4.ip_forward=1"),
        ("ipv6__conf__all__forwarding", "0", "IPv6 forwarding", "net.ipv6.conf.all.forwarding=1"),
        ("ipv4__conf__eth0__rp_filter", "1", "reverse path filter", "rp_filter=2"),
        ("netfilter__nf_conntrack_count", "80", "connection tracking", "nf_conntrack_max=200"),
        ("netfilter__nf_conntrack_max", "99", "connection tracking", "nf_conntrack_max=100 "),
        ("netfilter__nf_conntrack_max", None, "connection tracking", "tokgate run --gateway"),
    ],
)
def test_what_is_wrong(tmp_path: Path, name: str, value: str | None, subject: str, remedy: str) -> None:
    """It is named with the command that helps."""
    ((found, help_),) = _found(tmp_path, **{name: value})
    assert found == subject
    assert remedy in help_


@pytest.mark.parametrize(
    ("file", "counted", "name", "remedy"),
    [
        ("snmp", "Icmp: InMsgs OutRateLimitHost\nIcmp: 5 {}\n", "ipv4/icmp_ratelimit", "net.ipv4.icmp_ratelimit=100"),
        ("snmp6", "Ip6InReceives 3\nIcmp6OutRateLimitHost {}\n", "ipv6/icmp/ratelimit", "net.ipv6.icmp.ratelimit=100"),
    ],
)
def test_refusals_that_were_not_sent(tmp_path: Path, file: str, counted: str, name: str, remedy: str) -> None:
    """Linux tells a client of few refusals in a second: what it kept to itself is counted there, and said here."""
    (tmp_path / file).write_text(counted.format(0))
    assert _found(tmp_path, **{name: "1000"}) == []
    (tmp_path / file).write_text(counted.format(7))
    ((subject, help_),) = _found(tmp_path, **{name: "1000"})
    assert (subject, remedy in help_) == ("refusals by ICMP", True)
    (said,) = [each.said for each in kernel.gateway(50, tmp_path, tmp_path) if each.remedy is not None]
    assert said.startswith("7 of IPv")
    assert "one in 1000 ms" in said


@pytest.mark.parametrize(("code", "status", "well"), [(0, 0, True), (5, 0, False), (0, 0x40, False), (-1, 0, False)])
def test_the_clock(code: int, status: int, well: bool) -> None:
    """One that nothing keeps right lets bans begin too early or too late."""
    assert (kernel.synchronised(code, status).remedy is None) == well


def test_the_clock_of_this_machine() -> None:
    """It can be asked without any privilege."""
    assert kernel.clock().subject == "clock"


class FakeKernel:
    """A kernel that differs as it was told to."""

    differs: ClassVar[list[str]] = []
    limits: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: TableOptions, state: Path) -> None:
        self.options = options

    def wanted(self, rules: Ruleset) -> Ruleset:
        return rules

    def differences(self, wanted: Ruleset) -> list[str]:
        return self.differs


def _loaded(folder: Path, monkeypatch: pytest.MonkeyPatch, problems: list[str], differs: list[str]) -> list[Result]:
    monkeypatch.setattr(kernel, "Kernel", FakeKernel)
    monkeypatch.setattr(FakeKernel, "differs", differs)
    monkeypatch.setattr("tokgate.gateway.checks.problems", lambda rules: problems)
    rules = ruleset_of(snapshot(ban()), at("2023-06-01T12:00:00Z"), TableOptions())
    return list(kernel.loaded(rules, folder))


def test_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps the host from being a gateway comes first, with what helps; then what differs; then the next start."""
    (tmp_path / "rules.nft").touch()
    well = _loaded(tmp_path, monkeypatch, [], [])
    assert [each.remedy for each in well] == [None, None]
    (host, _) = _loaded(tmp_path, monkeypatch, ["the loopback interface is down: ip link set lo up"], ["not looked at"])
    assert (host.said, host.remedy) == ("the loopback interface is down", "ip link set lo up")
    (differs, _) = _loaded(tmp_path, monkeypatch, [], ["table inet tokgate is not loaded"])
    assert differs.said == "table inet tokgate is not loaded"
    assert differs.remedy
    monkeypatch.setattr(FakeKernel, "limits", ("a setting is 1: sysctl -w it=0",))
    (limit, *_) = _loaded(tmp_path, monkeypatch, [], [])
    assert limit == Result("host", "a setting is 1", "sysctl -w it=0")
    (tmp_path / "rules.nft").unlink()
    *_, start = _loaded(tmp_path, monkeypatch, [], [])
    assert "systemctl enable tokgate-boot" in str(start.remedy)
