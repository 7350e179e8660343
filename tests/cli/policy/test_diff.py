"""Diff: what a change of policy changes, by itself and for traffic; the exact text, the JSON, and exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from labs.command_line import POLICY, Command
from labs.logs import refusal, repeats, write

YEAR = ("--from", "2023-01-01", "--to", "2024-01-01")

TEXT = """\
Exemptions
  192.0.2.9/32 no longer exempt from spring-ban (press): from 2023-05-31T16:00:00Z to 2023-06-30T16:00:00Z
  192.0.2.10/32 exempt from spring-ban (radio): until 2023-05-31T16:00:00Z

Definitions
  bans.spring-ban.starts: +2023-03-06T00:00:00 -2023-03-10T00:00:00
  bans.spring-ban.duration: +P6M3D -P6M
  exemptions.press.until: +2023-05-31T18:00:00 -2023-06-30T18:00:00
  exemptions.radio.ban: +spring-ban
  exemptions.radio.until: +2023-05-31T18:00:00
  exemptions.radio.reason: +Radio
  exemptions.radio.clients: +192.0.2.10/32
  networks.lab: +192.0.2.80/28
  services.clips: +suffix:clips.example.net -exact:static.example.net
"""


@pytest.fixture
def new(policies: Path) -> Path:
    """A changed copy of the policy in the folder `new`."""
    folder = policies.with_name("new")
    folder.mkdir()
    text = (
        POLICY.replace("starts: 2023-03-10T00:00", "starts: 2023-03-06T00:00")
        .replace("until: 2023-06-30T18:00", "until: 2023-05-31T18:00")
        .replace("exact: [static.example.net]", "")
        .replace("suffix: [clips.example.org]", "suffix: [clips.example.org, clips.example.net]")
        .replace("[192.0.2.64/28,", "[192.0.2.64/28, 192.0.2.80/28,")
        .replace(
            "tests:",
            "  radio: {ban: spring-ban, clients: [192.0.2.10], until: 2023-05-31T18:00, reason: Radio}\ntests:",
        )
        .replace("duration: P6M", "duration: P6M3D")
    )
    (folder / "policy.yaml").write_text(text.partition("tests:")[0])
    return folder


def test_text(new: Path, tokgate: Command) -> None:
    """Exemptions and definitions: each change once, below what docs/admin.md shows."""
    outcome = tokgate("diff", "policies", "new", *YEAR)
    assert outcome.out.endswith(f" Europe/Brussels\n\n{TEXT}")
    assert (outcome.code, outcome.err) == (0, "")


def test_exit_codes(new: Path, tokgate: Command) -> None:
    """0 whatever differs; with --exit-code 1 when anything does."""
    assert tokgate("diff", "policies", "new").code == 0
    assert tokgate("diff", "policies", "new", "--exit-code").code == 1
    same = tokgate("diff", "policies", "policies", "--exit-code")
    assert same.code == 0
    assert same.out.count("no difference") == 3
    assert same.err == "tokgate: both say the same: one version\n"
    assert tokgate("diff", "policies", "new", "--from", "2023-02-02", "--to", "2023-02-01").code == 2
    assert tokgate("diff", "policies", "nowhere").code == 1
    assert tokgate("diff", "policies", "policies", "--log", "none.ndjson").code == 3
    assert tokgate("diff", "policies", "policies", "--flows", "none.ndjson").code == 3


def test_exit_code_of_traffic_alone(policies: Path, tokgate: Command) -> None:
    """A device that only has another name: no definition differs, but what it would get does, and that makes it 1."""
    network = "  fleet: {devices: {file: devices.csv}, timezone: Europe/Brussels}\n"
    text = POLICY.replace("bans:\n", f"{network}bans:\n", 1).replace("networks: [office]", "networks: [office, fleet]")
    for folder, name in (("before", "tablet"), ("after", "laptop")):
        Path(folder).mkdir()
        Path(folder, "policy.yaml").write_text(text)
        Path(folder, "devices.csv").write_text(f"name,mac\n{name},00:53:00:aa:bb:cc\n")
    flow = {"client": "203.0.113.99", "host": "clips.example.org", "at": "2023-05-02T08:00Z", "device": "laptop"}
    Path("flows").write_text(f"{json.dumps(flow)}\n")
    assert tokgate("diff", "before", "after", *YEAR, "--exit-code").code == 0
    assert tokgate("diff", "before", "after", *YEAR, "--exit-code", "--flows", "flows").code == 1


def test_only_the_order(policies: Path, tokgate: Command) -> None:
    """Who only sorts a list is told on stderr that the other version is the same policy."""
    (policies.parent / "new.yaml").write_text(POLICY.replace("[lab, abroad]", "[abroad, lab]"))
    outcome = tokgate("diff", "policies", "new.yaml", "--exit-code", *YEAR)
    assert (outcome.code, outcome.out.count("no difference")) == (0, 3)
    assert outcome.err == "tokgate: written otherwise, but nothing that anybody gets or reads differs\n"


def test_settings_that_let_more_pass(policies: Path, tokgate: Command) -> None:
    """They stand out from the definitions; in the other direction nothing does."""
    strict = policies.parent / "strict.yaml"
    strict.write_text(POLICY + "settings: {missing_sni: block}\n")
    assert "settings:" not in POLICY
    text = tokgate("diff", "strict.yaml", str(policies), *YEAR).out
    assert text.endswith("\n\nSettings by which NEW lets more pass\n  missing_sni: block -> check-address\n")
    answer = json.loads(tokgate("diff", "strict.yaml", str(policies), *YEAR, "--json").out)
    assert answer["weaker_settings"] == ["missing_sni: block -> check-address"]
    assert "lets more pass" not in tokgate("diff", str(policies), "strict.yaml", *YEAR).out


def test_bans_that_would_be_held(policies: Path, tokgate: Command) -> None:
    """A ban in force that vanishes stays in force where tokgate runs: the comparison of files alone would mislead."""
    during, asked = ("--from", "2023-05-01T00:00Z"), ("diff", str(policies), "new")
    path = policies.with_name("new") / "policy.yaml"
    path.parent.mkdir()
    path.write_text(POLICY.partition("bans:")[0])
    text = tokgate(*asked, *during).out
    assert text.endswith(
        "\n\nHeld by a running tokgate, since NEW does not name them under `lifted`\n  spring-ban, lab-watch\n"
    )
    assert json.loads(tokgate(*asked, *during, "--json").out)["held"] == ["spring-ban", "lab-watch"]
    assert json.loads(tokgate(*asked, "--from", "2024-01-01T00:00Z", "--json").out)["held"] == ["lab-watch"]
    path.write_text(
        path.read_text() + "lifted: [{ban: spring-ban, reason: Repealed}, {ban: lab-watch, reason: Repealed}]\n"
    )
    assert "Held" not in tokgate(*asked, *during).out


def test_windows_are_told_in_short(policies: Path, tokgate: Command) -> None:
    """Of hundreds of stretches the first and the last are shown; JSON has all."""
    windows = 'action: monitor, windows: [{days: mon-fri, from: "08:00", to: "18:00"}]}'
    text = POLICY.replace(
        "exemptions:",
        f"  hours: {{title: H, services: [clips], networks: [abroad], starts: 2020-01-01, {windows}\nexemptions:",
    ).replace("networks: [lab, abroad]", "networks: [lab]")
    (policies.parent / "new.yaml").write_text(text)
    lines = tokgate("diff", "policies", "new.yaml", *YEAR).out
    assert "from 2023-03-01 00:00 -05:00 to 2023-03-01 08:00 -05:00; from" in lines
    assert "times more, the last from 2023-12-29 18:00 -05:00 on America/New_York" in lines
    document = json.loads(tokgate("diff", "policies", "new.yaml", "--json", *YEAR).out)
    assert len(document["verdicts"]) > 200


def flows(path: Path, *lines: Any) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


def replayed(tokgate: Command, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(tokgate("diff", "policies", "new", "--json", *YEAR, *arguments).out)
    traffic: dict[str, Any] = document["traffic"]
    return traffic


def test_flows(new: Path, tokgate: Command, tmp_path: Path) -> None:
    """Each flow is decided by both policies at its time; wall times are those of its client."""
    file = flows(
        tmp_path / "flows",
        {"client": "192.0.2.7", "host": "www.clips.example.org", "at": "2023-03-07T12:00"},
        {"client": "192.0.2.8", "host": "a.clips.example.org", "at": "2023-03-05T23:00:00Z"},
        {"client": "192.0.2.8", "host": "a.clips.example.org", "at": "2023-03-05T22:59:59Z"},
        {"client": "192.0.2.9", "host": "clips.example.org", "at": "2023-06-15T12:00Z"},
        {"client": "192.0.2.10", "host": "clips.example.org", "at": "2023-05-15T12:00Z"},
        {"client": "192.0.2.7", "host": "static.example.net", "at": "2023-05-15T12:00Z"},
        {"client": "192.0.2.7", "host": "www.example.org", "at": "2023-05-15T12:00Z"},
        "no flow",
        {"client": "192.0.2.7", "host": "www.example.org"},
    )
    traffic = replayed(tokgate, "--flows", file)
    assert (traffic["events"], traffic["unreadable"], traffic["changed"]) == (7, 2, 5)
    assert (traffic["newly_blocked"], traffic["newly_allowed"]) == (3, 2)
    effects = {(effect["before"], effect["after"]): effect for effect in traffic["effects"]}
    assert {key: effect["count"] for key, effect in effects.items()} == {
        ("allow", "block"): 2,
        ("exempt", "block"): 1,
        ("block", "exempt"): 1,
        ("block", "allow"): 1,
    }
    started = effects["allow", "block"]
    assert started["names"] == {"example.org": 2}
    assert started["clients"] == {"192.0.2.7": 1, "192.0.2.8": 1}
    assert started["networks"] == {"office": 2}
    assert [example["at"] for example in started["examples"]] == ["2023-03-07T11:00:00Z", "2023-03-05T23:00:00Z"]
    assert started["examples"][0]["after"]["ban"] == "spring-ban"


def test_at_puts_all_traffic_at_one_time(new: Path, tokgate: Command, tmp_path: Path) -> None:
    """Traffic of last week as if it came on the first day of the ban, also where it has no time of its own."""
    file = flows(tmp_path / "flows", {"client": "192.0.2.7", "host": "clips.example.org"},
                 {"client": "192.0.2.7", "host": "clips.example.org", "at": "2024-01-01T00:00Z"})  # fmt: skip
    assert replayed(tokgate, "--flows", file, "--at", "2023-03-07T12:00Z")["newly_blocked"] == 2


def test_text_of_traffic(new: Path, tokgate: Command, tmp_path: Path) -> None:
    """Of what is too much to be shown the most frequent, and how many others there are."""
    file = flows(tmp_path / "flows", *(
        {"client": f"192.0.2.{n % 7}", "host": f"h{n}.clips.example.org", "at": "2023-03-07T12:00Z"} for n in range(9)
    ))  # fmt: skip
    outcome = tokgate("diff", "policies", "new", "--flows", file, *YEAR)
    assert "Traffic: 9 events from 2023-03-07T12:00:00Z to 2023-03-07T12:00:00Z\n  newly blocked: 9\n" in outcome.out
    assert "  clients: 192.0.2.0 2, 192.0.2.1 2, 192.0.2.2 1, 192.0.2.3 1, 192.0.2.4 1, others 2\n" in outcome.out
    assert outcome.out.count("e.g.") == 5


def test_lines_that_are_no_flow(new: Path, tokgate: Command, tmp_path: Path) -> None:
    """Each is told with its place, and what is wrong with it; the others are replayed."""
    good = {"client": "192.0.2.7", "host": "clips.example.org", "at": "2023-03-07T12:00Z"}
    file = flows(tmp_path / "flows", good, good, "[]", good)
    outcome = tokgate("diff", "policies", "new", "--flows", file, *YEAR)
    assert "Traffic: 3 events" in outcome.out
    assert f"tokgate: {file}:3: not an object" in outcome.err


def test_log(new: Path, tokgate: Command, tmp_path: Path) -> None:
    """Recorded events are decided again; repeats count as many; another policy's are told."""
    client, moment, path = "192.0.2.10", "2023-04-01T12:00:00Z", tmp_path / "block.ndjson"
    records = [refusal(client, moment), repeats(41, moment, "2023-04-01T13:00:00Z", client)]
    write(path, [*records, b"torn"])
    outcome = tokgate("diff", "policies", "new", "--log", str(path), "--json", *YEAR)
    traffic = json.loads(outcome.out)["traffic"]
    assert (traffic["events"], traffic["newly_allowed"], traffic["unreadable"]) == (42, 42, 1)
    assert traffic["effects"][0]["after"] == "exempt"
    assert "42 events were recorded under another policy than OLD" in outcome.err
    write(path, records)
    path.rename(tmp_path / "block-20230402T000000.000000Z.ndjson")
    path.touch()
    assert replayed(tokgate, "--log", str(path))["events"] == 42
