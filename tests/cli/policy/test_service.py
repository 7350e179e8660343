"""`tokgate service list`, `show` and `test`: what a ban can name, and whether a name belongs to it."""

import hashlib
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from labs.command_line import Command
from tokgate.config.format.services import ListFormat


@pytest.mark.usefixtures("policies")
def test_list(tokgate: Command) -> None:
    """The policy's services are there with the bans that name them, the catalogue's as well."""
    rows = {row["name"]: row for row in json.loads(tokgate("service", "list", "--json").out)["services"]}
    assert rows["clips"]["bans"] == ["spring-ban", "lab-watch"]
    assert rows["clips"]["origin"] == "policies/policy.yaml:3:3"
    assert rows["clips"]["catalogue"] is False
    shown = json.loads(tokgate("service", "show", "deepseek", "--json").out)
    assert rows["deepseek"] == shown
    assert (shown["title"], shown["bans"], shown["catalogue"]) == ("DeepSeek", [], True)
    assert shown["origin"] == "catalogue/deepseek.yaml"
    assert list(rows) == sorted(rows)
    assert "deepseek" in tokgate("service", "list").out


def test_without_a_policy_there_is_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokgate: Command
) -> None:
    """Whoever looks for a service before the first policy finds it; a mistyped folder is an error."""
    monkeypatch.chdir(tmp_path)
    assert tokgate("service", "show", "temu").code == 0
    assert tokgate("service", "show", "temu", "--policies", "nowhere").code == 1


@pytest.mark.usefixtures("policies")
def test_show(tokgate: Command) -> None:
    assert tokgate("service", "show", "clips").out.splitlines() == [
        "clips: Clips",
        "  defined in policies/policy.yaml:3:3",
        "  banned by spring-ban, lab-watch",
        "  exact static.example.net",
        "  suffix clips.example.org",
        "  address 203.0.113.0/28",
        "  store google-play org.example.clips",
    ]
    document = json.loads(tokgate("service", "show", "telegram", "--json").out)
    assert "telegram.org" in document["content"]["names"]["suffix"]
    assert "149.154.160.0/20" in document["content"]["addresses"]
    assert document["source"] is None


@pytest.mark.usefixtures("policies")
def test_show_says_where_names_were_imported_from(tokgate: Command) -> None:
    """An auditor sees list, revision, licence and day."""
    Path("list").write_text("films.example\n")
    os.utime("list", (1787097600, 1787097600))
    tokgate("service", "import", "list", "--name", "films", "--attribute=-ads", "--subdomains")
    file = Path("policies/services/films.yaml")
    file.write_text(file.read_text().replace("list: list", "list: https://www.example.org/l\n      licence: MIT"))
    assert [line for line in tokgate("service", "show", "films").out.splitlines() if "imported" in line] == [
        "  imported: list https://www.example.org/l",
        "  imported: format domain-list-community",
        f"  imported: revision sha256:{hashlib.sha256(b'films.example\n').hexdigest()[:16]}",
        "  imported: licence MIT",
        "  imported: date 2026-08-19",
        "  imported: attributes -ads",
        "  imported: subdomains yes",
    ]


@pytest.mark.usefixtures("policies")
def test_an_unknown_service(tokgate: Command) -> None:
    outcome = tokgate("service", "show", "deepsek")
    assert outcome.code == 2
    assert outcome.err == "tokgate: there is no service deepsek; did you mean `deepseek`?\n"


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize(
    ("host", "code", "said"),
    [
        ("WWW.clips.example.org.", 0, "belongs to clips: suffix:clips.example.org"),
        ("203.0.113.7", 0, "belongs to clips: address:203.0.113.0/28"),
        ("clips.example.com", 1, "does not belong to clips"),
        ("chat.deepseek.com", 1, "does not belong to clips; it belongs to deepseek (suffix:deepseek.com)"),
        ("a..b", 1, "is no host name: "),
        ("https://play.google.com/store/apps/details?id=org.example.clips", 0, "belongs to clips: store:google-play/"),
        ("https://play.google.com/", 1, "does not belong to clips"),
    ],
)
def test_a_name(tokgate: Command, host: str, code: int, said: str) -> None:
    """Whether a name belongs to a service is answered with the rule, or with whose it is."""
    outcome = tokgate("service", "test", "clips", host)
    assert (outcome.code, outcome.out.startswith(f"{host} {said}")) == (code, True)


@pytest.mark.usefixtures("policies")
def test_several_names_as_json(tokgate: Command) -> None:
    """A program asks about many at once; one that doesn't belong makes the exit code 1."""
    outcome = tokgate("service", "test", "qq", "www.qq.com", "wx.qq.com", "example.org", "--json")
    assert outcome.code == 1
    assert [tuple(each.values()) for each in json.loads(outcome.out)["results"]] == [
        ("www.qq.com", True, "suffix:qq.com", {}, None),
        ("wx.qq.com", True, "suffix:qq.com", {"wechat": "suffix:wx.qq.com"}, None),
        ("example.org", False, None, {}, None),
    ]


DOCS = (Path(__file__).parents[3] / "docs" / "services.md").read_text(encoding="utf-8")
SECTION = DOCS.partition("## A service from a public list")[2].partition("\n## ")[0]


@pytest.fixture
def clone(policies: Path) -> None:
    """A repository with a policy, and a clone of lists beside it."""
    Path("domain-list-community/data").mkdir(parents=True)
    Path("domain-list-community/data/telegram").write_text("films.example\n")
    for command in (("init", "-q"), ("add", "policies")):
        subprocess.run(("git", *command), check=True)
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(("git", *who, "commit", "-qm", "Policy"), check=True)


@pytest.mark.usefixtures("clone")
def test_the_commands_work(tokgate: Command) -> None:
    commands = [line for block in re.findall(r"```\n(.*?)```", SECTION, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "tokgate"
        outcome = tokgate(*arguments)
        assert outcome.code == 0, outcome.err
        assert "diff" not in arguments or "services.telegram-dlc" in outcome.out


def test_every_format_is_described() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", SECTION, re.MULTILINE)) - {"--format"} == set(ListFormat)


def test_every_option_is_named(tokgate: Command) -> None:
    """An option that only the help knows is not found by whoever reads the page."""
    help_text = tokgate("service", "import", "--help").out + tokgate("service", "update", "--help").out
    options = set(re.findall(r"(?<!\S)--[a-z]+(?:-[a-z]+)*", help_text))
    described = {"--source", "--revision", "--licence", "--date", "--title", "--output", "--force"}
    usual = {"--help", "--debug", "--json", "--policies", "--exit-code"}
    assert {each for each in options - usual - described if each not in SECTION} == set()
