"""`tokgate override`: what is allowed and refused, what is written, and that a policy is never left broken."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from whenever import Instant, patch_current_time

from labs.builders import policy_in
from labs.command_line import Command
from tokgate.cli.terminal import you
from tokgate.config.diagnostics import render
from tokgate.config.loader import load
from tokgate.policy.decide import decide
from tokgate.policy.decision import Reason
from tokgate.policy.membership import Identity
from tokgate.policy.snapshot import compile_policy

POLICY = """\
version: 1
services: {clips: {names: {suffix: [clips.example.org]}}}
networks:
  office: {cidrs: [192.0.2.0/25, 192.0.2.128/25, "2001:db8:1::/48"], timezone: Europe/Brussels}
  lab: {cidrs: [198.51.100.0/24], timezone: Europe/Brussels}
  abroad: {cidrs: [203.0.113.0/24], timezone: America/New_York}
  outside: {cidrs: [233.252.0.0/26]}
bans:
  clips: {title: Clips, services: [clips], networks: [office, lab], starts: 2023-03-10}
  strict: {title: Strict, services: [clips], networks: [office], starts: 2023-03-10, overrides: forbidden}
  over: {title: Over, services: [clips], networks: [office], starts: 2023-03-10, duration: P1M}
  everywhere: {title: Everywhere, services: [clips], networks: [office, abroad], starts: 2023-03-10}
exemptions:
  by-hand: {ban: clips, clients: [192.0.2.9], until: 2999-01-01T00:00, reason: Archive}
"""
ADD = ("override", "add", "--reason", "Press conference", "--by", "alice")


@pytest.fixture
def policies(policies: Path) -> Path:
    (policies / "policy.yaml").write_text(POLICY)
    return Path("policies")


def written(policies: Path) -> list[Path]:
    return sorted((policies / "overrides").glob("*")) + sorted((policies / "overrides").glob(".*"))


def made(tokgate: Command, *arguments: str) -> str:
    outcome = tokgate(*ADD, "--ban", "clips", *(arguments or ("--client", "192.0.2.7", "--for", "2h")))
    assert outcome.code == 0, outcome.err
    return outcome.out.strip()


def reason(policies: Path, client: str, at: Instant) -> Reason:
    """What the folder decides for a client, by the bans that may have overrides."""
    policy = policy_in(policies, at)
    bans = {"clips": policy.bans["clips"]}
    return decide(compile_policy(replace(policy, bans=bans)), client, "clips.example.org", at).reason


def test_add(policies: Path, tokgate: Command) -> None:
    """It holds at once, for that client alone, and ends by itself to the tick."""
    assert reason(policies, "192.0.2.7", Instant.now()) == "ban-block"
    outcome = tokgate(*ADD, "--ban", "clips", "--client", "192.0.2.7", "--for", "2h", "--ticket", "CHG-1")
    assert outcome.code == 0
    name = outcome.out.strip()
    assert name.startswith("clips-2")
    assert f"tokgate override end {name}" in outcome.err

    override = policy_in(policies).exemptions[name]
    assert isinstance(override.until, Instant)
    assert isinstance(override.starts, Instant)
    assert (override.until - override.starts).total("hours") == 2
    assert (override.by, override.ticket, override.reason, override.override) == (
        "alice",
        "CHG-1",
        "Press conference",
        True,
    )
    assert reason(policies, "192.0.2.7", Instant.now()) == "exempt"
    assert reason(policies, "192.0.2.8", Instant.now()) == "ban-block"
    assert reason(policies, "192.0.2.7", override.until.subtract(nanoseconds=1)) == "exempt"
    assert reason(policies, "192.0.2.7", override.until) == "ban-block"


def test_the_file(policies: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML for people and editors, readable by whoever runs tokgate whatever the mask, and nothing beside it."""
    before = os.umask(0o077)
    try:
        name = made(tokgate)
    finally:
        os.umask(before)
    (path,) = written(policies)
    assert path == policies / "overrides" / f"{name}.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    lines = path.read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=../../schema/policy.schema.json"
    said = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    assert list(said["exemptions"]) == [name]
    assert said["exemptions"][name]["until"][-6:] in ("+01:00", "+02:00")


