"""The catalogue inside the package: a policy needs no service files of its own."""

from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import present, valid
from labs.command_line import Command
from tokgate.config import catalogue
from tokgate.config.loader import Loaded, load
from tokgate.policy.decide import decide
from tokgate.policy.decision import Verdict
from tokgate.policy.snapshot import compile_policy

NOW = Instant.from_utc(2026, 1, 1)
POLICY = """\
version: 1
networks: {office: {cidrs: [192.0.2.0/24, "2001:db8:1::/48"], timezone: Europe/Brussels}}
bans:
  ban: {title: TikTok, services: [SERVICES], networks: [office], starts: 2025-01-01T00:00}
"""
OWN = "services: {tiktok: {title: Ours, names: {suffix: [clips.example.org]}}}\n"


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose bans name two services that no file defines."""
    monkeypatch.chdir(tmp_path)
    Path("policies").mkdir()
    Path("policies/policy.yaml").write_text(POLICY.replace("SERVICES", "tiktok, tiktok-ads"))
    return Path("policies")


def verdict(loaded: Loaded, host: str) -> Verdict:
    """What happens to a client in the office."""
    return decide(compile_policy(valid(loaded)), "192.0.2.7", host, NOW).verdict


def test_named_and_undefined_comes_from_the_catalogue(policies: Path) -> None:
    """Only what bans name is taken, it is in force, and the policy says from which version it is."""
    loaded = load(policies, NOW)
    assert verdict(loaded, "www.tiktok.com") is Verdict.BLOCK
    assert verdict(loaded, "www.example.org") is Verdict.ALLOW
    policy = valid(loaded)
    taken = present(policy.catalogue)
    assert taken.services == ("tiktok", "tiktok-ads") == tuple(policy.services)
    assert taken.version == catalogue.catalogue_version()
    assert present(policy.services["tiktok"].origin).file == "catalogue/tiktok.yaml"


def test_ones_own_goes_first(policies: Path, tokgate: Command) -> None:
    """A definition in a file is the one in force, and check says so and where it stands."""
    (policies / "own.yaml").write_text(OWN)
    loaded = load(policies, NOW)
    assert verdict(loaded, "clips.example.org") is Verdict.BLOCK
    assert verdict(loaded, "www.tiktok.com") is Verdict.ALLOW
    version = catalogue.catalogue_version()
    assert tokgate("check").out == (
        f"from the catalogue, version {version}: tiktok-ads\n"
        "your own definition, in place of the catalogue's: tiktok (policies/own.yaml:1:12)\n"
        "no `reason` is given by: ban\n"
        "2 files, 0 errors, 0 warnings, 0 tests passed, 0 failed\n"
    )
    assert f'"version": "{version}"' in tokgate("check", "--json").out


def test_a_copy_of_the_catalogue_is_no_definition_of_ones_own(policies: Path) -> None:
    """Who keeps the shipped files beside the policy is not told of each that nothing differs."""
    (policies / "tiktok.yaml").write_bytes(catalogue.catalogue_files()["tiktok"].read_bytes())
    policy = valid(load(policies, NOW))
    assert present(policy.catalogue).services == ("tiktok-ads",)
    assert catalogue.own_definitions(policy) == ()


def test_the_policy_of_a_service_taken_and_of_the_same_defined_is_the_same_version(policies: Path) -> None:
    """The version is of what is enforced, wherever it stands, so that an upgrade with another service shows in it."""
    before = valid(load(policies, NOW))
    (policies / "tiktok.yaml").write_bytes(catalogue.catalogue_files()["tiktok"].read_bytes())
    assert before.version == valid(load(policies, NOW)).version


def test_the_version_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of content or of names is another version; an installation without files has no services."""
    monkeypatch.setattr(catalogue, "_SHIPPED", tmp_path)
    versions = [catalogue.catalogue_version()]
    assert catalogue.catalogue_files() == {}
    for name, text in (("a.yaml", "version: 1\n"), ("a.yaml", "version: 1\n#\n"), ("b.yaml", "version: 1\n")):
        (tmp_path / name).write_text(text)
        versions.append(catalogue.catalogue_version())
    assert len(set(versions)) == len(versions)


def test_a_broken_file_of_the_catalogue_is_an_error(
    policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody spoilt in the installed package is told with its place, not decided with."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "tiktok.yaml").write_text("services: [\n")
    (folder / "tiktok-ads.yaml").mkdir()
    monkeypatch.setattr(catalogue, "_SHIPPED", folder)
    loaded = load(policies, NOW)
    assert loaded.policy is None
    assert any(str(each.origin).startswith("catalogue/tiktok.yaml:") for each in loaded.errors)
