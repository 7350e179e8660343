"""The systemd units: systemd takes them, and they say what the docs say."""

import os
import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))


def verified(folder: Path, text: dict[str, str]) -> str:
    """What `systemd-analyze verify` finds, with a program in tokgate's place that is there."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("TOKGATE_REQUIRE_E2E") == "1":
            pytest.fail("systemd-analyze is missing here", pytrace=False)
        pytest.skip("systemd-analyze is missing here")
    for name, content in text.items():
        (folder / name).write_text(content.replace("/opt/tokgate/bin/tokgate", "/bin/true"))
    command = ("systemd-analyze", "verify", "--man=no", *(str(folder / name) for name in text))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stderr


def test_systemd_takes_them(tmp_path: Path) -> None:
    """Nothing in them is unknown or contradicts itself, and all are started in an order."""
    assert verified(tmp_path, {path.name: path.read_text() for path in UNITS}) == ""


@pytest.mark.parametrize("wrong", ["Restarts=always", "ExecStart=/nowhere/tokgate"])
def test_what_is_wrong_is_found(tmp_path: Path, wrong: str) -> None:
    """A misspelt key or a program that isn't there would show."""
    text = (UNITS[0].parent / "tokgate.service").read_text().replace("[Service]", f"[Service]\n{wrong}")
    assert verified(tmp_path, {"tokgate.service": text}) != ""


def test_restarts_take_over() -> None:
    """What `systemctl restart` takes: processes stay, and there is a store for what they share."""
    service = _unit("tokgate.service")["Service"]
    assert (service["KillMode"], service["Type"], service["NotifyAccess"]) == ("process", "notify", "main")
    assert int(service["FileDescriptorStoreMax"]) > 0


def test_before_the_network() -> None:
    """The last rules are there before anything can be forwarded, whenever tokgate is to be started."""
    unit = _unit("tokgate-boot.service")
    assert unit["Unit"]["DefaultDependencies"] == "no"  # else it would wait for what comes after the network
    assert {"network-pre.target", "tokgate.service"} <= set(unit["Unit"]["Before"].split())
    assert "network-pre.target" in unit["Unit"]["Wants"].split()
    assert unit["Install"]["WantedBy"] == "tokgate.service"


def test_all_are_installed() -> None:
    """The package and the manual installation take every unit; the package's end disables those with a target."""
    units = set((ROOT / "deploy/systemd").glob("*.*")) - {ROOT / "deploy/systemd/tokgate.sysusers"}
    for where in ("deploy/deb/build.sh", "deploy/README.md"):
        patterns = re.findall(r"deploy/systemd/\*\S+", (ROOT / where).read_text())
        assert {path for pattern in patterns for path in ROOT.glob(pattern)} == units, where
    disabled = re.findall(r"tokgate\S*\.(?:service|timer)", (ROOT / "deploy/deb/prerm").read_text())
    assert set(disabled) == {path.name for path in units if _unit(path.name).has_section("Install")}


def _unit(name: str) -> RawConfigParser:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS[0].parent / name)
    return unit