@pytest.mark.parametrize(
    ("option", "value", "key"),
    [
        ("--user", "alice", "users"),
        ("--group", "press", "groups"),
        ("--device", "00:53:00:aa:bb:cc", "devices"),
        ("--interface", "eth0.20", "interfaces"),
    ],
)
def test_for_whom(policies: Path, tokgate: Command, option: str, value: str, key: str) -> None:
    """An override for a person, a group, a device or an interface is in the file, and in the list."""
    name = made(tokgate, option, value, "--for", "2h")
    exemption = policy_in(policies).exemptions[name]
    assert (getattr(exemption, key), exemption.clients) == ((value,), ())
    (listed,) = json.loads(tokgate("override", "list", "--json").out)["overrides"]
    assert (listed[key], listed["clients"]) == ([value], [])
    assert value in tokgate("override", "list").out


def test_a_device_that_no_inventory_has(policies: Path, tokgate: Command) -> None:
    """Whoever mistypes a device is told at once that nobody is exempt."""
    outcome = tokgate(*ADD, "--ban", "clips", "--device", "phon-2", "--for", "2h")
    assert outcome.code == 0
    assert "warning: no inventory has a device `phon-2`" in outcome.err
    assert "warning" not in tokgate(*ADD, "--ban", "clips", "--client", "192.0.2.7", "--for", "2h").err


def test_a_prefix_over_two_of_a_network(policies: Path, tokgate: Command) -> None:
    """What the networks cover together counts, not each prefix for itself; several clients may be named."""
    made(tokgate, "--client", "192.0.2.0/24", "--client", "198.51.100.7", "--for", "30m")
    assert reason(policies, "192.0.2.200", Instant.now()) == "exempt"
    assert reason(policies, "198.51.100.7", Instant.now()) == "exempt"


@pytest.mark.parametrize(
    ("words", "now", "until", "ends"),
    [
        ("--ban clips", "2026-03-10T08:00Z", "2026-03-10T11:00", "2026-03-10T10:00Z"),
        ("--ban clips", "2026-10-24T20:00Z", "2026-10-25T02:30", "2026-10-25T01:30Z"),
        ("--ban everywhere", "2026-03-10T08:00Z", "2026-03-10T11:00", "2026-03-10T10:00Z"),
        ("--ban everywhere --client 203.0.113.7", "2026-03-10T08:00Z", "2026-03-10T11:00", "2026-03-10T11:00Z"),
    ],
    ids=["winter", "the later of two", "one of two zones", "two zones"],
)
def test_until_is_wall_time_of_the_network(
    policies: Path, tokgate: Command, words: str, now: str, until: str, ends: str
) -> None:
    """Without an offset it is read where the clients are, of a time that occurs twice the later; in two zones UTC."""
    with patch_current_time(Instant(now), keep_ticking=False):
        outcome = tokgate(*ADD, *words.split(), "--client", "192.0.2.7", "--until", until)
    assert policy_in(policies, Instant(now)).exemptions[outcome.out.strip()].until == Instant(ends)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("--ban clops --client 192.0.2.7 --for 2h", 2, "unknown ban `clops`; did you mean `clips`?"),
        ("--ban strict --client 192.0.2.7 --for 2h", 1, "the ban `strict` forbids overrides (policies"),
        ("--ban clips --network offices --for 2h", 2, "unknown network `offices`; did you mean `office`"),
        ("--ban clips --network abroad --for 2h", 1, "does not concern the network `abroad`, but `office`"),
        ("--ban clips --client 203.0.113.7 --for 2h", 1, "`203.0.113.7/32` is in none of the networks"),
        ("--ban clips --client 192.0.0.0/16 --for 2h", 1, "`192.0.0.0/16` is not wholly in the networks"),
        ("--ban clips --client 192.0.2.7/24 --for 2h", 2, "has host bits set"),
        ("--ban clips --client office --for 2h", 2, "`office` is no network"),
        ("--ban clips --client 192.0.2.7 --for 1441m", 1, "an override lasts at most PT24H"),
        ("--ban clips --client 192.0.2.7 --for P9Y", 1, "an override lasts at most PT24H"),
        ("--ban clips --client 192.0.2.7 --for 99999d", 1, "an override lasts at most PT24H"),
        ("--ban clips --client 192.0.2.7 --for P9999Y", 2, "beyond the end of the calendar"),
        ("--ban clips --client 192.0.2.7 --for 2", 2, "`2` is no duration; write it as"),
        ("--ban clips --client 192.0.2.7 --for 0h", 2, "lasts no time at all"),
        ("--ban clips --client 192.0.2.7 --for -PT2H", 2, "expected one argument"),
        ("--ban clips --client 192.0.2.7 --until 2024-01-01T00:00", 2, "it is past 2024-01-01 00:00"),
        ("--ban clips --client 192.0.2.7 --until 2999-01-01", 2, "a date alone does not say"),
        ("--ban clips --client 192.0.2.7 --until 2999-01-01T00:00", 1, "an override lasts at most"),
        ("--ban over --client 192.0.2.7 --for 2h", 1, "the ban is over"),
        ("--ban clips --for 2h", 2, "one of the arguments --network --client --user --group --device"),
        ("--ban clips --client 192.0.2.7", 2, "one of the arguments --for --until is required"),
        ("--ban clips --client 192.0.2.7 --network lab --for 2h", 2, "not allowed with argument"),
        ("--ban clips --client 192.0.2.7 --for 2h --name ../up", 2, "can't be a name"),
        ("--all-bans --network offices --for 2h", 2, "unknown network `offices`; did you mean `office`"),
        ("--all-bans --network outside --for 2h", 1, "no ban is in force, or will be by then: nothing was written"),
        ("--all-bans --client 192.0.2.7 --for 2h", 2, "argument --client: not allowed with argument --all-bans"),
        ("--all-bans --ban clips --for 2h", 2, "not allowed with argument"),
        ("--all-bans --for 25h", 1, "an override lasts at most PT24H"),
        ("--for 2h", 2, "one of the arguments --ban --all-bans is required"),
        ("--ban clips --client 192.0.2.7 --for 2h --reason 'a\nb'", 2, "one line of printable text"),
        ("--ban clips --client 192.0.2.7 --for 2h --reason ' '", 2, "must not be empty"),
        ("--ban clips --client 192.0.2.7 --for 2h --policies gone", 2, "gone is no folder"),
        ("--ban clips --client 192.0.2.7 --for 2h --policies policies/policy.yaml", 2, "is no folder"),
    ],
)  # fmt: skip
def test_refusals(policies: Path, tokgate: Command, arguments: str, code: int, said: str) -> None:
    """Each says why: 1 for what the policy doesn't allow, 2 for what was not asked rightly; nothing is written."""
    outcome = tokgate(*ADD, *shlex.split(arguments))
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err
    assert written(policies) == []


