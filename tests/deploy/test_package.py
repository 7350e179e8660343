"""The package that `make deb` builds, in a Debian of its own: installed, upgraded while it runs, removed and purged."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any, Final

import pytest

from labs.requirements import lacking
from labs.waiting import until

PACKAGE = os.environ.get("TOKGATE_DEB", "")
BOOTS: Final = shutil.which("systemd-nspawn") is not None
SYSTEMCTL: Final = '#!/bin/sh\necho "$@" >> /calls\n'
"""Takes the place of systemd where it does not run: notes what it is asked, and says yes."""


LACKS: Final = lacking("root", "mmdebstrap", "dpkg-deb", "chroot") or ("" if PACKAGE else "needs a package: make deb")
pytestmark = [pytest.mark.skipif(bool(LACKS), reason=LACKS), pytest.mark.timeout(900)]


class Debian:
    """A root folder with Debian's base and what the package depends on."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def line(self, *command: str) -> list[str]:
        """A command in it, without this process's environment."""
        clean = ("env", "-i", "PATH=/usr/sbin:/usr/bin", "LANG=C.UTF-8", "HOME=/root")
        return ["chroot", str(self.root), *clean, *command]

    def run(self, *command: str, code: int = 0) -> str:
        """What a command prints in it; its exit code must be `code`."""
        done = subprocess.run(
            self.line(*command), check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def install(self, package: Path) -> str:
        shutil.copy(package, self.root / "package.deb")
        return self.run("dpkg", "--install", "/package.deb")

    def units(self) -> list[Path]:
        return sorted((self.root / "usr/lib/systemd/system").glob("tokgate*"))

    def enable(self) -> None:
        """What `systemctl enable` makes of all units with a target, which takes no systemd that runs."""
        for unit in self.units():
            read = RawConfigParser(strict=False)
            read.read(unit)
            if read.has_section("Install"):
                wants = self.root / f"etc/systemd/system/{read['Install']['WantedBy']}.wants"
                wants.mkdir(parents=True, exist_ok=True)
                (wants / unit.name).symlink_to(f"/usr/lib/systemd/system/{unit.name}")

    def enabled(self) -> list[str]:
        return sorted(path.name for path in (self.root / "etc/systemd/system").glob("*/tokgate*"))

    def calls(self) -> list[str]:
        """What systemd was asked since the last look."""
        path = self.root / "calls"
        said = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return said

    def state(self) -> dict[str, Any]:
        """What `status` says, also while it says that something is wrong, as when it starts."""
        done = subprocess.run(self.line("tokgate", "status", "--json"), check=False, capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr
        state: dict[str, Any] = json.loads(done.stdout)
        return state


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """Debian with what the package says that it needs, and no more; the package is not installed."""
    depends = subprocess.run(["dpkg-deb", "--field", PACKAGE, "Depends"], check=True, capture_output=True, text=True)
    wanted = [each.partition("|")[0].split()[0] for each in depends.stdout.split(",")]
    if BOOTS:  # systemd is itself what the standalone program stands for
        wanted = [name for name in wanted if "standalone" not in name] + ["systemd-sysv", "dbus"]
    root = tmp_path_factory.mktemp("debian") / "root"
    make = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(wanted)}", "trixie", str(root)]
    subprocess.run(make, check=True, timeout=600)
    if BOOTS:
        (root / "usr/bin/systemctl").rename(root / "usr/bin/systemctl.own")
    (root / "usr/bin/systemctl").write_text(SYSTEMCTL)
    (root / "usr/bin/systemctl").chmod(0o755)
    (root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "proc", "proc", str(root / "proc")], check=True)
    try:
        yield Debian(root)
    finally:
        subprocess.run(["umount", "--quiet", "--lazy", str(root / "proc")], check=False)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package with a higher version."""
    folder = tmp_path_factory.mktemp("newer")
    subprocess.run(["dpkg-deb", "--raw-extract", PACKAGE, str(folder / "root")], check=True)
    control = folder / "root/DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 1000."))
    subprocess.run(["dpkg-deb", "-Znone", "--build", str(folder / "root"), str(folder / "newer.deb")], check=True)
    shutil.rmtree(folder / "root")
    return folder / "newer.deb"


def test_its_whole_life(debian: Debian, newer: Path) -> None:
    """One story, since each step is about what the one before left."""
    _installed(debian)
    _upgraded_while_it_runs(debian, newer)
    _removed(debian)
    _purged(debian)
    _purged_where_no_systemd_runs(debian)


def _installed(debian: Debian) -> None:
    """The command, units and user are there; nothing runs, and nothing is enabled."""
    debian.install(Path(PACKAGE))
    assert debian.run("tokgate", "--version").startswith("tokgate ")
    assert "/var/lib/tokgate" in debian.run("getent", "passwd", "tokgate")
    assert debian.calls() == ["daemon-reload"]
    assert not list((debian.root / "etc/systemd/system").rglob("tokgate*"))
    assert "tokgate-verify.timer" in {path.name for path in debian.units()}
    unit = (debian.root / "usr/lib/systemd/system/tokgate.service").read_text()
    program = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).partition("=")[2].split()[0]
    assert debian.run(program, "--version").startswith("tokgate ")
    assert list((debian.root / "etc/tokgate/policies").iterdir()) == []
    debian.run("tokgate", "init", "--yes", "--network", "127.0.0.0/8", "--timezone", "UTC")
    debian.run("tokgate", "check")
    # All that is optional is there: none of it asks for another installation.
    debian.run("/opt/tokgate/bin/python", "-c", "import duckdb, pyroute2, uvicorn, holidays, re2")


def _upgraded_while_it_runs(debian: Debian, newer: Path) -> None:
    """The one that runs goes on as the new version, in the same process; what the admin changed stays."""
    options = debian.root / "etc/tokgate/tokgate.conf"
    options.write_text(options.read_text() + "TOKGATE_OPTIONS=--debug\n")
    debian.run("install", "-d", "-o", "tokgate", "-g", "tokgate", "-m", "0700", "/var/lib/tokgate")
    command = debian.line("tokgate", "run", "--mode", "gate:explicit@127.0.0.1:0", "--workers", "1")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        try:
            socket = debian.root / "var/lib/tokgate/.tokgate/control.sock"
            until("it can be asked", socket.exists)
            until("its gate reports", lambda: debian.state()["workers"][-1]["report"], every=0.5)
            before = {worker["pid"] for worker in debian.state()["workers"]}
            debian.calls()
            said = debian.install(newer)
            assert " serves\n" in said, said
            assert debian.calls() == [
                "daemon-reload",
                "--quiet is-active tokgate.service",
                "try-restart tokgate-review.service",
            ]
            state = debian.state()
            assert (
                not {w["pid"] for w in state["workers"] if w["name"].startswith("gate-") and not w["retired"]} & before
            )
            assert running.poll() is None
        finally:
            running.terminate()
            running.wait(60)
    assert debian.run("dpkg-query", "--show", "--showformat=${Version}", "tokgate").startswith("1000.")
    assert options.read_text().endswith("TOKGATE_OPTIONS=--debug\n")
    assert list((debian.root / "etc/tokgate/policies").iterdir())
    debian.run("tokgate", "log", "verify")


def _removed(debian: Debian) -> None:
    """It is stopped before; the configuration stays, and what is enabled."""
    debian.enable()
    enabled, units = debian.enabled(), {path.name for path in debian.units()}
    assert {"tokgate.service", "tokgate-verify.timer"} < {*enabled} < units
    debian.run("dpkg", "--remove", "tokgate")
    stopped, reloaded = debian.calls()
    assert stopped.startswith("stop ")
    assert set(stopped.split()[1:]) == units
    assert reloaded == "daemon-reload"
    assert debian.units() == []
    assert debian.enabled() == enabled
    assert not (debian.root / "opt/tokgate").exists()
    assert not (debian.root / "usr/bin/tokgate").is_symlink()
    assert (debian.root / "etc/tokgate/tokgate.conf").exists()
    assert list((debian.root / "etc/tokgate/policies").iterdir())


def _purged(debian: Debian) -> None:
    """No configuration, no key and nothing enabled is left; the evidence is, and belongs to the same user."""
    verification = debian.root / "var/lib/private/tokgate-verify"
    verification.mkdir(parents=True)
    (debian.root / "var/lib/tokgate-verify").symlink_to("private/tokgate-verify")  # as systemd does with DynamicUser=
    (debian.root / "var/log/tokgate-review").mkdir()
    stamp = debian.root / "var/lib/systemd/timers/stamp-tokgate-verify.timer"  # as systemd does with Persistent=
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()
    said = debian.run("dpkg", "--purge", "tokgate")
    assert "the block log stays in /var/log/tokgate\n" in said
    assert "stays in /var/log/tokgate-review\n" in said
    for gone in ("etc/tokgate", "var/lib/tokgate", "var/lib/private/tokgate-verify", "var/log/tokgate/block.key"):
        assert not (debian.root / gone).exists(), gone
    assert not (debian.root / "var/lib/tokgate-verify").is_symlink()
    _nothing_of_systemd(debian)
    assert debian.calls() == ["daemon-reload"]
    assert (debian.root / "var/log/tokgate/block.ndjson").stat().st_size > 0
    debian.run("getent", "passwd", "tokgate")


def _purged_where_no_systemd_runs(debian: Debian) -> None:
    """As in a chroot: what was enabled there is gone as well, and nobody is asked."""
    running = debian.root / "run/systemd/system"
    running.rmdir()
    debian.install(Path(PACKAGE))
    assert debian.enabled() == []
    debian.enable()
    debian.run("dpkg", "--purge", "tokgate")
    _nothing_of_systemd(debian)
    assert debian.calls() == []
    running.mkdir()


def _nothing_of_systemd(debian: Debian) -> None:
    """No link, no record of one, and no stamp of the timer: neither systemd nor its helpers knows the package."""
    for folder in ("etc/systemd", "var/lib/systemd", "usr/lib/systemd"):
        assert not list((debian.root / folder).rglob("*tokgate*")), folder


STORY: Final = """\
dpkg --install /package.deb
systemctl is-enabled tokgate tokgate-boot tokgate-review tokgate-phones tokgate-verify.timer
tokgate init --yes --network 127.0.0.0/8 --timezone UTC /etc/tokgate/policies
systemctl enable --now tokgate tokgate-verify.timer
systemctl is-active tokgate-verify.timer && echo waits
systemctl enable tokgate-boot
tokgate status --probe && echo healthy
systemctl show --property MainPID tokgate
dpkg --install /newer.deb
systemctl show --property MainPID tokgate
systemctl is-active tokgate
tokgate log verify /var/log/tokgate/block.ndjson && echo verified
dpkg --purge tokgate
systemctl is-active tokgate
systemctl is-active tokgate-verify.timer || echo waits no longer
ls /var/log/tokgate
systemctl poweroff
"""
"""What is typed on a machine that has started."""
BOOT: Final = "[Service]\nType=oneshot\nExecStart=/bin/sh -x /story\nStandardOutput=file:/told\nStandardError=inherit\n"


@pytest.mark.skipif(not BOOTS, reason="needs systemd-nspawn (systemd-container)")
def test_under_systemd(debian: Debian, newer: Path) -> None:
    """Where systemd runs it is started, upgraded in the same process, and taken out; the gateway's kernel part too."""
    root = debian.root
    subprocess.run(["umount", "--lazy", str(root / "proc")], check=True)  # it mounts one of its own
    (root / "usr/bin/systemctl.own").rename(root / "usr/bin/systemctl")
    shutil.rmtree(root / "var/log/tokgate", ignore_errors=True)  # what a purge left, signed by a key that went with it
    shutil.copy(PACKAGE, root / "package.deb")
    shutil.copy(newer, root / "newer.deb")
    (root / "story").write_text(STORY)
    (root / "etc/systemd/system/story.service").write_text(f"[Unit]\nAfter=multi-user.target\n{BOOT}")
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "story.service").symlink_to("../story.service")
    # Also where the machine has its control groups in the manner of before.
    older = not Path("/sys/fs/cgroup/cgroup.controllers").exists()
    environment = {"SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE": "1", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "0"} if older else {}
    subprocess.run(
        ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--boot", "-D", str(root)],
        env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=600, check=True,
    )  # fmt: skip
    told = (root / "told").read_text()
    assert told.splitlines().count("disabled") == 5, told
    assert "\nhealthy\n" in told, told
    before, after = (line for line in told.splitlines() if line.startswith("MainPID="))
    assert before == after != "MainPID=0", told
    assert " serves\n" in told, told
    assert "\nactive\n" in told, told
    assert "\nverified\n" in told, told
    assert "\ninactive\n" in told, told
    assert "\nwaits\n" in told, told
    assert "\nwaits no longer\n" in told, told
    assert "\nblock.ndjson\n" in told, told
    _nothing_of_systemd(debian)
