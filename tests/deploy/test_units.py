"""The systemd units: systemd takes them, and they say what the docs say."""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from configparser import RawConfigParser
from pathlib import Path

import pytest
from whenever import Instant

from labs.requirements import require
from tokgate.blocklog import access_log
from tokgate.blocklog.paths import access_path_for

ROOT = Path(__file__).parents[2]
HA = ROOT / "deploy/ha"
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))


def verified(folder: Path, text: dict[str, str]) -> str:
    """What `systemd-analyze verify` finds, with a program in place of ours that is there."""
    require("systemd-analyze")
    for name, content in text.items():
        (folder / name).write_text(
            re.sub(r"/opt/tokgate/bin/tokgate|/usr/local/sbin/tokgate-policies", "/bin/true", content)
        )
    command = ("systemd-analyze", "verify", "--man=no", *(str(folder / name) for name in text))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stderr


def test_systemd_takes_them(tmp_path: Path) -> None:
    """Nothing in them is unknown or contradicts itself, and all are started in an order."""
    assert (
        verified(
            tmp_path, {path.name: path.read_text() for path in (*UNITS, *HA.glob("*.service"), *HA.glob("*.timer"))}
        )
        == ""
    )


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


def test_what_dies_is_started_again() -> None:
    """What docs/operation.md says of kills, hangs and a lack of memory; the supervisor is nobody's first to kill."""
    unit = _unit("tokgate.service")
    service = unit["Service"]
    assert (service["Restart"], service["OOMPolicy"], unit["Unit"]["StartLimitIntervalSec"]) == (
        "always",
        "continue",
        "0",
    )
    assert int(service["WatchdogSec"]) == 60
    assert int(service["OOMScoreAdjust"]) < 0
    assert "MemoryMax" in service


def test_before_the_network() -> None:
    """The last rules are there before anything can be forwarded, whenever tokgate is to be started."""
    unit = _unit("tokgate-boot.service")
    assert unit["Unit"]["DefaultDependencies"] == "no"  # else it would wait for what comes after the network
    assert {"network-pre.target", "tokgate.service"} <= set(unit["Unit"]["Before"].split())
    assert "network-pre.target" in unit["Unit"]["Wants"].split()
    assert unit["Install"]["WantedBy"] == "tokgate.service"


def test_addresses_do_not_follow_each_start_of_tokgate() -> None:
    """keepalived waits for tokgate, but is neither left stopped by a first start that failed nor restarted with it."""
    unit = _read(HA / "keepalived-tokgate.conf")["Unit"]
    assert dict(unit) == {"Wants": "tokgate.service", "After": "tokgate.service"}


def test_no_git_server_is_waited_for_for_ever() -> None:
    """A oneshot service has no limit of its own, and its timer would wait with it."""
    service = _read(HA / "tokgate-policies.service")["Service"]
    assert service["Type"] == "oneshot"
    assert service["TimeoutStartSec"].endswith("min")


def test_all_are_installed() -> None:
    """The package and the manual installation take every unit; the package's scripts name those that it has."""
    units = set((ROOT / "deploy/systemd").glob("*.*")) - {ROOT / "deploy/systemd/tokgate.sysusers"}
    for where in ("deploy/deb/build.sh", "deploy/README.md"):
        patterns = re.findall(r"deploy/systemd/\*\S+", (ROOT / where).read_text())
        assert {path for pattern in patterns for path in ROOT.glob(pattern)} == units, where
    for script in ("postinst", "prerm", "postrm"):
        assert " @UNITS@" in (ROOT / "deploy/deb" / script).read_text(), script


def test_who_looked_is_rotated_with_the_log() -> None:
    """The review page writes beside the log, where tokgate rotates and attests the file: into the folder, that is.

    A file that is named in ReadWritePaths= stays the same one in the unit's mount namespace when it is replaced.
    """
    service = _unit("tokgate-review.service")["Service"]
    words = service["ExecStart"].replace("\\\n", " ").split()
    log, access = (Path(words[words.index(option) + 1]) for option in ("--log", "--access-log"))
    assert access == access_path_for(log)
    assert service["ReadWritePaths"] == str(log.parent)
    assert f": >> {access.name} && chmod g+w {access.name}" in service["ExecStartPre"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users")
def test_the_group_writes_who_looked_alone() -> None:
    """In the log's folder, which it can't change, also after tokgate has rotated the file."""
    with tempfile.TemporaryDirectory(prefix="tokgate-looks-") as name:
        folder = Path(name)
        looks = access_path_for(folder / "block.ndjson")
        os.chown(folder, OWNER, GROUP)
        folder.chmod(0o750)
        script = _unit("tokgate-review.service")["Service"]["ExecStartPre"].partition("/bin/sh -c '")[2].rstrip("'")
        script = script.replace("/var/log/tokgate", name)
        for _ in range(2):  # also where the file is there
            assert _as(OWNER, [], lambda: subprocess.run(("/bin/sh", "-c", script), check=True))
        assert _as(READER, [GROUP], lambda: access_log.append(looks, b"one\n"))
        assert _as(OWNER, [], lambda: access_log.rotate(looks, Instant.from_timestamp(0)))
        assert _as(READER, [GROUP], lambda: access_log.append(looks, b"two\n"))
        assert not _as(READER, [], lambda: access_log.append(looks, b"three\n"))
        assert not _as(READER, [GROUP], (folder / "another").touch)
        assert looks.read_bytes() == b"two\n"
        assert len([*folder.glob("block.access-*.ndjson")]) == 1


OWNER, GROUP, READER = 54321, 54322, 54323


def _as(user: int, groups: list[int], work: Callable[[], object]) -> bool:
    """Whether the work succeeds as another user, in these groups as well."""
    child = os.fork()
    if not child:
        try:
            os.setgroups(groups)
            os.setresgid(*(GROUP if user == OWNER else user,) * 3)
            os.setresuid(user, user, user)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _unit(name: str) -> RawConfigParser:
    return _read(UNITS[0].parent / name)


def _read(path: Path) -> RawConfigParser:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    return unit