def test_a_limit_of_ones_own(policies: Path, tokgate: Command) -> None:
    """The limit itself is allowed, a minute more is not."""
    (policies / "settings.yaml").write_text("settings: {overrides: {longest: PT1H}}\n")
    made(tokgate, "--client", "192.0.2.7", "--for", "1h")
    outcome = tokgate(*ADD, "--ban", "clips", "--client", "192.0.2.8", "--for", "61m")
    assert (outcome.code, len(written(policies))) == (1, 1)
    assert "an override lasts at most PT1H" in outcome.err


def test_a_policy_with_errors(policies: Path, tokgate: Command) -> None:
    """It is not added to: its errors are shown, and nothing is written."""
    (policies / "wrong.yaml").write_text("bans: {a: {}}\n")
    outcome = tokgate(*ADD, "--ban", "clips", "--client", "192.0.2.7", "--for", "1h")
    assert outcome.code == 1
    assert "policies/wrong.yaml:1:" in outcome.err
    assert written(policies) == []


def test_a_folder_that_cannot_be_written(policies: Path, tokgate: Command) -> None:
    """It ends with 3 and says where; nothing half written stays."""
    (policies / "overrides").write_text("in the way")
    outcome = tokgate(*ADD, "--ban", "clips", "--client", "192.0.2.7", "--for", "1h")
    assert outcome.code == 3
    assert "overrides" in outcome.err


def test_a_file_that_is_there(policies: Path, tokgate: Command) -> None:
    """A file of that name is never overwritten, whatever it holds: the override gets another."""
    with patch_current_time(Instant("2026-03-10T08:00Z"), keep_ticking=False):
        other = policies / "overrides" / "clips-20260310T080000Z.yaml"
        other.parent.mkdir()
        other.write_text("version: 1\n")
        assert made(tokgate) == "clips-20260310T080000Z-2"
    assert other.read_text() == "version: 1\n"


