"""docs/policy.md: nothing is missing from it, and its examples are true."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel
from whenever import Instant

from labs.builders import valid
from tokgate.config.diagnostics import Code, Level
from tokgate.config.format import bans, connection_settings, networks, policy_file, services, settings
from tokgate.config.format.test_model import TestModel
from tokgate.config.loader import Loaded, load
from tokgate.policy.decision import Reason
from tokgate.policy.snapshot import compile_policy
from tokgate.traffic.policy_tests import run_tests

DOCS = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
DATA = Path(__file__).parent / "data"
NOW = Instant.from_utc(2023, 5, 1)


def section(title: str) -> str:
    parts = re.split(r"^(#{2,3} .+)$", DOCS, flags=re.MULTILINE)
    return next(text for heading, text in pairwise(parts) if heading.lstrip("# ") == title)


def rows(text: str) -> dict[str, str]:
    """What the tables say of each key: a row has one or several, each with those around it (`log.key`)."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first, last = line.strip("| ").partition(" | ")[0], line.strip("| ").rpartition(" | ")[2]
            found.update(dict.fromkeys(re.findall("`([^`]+)`", first), last))
    return found


TABLES: dict[str, tuple[type[BaseModel], ...]] = {
    "Files": (policy_file.PolicyFile,),
    "Services": (services.ServiceModel, services.NamesModel, services.StoresModel, services.SourceModel),
    "Networks": (networks.NetworkModel, networks.DevicesModel),
    "Bans": (bans.BanModel, bans.WindowModel),
    "Exemptions": (bans.ExemptionModel,),
    "Settings": (
        settings.SettingsModel,
        settings.DnsModel,
        settings.OverridesModel,
        settings.LogModel,
        connection_settings.GatewayModel,
        connection_settings.EgressModel,
        connection_settings.LimitsModel,
        connection_settings.PacModel,
        connection_settings.ProxyAuthModel,
        connection_settings.LdapModel,
        connection_settings.UpstreamModel,
    ),
    "Tests": (TestModel,),
}


@pytest.mark.parametrize("title", TABLES)
def test_every_key_and_no_other(title: str) -> None:
    """Each key stands in the table of its section, with whether it is required, and nothing else does."""
    documented, keys = rows(section(title)), set[str]()
    meanings = {path.rpartition(".")[2]: meaning for path, meaning in documented.items()}
    for model in TABLES[title]:
        for name, field in model.model_fields.items():
            key = field.alias or name
            keys.add(key)
            assert any(key in path.split(".") for path in documented), f"{key} is missing under {title}"
            assert meanings.get(key, "").startswith("required") == field.is_required(), key
    assert {key for path in documented for key in path.split(".")} == keys


def test_every_reason() -> None:
    assert set(rows(section("Reasons"))) == set(Reason)


def test_every_code_with_its_level() -> None:
    """All codes, no others, each in the column of the level at which it is seen."""
    table = [line.split("|") for line in section("Diagnostics").splitlines() if line.startswith("| ")][1:]
    documented = {
        code: level
        for row in table
        for level, cell in zip((Level.ERROR, Level.WARNING), row[2:4], strict=True)
        for code in re.findall(r"`([a-z-]+)`", cell)
    }
    assert set(documented) == set(Code)
    for case in sorted(DATA.rglob("*.yaml")):
        for each in load(case, NOW).diagnostics:
            assert documented[each.code] == each.level


def test_exit_codes() -> None:
    assert re.findall(r"^\| (\d) \|", section("Exit codes"), re.MULTILINE) == ["0", "1", "2", "3"]


def passing(path: Path) -> Loaded:
    """A whole policy without errors, whose tests pass."""
    loaded = load(path, NOW)
    results = run_tests(compile_policy(valid(loaded)), loaded.tests)
    assert [result for result in results if not result.passed] == []
    return loaded


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL))
def test_examples_load_and_pass(text: str, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    passing(tmp_path / "policy.yaml")


def test_name_files_example(tmp_path: Path) -> None:
    """The service whose names stand in files means what the page says."""
    (policy,) = re.findall(r"```yaml names\n(.*?)```", DOCS, re.DOTALL)
    (tmp_path / "policy.yaml").write_text(policy)
    (tmp_path / "clips.txt").write_text("clips.example.org  # the site\n")
    (tmp_path / "hosts.txt").write_text("# one\nhost.example.net\n")
    names = {pattern.value for pattern in valid(passing(tmp_path)).services["clips"].patterns}
    assert names == {"clips.example.org", "static.example.net", "host.example.net"}


def test_inventory_example(tmp_path: Path) -> None:
    """The inventory and the policy around it mean what the page says."""
    ((rows, policy),) = re.findall(r"```csv\n(.*?)```\n\n```yaml inventory\n(.*?)```", DOCS, re.DOTALL)
    (tmp_path / "devices.csv").write_text(rows)
    (tmp_path / "policy.yaml").write_text(policy)
    assert passing(tmp_path).diagnostics == ()
