"""Who the client is, on the command line: explain, simulate and check say what networks make of it."""

import json
from pathlib import Path

import pytest

from labs.command_line import Command

POLICY = """\
services: {clips: {names: {suffix: [clips.example.org]}}}
networks:
  devices: {devices: {file: devices.csv, paid_by: [federal]}, timezone: Europe/Brussels}
  press: {groups: [press], users: [alice], timezone: America/New_York}
  workshop: {interfaces: [eth0.20]}
bans:
  ban: {title: No clips, services: [clips], networks: [devices, press, workshop], starts: 2023-03-10T00:00}
exemptions: {press: {ban: ban, users: [carol], until: 2043-01-01T00:00, reason: Press}}
tests:
  - {client: 192.0.2.9, user: bob, groups: [staff], host: clips.example.org, at: 2023-03-10T00:00, expect: EXPECTED}
"""
DEVICES = """\
name,address,mac,owner,paid_by
phone-3,,00:53:00:00:00:03,carol,federal|region
laptop-1,192.0.2.21,,,federal
"""
LAPTOP = "in devices through the device laptop-1, paid for by federal, by"
PHONE = "in devices through the device phone-3 of carol, paid for by federal and region, by"
AT = ("--at", "2023-03-10T00:00")


@pytest.fixture
def folder(policies: Path) -> Path:
    """A policy that names clients by more than prefixes, as ./policies."""
    (policies / "policy.yaml").write_text(POLICY.replace("EXPECTED", "allow"))
    (policies / "devices.csv").write_text(DEVICES)
    return Path("policies")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("client", "through"),
    [
        ("192.0.2.9", None),
        ("192.0.2.9 --user bob", None),
        ("192.0.2.21", f"{LAPTOP} 192.0.2.21 [policies/devices.csv:3]"),
        ("192.0.2.9 --device 0053.0000.0003", f"{PHONE} 00:53:00:00:00:03 [policies/devices.csv:2]"),
        ("192.0.2.9 --device Phone-3", f"{PHONE} its name [policies/devices.csv:2]"),
        ("192.0.2.9 --interface eth0.20", "in workshop through the interface eth0.20"),
    ],
)
def test_explain(tokgate: Command, client: str, through: str | None) -> None:
    """The first line says who was asked about, the first step which statement names them."""
    words = ("explain", "--host", "clips.example.org", "--at", "2023-05-02T00:00Z", "--client")
    outcome = tokgate(*words, *client.split())
    first, *lines = outcome.out.splitlines()
    verdict, reason = ("allow", "unknown-client") if through is None else ("block", "ban-block")
    asked = client.replace(" --", ", ")
    assert (outcome.code, first) == (0, f"{verdict}: {asked} clips.example.org ({reason})")
    assert through is None or any(line.startswith(f"   {through}, time zone ") for line in lines)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("said", "doubt"),
    [
        ("--device phone-3", ""),
        ("--device 00:53:00:00:00:99", ""),
        ("--device laptop-9", "the device laptop-9; did you mean `laptop-1`?"),
        ("--device 00:53:zz", "the device 00:53:zz; allowed: `laptop-1`, `phone-3`"),
        ("--user Alice", ""),
        ("--user carol", ""),
        ("--user alcie", "the user alcie; did you mean `alice`?"),
        ("--group press", ""),
        ("--group pres", "the group pres; did you mean `press`?"),
        ("--interface eth0.20", ""),
        ("--interface eth0.21", "the interface eth0.21; did you mean `eth0.20`?"),
    ],
)
def test_who_is_in_no_network(tokgate: Command, said: str, doubt: str) -> None:
    """Whoever is misspelt is in none, which must not pass for an answer about them; exemptions know people as well."""
    outcome = tokgate("explain", "--client", "192.0.2.9", "--host", "clips.example.org", *said.split())
    assert (outcome.code, outcome.err) == (0, doubt and f"no network or exemption names {doubt}\n")


@pytest.mark.usefixtures("folder")
def test_wall_time_of_who_is_asked_about(tokgate: Command) -> None:
    """A time without offset is where the narrowest network of this very client lives."""
    words = ("explain", "--client", "192.0.2.9", "--user", "Alice", "--group", "Press", "--host", "clips.example.org")
    outcome = tokgate(*words, *AT, "--json")
    answer = json.loads(outcome.out)
    assert answer["at"] == "2023-03-10T05:00:00Z"
    assert (answer["verdict"], answer["user"], answer["groups"]) == ("block", "Alice", ["Press"])
    assert "device" not in answer
    assert list(answer)[:5] == ["client", "host", "at", "user", "groups"]


@pytest.mark.usefixtures("folder")
def test_simulate(tokgate: Command, tmp_path: Path) -> None:
    """Lines say who the client is, and are echoed; what makes no sense is no query."""
    lines: list[dict[str, object]] = [
        {},
        {"user": "alice"},
        {"user": "bob", "groups": ["staff", "press"]},
        {"device": "phone-3"},
        {"interface": "eth0.20"},
        {"user": None, "groups": []},
        {"user": 7},
        {"groups": "press"},
    ]
    query: dict[str, object] = {"client": "192.0.2.9", "host": "clips.example.org", "at": "2023-05-02T00:00:00Z"}
    (tmp_path / "queries").write_text("".join(json.dumps(query | line) + "\n" for line in lines))
    outcome = tokgate("simulate", "queries")
    answers = [json.loads(line) for line in outcome.out.splitlines()]
    assert [answer["verdict"] for answer in answers] == ["allow", *["block"] * 4, "allow", None, None]
    assert [answer.get("groups") for answer in answers[1:3]] == [None, ["press", "staff"]]
    assert "user" not in answers[0]
    assert "user" not in answers[5]
    assert outcome.code == 1


def test_failing_test_tells_who(tokgate: Command, folder: Path) -> None:
    """A test that fails says who was asked about, and its trace is theirs."""
    assert tokgate("check").code == 0
    (folder / "policy.yaml").write_text(POLICY.replace("EXPECTED", "block"))
    outcome = tokgate("check")
    assert outcome.code == 1
    assert "got allow (unknown-client) for 192.0.2.9, user bob, groups staff clips.example.org" in outcome.out


def test_diff_of_inventories(tokgate: Command, folder: Path, tmp_path: Path) -> None:
    """A device that comes into an inventory is a change of the network."""
    other = tmp_path / "proposed"
    other.mkdir()
    (other / "policy.yaml").write_text((folder / "policy.yaml").read_text())
    (other / "devices.csv").write_text(DEVICES + "laptop-5,192.0.2.25,,,federal\n")
    outcome = tokgate("diff", "policies", "proposed")
    assert "networks.devices: +device:192.0.2.25/32" in outcome.out


def test_override_of_a_network_by_device(tokgate: Command, folder: Path) -> None:
    """An override of a network of devices names each as the inventory does; a client may be in it by its address."""
    words = ("override", "add", "--ban", "ban", "--for", "1h", "--reason", "A test")
    assert tokgate(*words, "--network", "devices").code == 0
    asked = ("explain", "--host", "clips.example.org", "--client")
    for said in (("192.0.2.21",), ("192.0.2.9", "--device", "Phone-3"), ("192.0.2.9", "--device", "0053.0000.0003")):
        assert tokgate(*asked, *said).out.startswith("allow: "), said
    assert tokgate(*asked, "192.0.2.9", "--interface", "eth0.20").out.startswith("block: ")
    assert tokgate(*words, "--client", "192.0.2.77").code == 0
