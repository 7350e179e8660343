"""The ruleset: what it says, and that nft takes it; what it does to packets is told in tests/gateway."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from labs.command_line import Command
from labs.ruleset_lab import printed

CANARY = {4: "198.18.116.2/32", 6: "fd74:6f6b:6761:7465::2/128"}
"""The client that tokgate itself is."""
NO_NFT = "" if shutil.which("nft") and shutil.which("ip") else "needs nft and ip"
needs_nft = pytest.mark.skipif(bool(NO_NFT) or os.geteuid() != 0, reason=NO_NFT or "needs root")


def test_this_machine_is_no_client_of_a_gateway(policies: Path, tokgate: Command) -> None:
    """Loopback addresses in a network are of the machine's own programs: a packet with such a source is forged."""
    path = policies / "policy.yaml"
    here = 'networks:\n  here: {cidrs: [127.0.0.0/8, "::1/128"]}\n'
    path.write_text(path.read_text().replace("networks:\n", here, 1).replace("[lab, abroad]", "[lab, abroad, here]"))
    out = tokgate("ruleset").out
    for version, loopback in ((4, "127.0.0.0/8"), (6, "::1/128")):
        assert loopback not in elements(out.partition(f"set clients{version}")[2])
    assert "127.0.0.0/8" in tokgate("ruleset", "--local", "--uid", "990").out


LINKS = """\
services: {clips: {names: {suffix: [clips.example.org]}}}
networks:
  workshop: {interfaces: [eth1, eth0.20]}
  federal: {devices: {file: devices.csv, paid_by: [federal]}}
  press: {users: [alice]}
bans:
  now: {title: No clips, services: [clips], networks: [workshop, federal, press], starts: 2023-03-10T00:00}
"""


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A policy that names clients by interface, device and user."""
    (tmp_path / "policy.yaml").write_text(LINKS)
    (tmp_path / "devices.csv").write_text("address,mac,paid_by\n192.0.2.9,,federal\n,00:53:00:00:00:03,federal\n")
    return tmp_path


def test_links_are_taken(links: Path) -> None:
    """What comes by an interface or from a device of a network under a ban goes to the gates, its UDP is refused."""
    out = printed(links)
    for name in ("clients4", "under_ban4"):
        assert elements(out.partition(f"set {name} ")[2]) == ["192.0.2.9/32", CANARY[4]]
    assert elements(out.partition("set clients_interfaces ")[2]) == ['"eth0.20"', '"eth1"']
    assert elements(out.partition("set clients_hardware ")[2]) == ["00:53:00:00:00:03"]
    for matched in ("iifname @clients_interfaces", "ether saddr @clients_hardware"):
        assert f"{matched} jump clients" in chain(out, "prerouting")
        assert f"meta l4proto udp {matched} jump clients_udp" in chain(out, "forward")
    assert "meta l4proto tcp ether saddr @under_ban_hardware jump under_ban_tcp" in chain(out, "forward")
    assert "\n#   press\n" in out
    local = printed(links, "--local", "--uid", "1000")
    assert not any("iifname" in rule for name in ("output", "output_udp") for rule in chain(local, name))


def chain(text: str, name: str) -> list[str]:
    """The rules of a chain, without comments."""
    lines = [line.strip() for line in text.partition(f"\tchain {name} {{\n")[2].partition("\n\t}")[0].splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def elements(text: str) -> list[str]:
    """The elements of the first set in a text."""
    inside = text.partition("\n\t}")[0].partition("elements = {")[2]
    return [line.strip(" \t,") for line in inside.splitlines() if line.strip(" \t,}")]


def test_what_loads_edits_is_said(policies: Path, tokgate: Command) -> None:
    """`nft -f` makes all sets anew, which Linux has empty for a moment; who prints the table reads what does not."""
    first, _, _ = tokgate("ruleset").out.partition("\ntable inet")
    assert "`tokgate gateway up`" in first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--local", "--uid", "990"), "meta skuid 990 accept"),
        (("--local", "--uid", "root"), "meta skuid 0 accept"),
        (("--mark", "0x10"), "meta mark 0x10 accept"),
        (("--port", "9000"), "tproxy to :9000 ct label set 116 meta mark set 0x746b accept"),
        (("--redirect", "8080"), "meta l4proto tcp counter redirect to :8080"),
        (("--redirect",), "redirect to :jhash ip daddr . tcp dport mod 64 seed 0x746b6761 map @redirect_ports"),
        (("--redirect",), "redirect to :jhash ip6 daddr . tcp dport mod 64 seed 0x746b6761 map @redirect_ports"),
        (("--route-mark", "77"), "#   ip -6 route replace local ::/0 dev lo table 77"),
        (("--local", "--uid", "990"), "chain output_udp"),
    ],
)
def test_options(policies: Path, tokgate: Command, arguments: tuple[str, ...], said: str) -> None:
    outcome = tokgate("ruleset", *arguments)
    assert outcome.code == 0
    assert said in outcome.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--uid", "no-such-user"),
        ("--uid", "1", "--mark", "1"),
        ("--mark", "0"),
        ("--mark", "x"),
        ("--port", "0"),
        ("--port", "65536"),
        ("--redirect", "9000-8000"),
        ("--redirect", "80-x"),
        ("--route-mark", "254"),
        ("--route-mark", "7", "--mark", "7"),
        ("--port", "9000", "--local", "8999-9001", "--uid", "990"),
    ],
)
def test_usage_errors(policies: Path, tokgate: Command, arguments: tuple[str, ...]) -> None:
    """What cannot be meant is refused before anything is printed."""
    outcome = tokgate("ruleset", *arguments)
    assert (outcome.code, outcome.out) == (2, "")


def test_local_needs_an_exemption(policies: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the proxy would be redirected to itself."""
    monkeypatch.setattr("tokgate.cli.service.gateway.DEFAULT_USER", "no-such-user")
    outcome = tokgate("ruleset", "--local")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--uid or --mark" in outcome.err


def test_a_policy_without_networks_beyond_this_machine_says_so(policies: Path, tokgate: Command) -> None:
    """A ruleset that redirects nothing is told apart from one that does."""
    (policies / "policy.yaml").write_text("version: 1\nnetworks: {here: {cidrs: [127.0.0.0/8]}}\n")
    outcome = tokgate("ruleset")
    assert outcome.code == 0
    assert "nothing is taken to the gates" in outcome.err


@needs_nft
@pytest.mark.parametrize("arguments", [(), ("--redirect",), ("--mark", "7"), ("--local", "--uid", "990")])
@pytest.mark.parametrize("cidrs", ["192.0.2.0/24", '0.0.0.0/0, "::/0"', "127.0.0.0/8", '"fe80::/10"'])
def test_nft_accepts_it(policies: Path, tokgate: Command, arguments: tuple[str, ...], cidrs: str) -> None:
    """`nft -c` takes every variant, for whole, empty and single-family sets."""
    (policies / "policy.yaml").write_text(f"version: 1\nnetworks: {{any: {{cidrs: [{cidrs}]}}}}\n")
    rules = tokgate("ruleset", *arguments).out
    checked = subprocess.run(
        ("unshare", "-n", "nft", "-c", "-f", "-"), input=rules, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