def test_two_at_once(policies: Path) -> None:
    """Several people may make overrides in the same second: each gets its own."""
    command = [sys.executable, "-m", "tokgate", *ADD, "--ban", "clips", "--client", "192.0.2.7", "--for", "1h"]
    running = [subprocess.Popen(command, text=True, stdout=subprocess.PIPE) for _ in range(3)]
    names = [process.communicate()[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(set(names)) == 3
    assert {path.stem for path in written(policies)} == set(names)
    assert load(policies, Instant.now()).errors == ()


def test_end(policies: Path, tokgate: Command) -> None:
    """It no longer holds; the file shows what was, and who ended it. A second time there is nothing to do."""
    name = made(tokgate)
    outcome = tokgate("override", "end", name, "--by", "bob")
    assert (outcome.code, outcome.out) == (0, "")
    assert "clips holds again" in outcome.err
    assert reason(policies, "192.0.2.7", Instant.now().add(seconds=1)) == "ban-block"
    loaded = load(policies, Instant.now().add(seconds=1))
    assert loaded.policy is not None
    ended = loaded.policy.exemptions[name]
    assert (ended.by, ended.ended_by, ended.reason) == ("alice", "bob", "Press conference")
    assert [each for each in loaded.diagnostics if "overrides" in each.origin.file] == []
    assert tokgate("check").code == 0
    (path,) = written(policies)
    before = path.read_text()
    with patch_current_time(Instant.now().add(seconds=2), keep_ticking=False):
        again = tokgate("override", "end", name, "--by", "carol")
    assert (again.code, "nothing to do" in again.err, path.read_text()) == (0, True, before)


def test_end_before_it_began(policies: Path, tokgate: Command) -> None:
    """An override that was put off by hand is listed as such; what has not been can't end."""
    name = made(tokgate)
    (path,) = written(policies)
    said = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    start = Instant.now().add(hours=1)
    said["exemptions"][name] |= {"starts": start.format_iso(), "until": start.add(hours=1).format_iso()}
    path.write_text(yaml.safe_dump(said))
    assert tokgate("override", "list").out.splitlines()[1].split()[1] == "upcoming"
    outcome = tokgate("override", "end", name)
    assert (outcome.code, "has not begun" in outcome.err) == (1, True)


def test_end_refuses_what_it_did_not_make(policies: Path, tokgate: Command) -> None:
    """Exemptions by hand, files with more in them and files elsewhere are left to who wrote them."""
    name = made(tokgate)
    (path,) = written(policies)
    assert tokgate("override", "end", "nothing").code == 2
    outcome = tokgate("override", "end", "by-hand")
    assert (outcome.code, "not of a file of its own" in outcome.err) == (1, True)

    text = path.read_text()
    path.write_text(text + "networks: {more: {cidrs: [233.252.0.0/24]}}\n")
    outcome = tokgate("override", "end", name)
    assert (outcome.code, "holds more than this override" in outcome.err) == (1, True)

    path.rename(policies / "moved.yaml")
    outcome = tokgate("override", "end", name)
    assert (outcome.code, "change its `until` in policies/moved.yaml:" in outcome.err) == (1, True)
    assert (policies / "moved.yaml").read_text().startswith(text)


def test_list(policies: Path, tokgate: Command) -> None:
    """A table and JSON; what is over only on demand, exemptions by hand never."""
    outcome = tokgate("override", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert "no overrides in force" in outcome.err
    first = made(tokgate, "--client", "192.0.2.7", "--for", "2h")
    second = made(tokgate, "--network", "office", "--for", "1h", "--ticket", "CHG-1")
    assert "Europe/Brussels  alice  Press conference (CHG-1)\n" in tokgate("override", "list").out
    tokgate("override", "end", second, "--by", "bob")
    listed = json.loads(tokgate("override", "list", "--json").out)["overrides"]
    assert [(each["name"], each["state"]) for each in listed if each["name"] != second] == [(first, "active")]
    everything = json.loads(tokgate("override", "list", "--all", "--json").out)["overrides"]
    (quick,) = (each for each in everything if each["name"] == second)
    assert (quick["ban"], quick["by"], quick["ended_by"], quick["ticket"]) == ("clips", "alice", "bob", "CHG-1")
    assert quick["clients"] == ["192.0.2.0/25", "192.0.2.128/25", "2001:db8:1::/48"]
    assert quick["file"] == f"policies/overrides/{second}.yaml"
    assert "ended by bob" in tokgate("override", "list", "--all").out


def verdicts(policies: Path) -> dict[str, str]:
    """What each kind of client gets now: an address, one of two networks, and members by other attributes."""
    snapshot = compile_policy(policy_in(policies))
    who = {"alice": Identity(user="alice"), "phone": Identity(device="phone-2")}
    clients = {"office": "192.0.2.7", "lab": "198.51.100.7", "abroad": "203.0.113.7", "alice": "233.252.0.7"}
    return {
        name: decide(snapshot, address, "clips.example.org", Instant.now(), identity=who.get(name)).verdict.value
        for name, address in (clients | {"phone": "233.252.0.8", "strict": "198.51.100.200"}).items()
    }


def test_all_bans(policies: Path, tokgate: Command) -> None:
    """One command takes every ban out for everybody whom it names, and one name ends that; what forbids it holds."""
    text = POLICY.replace(
        "networks: [office], starts: 2023-03-10, overrides", "networks: [vault], starts: 2023-03-10, overrides"
    )
    more = "  vault: {cidrs: [198.51.100.200]}\n  fleet: {users: [alice], devices: {file: d.csv}}\n"
    text = text.replace(
        "bans:\n", f"{more}bans:\n  staff: {{title: S, services: [clips], networks: [fleet], starts: 2023-03-10}}\n"
    )
    (policies / "policy.yaml").write_text(text)
    (policies / "d.csv").write_text("name,mac\nphone-2,00:53:00:aa:bb:cc\n")
    before = verdicts(policies)
    assert set(before.values()) == {"block"}
    outcome = tokgate(*ADD, "--all-bans", "--for", "2h")
    assert outcome.code == 1
    assert "strict forbids overrides (policies/policy.yaml" in outcome.err
    name = outcome.out.strip()
    (path,) = written(policies)
    assert path.stem == name
    assert verdicts(policies) == dict.fromkeys(before, "allow") | {"strict": "block"}
    listed = json.loads(tokgate("override", "list", "--json").out)["overrides"]
    assert sorted((each["ban"], each["state"]) for each in listed) == [
        (ban, "active") for ban in ("clips", "everywhere", "staff")
    ]
    assert "is in no network of the ban" not in tokgate("check").out
    assert f"change its `until` in {path}" in tokgate("override", "end", listed[0]["name"]).err
    assert "staff, clips, everywhere hold again" in tokgate("override", "end", name).err
    with patch_current_time(Instant.now().add(seconds=2), keep_ticking=False):
        assert verdicts(policies) == before


def test_all_bans_of_a_network(policies: Path, tokgate: Command) -> None:
    """The others' clients stay as they are; a ban that begins within the time is taken out, one after it isn't."""
    soon, late = (Instant.now().add(hours=hours).format_iso() for hours in (1, 3))
    lines = "".join(
        f"  {name}: {{title: T, services: [clips], networks: [lab], starts: '{at}'}}\n"
        for name, at in (("soon", soon), ("late", late))
    )
    (policies / "policy.yaml").write_text(POLICY.replace("bans:\n", f"bans:\n{lines}"))
    outcome = tokgate(*ADD, "--all-bans", "--network", "lab", "--for", "2h")
    assert (outcome.code, outcome.out.startswith("all-bans-2")) == (0, True)
    assert verdicts(policies) | {"alice": "", "phone": "", "strict": ""} == {
        "office": "block", "lab": "allow", "abroad": "block", "alice": "", "phone": "", "strict": ""
    }  # fmt: skip
    listed = json.loads(tokgate("override", "list", "--json").out)["overrides"]
    assert {each["ban"]: each["clients"] for each in listed} == {
        each: ["198.51.100.0/24"] for each in ("clips", "soon")
    }


def test_who_you_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever became root is meant; a container's nameless user has a number."""
    monkeypatch.setenv("SUDO_USER", "alice")
    assert you() == "alice"
    monkeypatch.delenv("SUDO_USER")
    monkeypatch.setenv("DOAS_USER", "bob")
    assert you() == "bob"
    monkeypatch.delenv("DOAS_USER")
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(OSError()))
    assert you() == f"uid {os.getuid()}"


ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "overrides.md").read_text()
AROUND = """\
version: 1
services: {tiktok: {names: {suffix: [tiktok.com]}}}
networks: {offices: {cidrs: [10.32.0.0/14], timezone: Europe/Brussels}}
bans: {offices-2027: {title: TikTok, services: [tiktok], networks: [offices], starts: 2027-03-01}}
"""


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL))
def test_examples_load(text: str, tmp_path: Path) -> None:
    """Each example is a valid part of a policy."""
    (tmp_path / "a.yaml").write_text(AROUND)
    (tmp_path / "b.yaml").write_text(text)
    loaded = load(tmp_path, Instant.from_utc(2027, 3, 1, 10))
    assert loaded.diagnostics == (), "\n".join(map(render, loaded.diagnostics))


def test_reasons_of_an_end() -> None:
    source = (ROOT / "addons" / "tokgate" / "runtime" / "notified.py").read_text()
    reasons = set(re.findall(r'"((?:it|its|ended) [a-z ]+)"', source))
    assert len(reasons) == 4
    assert all(f"`{reason}`" in DOCS for reason in reasons)
