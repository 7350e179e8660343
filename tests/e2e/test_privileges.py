"""Started as root with `--user`: whoever takes a process over that reads what clients send is nobody, not root."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from labs.clients import UNRECOGNIZED_NAME, python
from labs.gateway import KERNEL_TOO, ROOT, Gateway, office_policy, refused_over_http3, refuses
from labs.netns import Lab
from labs.origin import ALLOWED, BANNED, Origin
from labs.running_lab import POLICY, children
from labs.waiting import until

NOBODY = "nobody"
NET_ADMIN, NET_RAW = 1 << 12, 1 << 13
FORWARDING = ("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")


@pytest.fixture
def folder(nobodys_folder: Path) -> Path:
    """A folder of nobody's own."""
    return nobodys_folder


def status_of(pid: int) -> dict[str, str]:
    """`/proc/PID/status`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def assert_nobody(pid: int, capabilities: int) -> None:
    """A process has left root with all its ids and groups, for good, with these capabilities."""
    said, entry = status_of(pid), pwd.getpwnam(NOBODY)
    assert said["Uid"].split() == [str(entry.pw_uid)] * 4
    assert said["Gid"].split() == [str(entry.pw_gid)] * 4
    assert said["Groups"].split() == [str(entry.pw_gid)]
    assert said["NoNewPrivs"] == "1"
    assert int(said["CapBnd"], 16) & ~(NET_ADMIN | NET_RAW) == 0  # no more than listening takes
    assert [int(said[key], 16) for key in ("CapPrm", "CapEff")] == [capabilities] * 2


@pytest.mark.parametrize(
    ("mode", "extra", "kept"),
    [("gate", ("--mark", "0x51"), NET_ADMIN), ("gate:tproxy", (), NET_RAW)],
    ids=["mark", "tproxy"],
)
def test_filters_as_nobody(
    lab: Lab,
    origin: Origin,
    any_gateway: Callable[..., Gateway],
    folder: Path,
    mode: str,
    extra: tuple[str, ...],
    kept: int,
) -> None:
    """All that root's tokgate does it still does: redirection, the log, reloading, being asked, ending in order."""
    options = ("--user", NOBODY, "--confdir", folder / "keys", *extra)
    with any_gateway(folder, policy=office_policy(), mode=mode, options=options) as gateway:
        assert gateway.process is not None
        pid = gateway.process.pid
        assert python(lab.client, BANNED, 4, False, origin.authority).error == UNRECOGNIZED_NAME
        assert python(lab.client, ALLOWED, 4, False, origin.authority).certificate == origin.fingerprints[ALLOWED]
        gateway.wait_for_record("the refusal is recorded", refuses(BANNED, Lab.CLIENT[4]))

        gates = [f"gate-{slot}" for slot in range(len(os.sched_getaffinity(0)))]
        until("all run", lambda: len(children(pid)) == len(gates) + 2)
        assert_nobody(pid, kept)
        held = [int(status_of(child)["CapPrm"], 16) for child in children(pid)]
        assert sorted(held) == sorted([0] + [kept] * (len(gates) + 1))  # the collector needs none
        for child, capabilities in zip(children(pid), held, strict=True):
            assert_nobody(child, capabilities)
        for path in (gateway.log, folder / "keys" / "control.sock", folder / "keys" / "mitmproxy-ca.pem"):
            assert path.owner() == NOBODY, path

        gateway.enforces(office_policy(starts="2098-01-01T00:00"))
        assert python(lab.client, BANNED, 4, False, origin.authority).certificate == origin.fingerprints[BANNED]


def test_keeps_the_kernel_as_nobody(
    lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], folder: Path
) -> None:
    """With --gateway the supervisor alone may change the firewall, as nobody too; what reads clients' bytes may not.

    Gates and the opener may connect from clients' addresses. The supervisor, which starts them, has to have that, too.
    """
    options = ("--user", NOBODY, "--confdir", folder / "keys")
    with lab.without_forwarding():
        with any_gateway(folder, policy=office_policy(), mode=KERNEL_TOO, options=options) as gateway:
            assert lab.gateway.output(*FORWARDING).split() == ["1", "1"]
            assert "net.ipv4.ip_forward was 0" in gateway.narrated()
            assert python(lab.client, BANNED, 4, False, origin.authority).error == UNRECOGNIZED_NAME
            assert python(lab.client, ALLOWED, 4, False, origin.authority).certificate == origin.fingerprints[ALLOWED]
            assert gateway.process is not None
            pid = gateway.process.pid
            gates = len(os.sched_getaffinity(0))
            until("all run", lambda: len(children(pid)) == gates + 3)  # and the canary
            assert_nobody(pid, NET_ADMIN | NET_RAW)
            until("the canary asks", lambda: gateway.status()["gateway"]["canary"]["at"])
            held = [int(status_of(child)["CapPrm"], 16) for child in children(pid)]
            assert sorted(held) == [0, 0] + [NET_RAW] * (gates + 1)  # the collector and the canary need none
            for child, capabilities in zip(children(pid), held, strict=True):
                assert_nobody(child, capabilities)
            lab.gateway.run("nft", "flush", "ruleset")
            until("it is restored", lambda: "was restored" in gateway.narrated())
            assert python(lab.client, BANNED, 4, False, origin.authority).error == UNRECOGNIZED_NAME
        assert "net.ipv4.ip_forward is 0 again" in gateway.narrated()
        assert lab.gateway.output(*FORWARDING).split() == ["0", "0"]


def start(folder: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """A tokgate of root's that doesn't come up."""
    command = [sys.executable, "-m", "tokgate", "run", "--mode", "gate:explicit@127.0.0.1:0", "--user", NOBODY]
    return subprocess.run([*command, *map(str, options)], cwd=folder, capture_output=True, text=True, timeout=60)


def test_what_nobody_cannot_use_is_told_at_the_start(folder: Path) -> None:
    """Every obstacle at once, with what removes it, before anything listens; not a filter that fails at a reload."""
    policies, roots = folder / "policies", folder / "roots"
    (policies / "more").mkdir(parents=True)
    (policies / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    (policies / "more" / "hidden.yaml").write_text("version: 1\n")
    (policies / "more" / "hidden.yaml").chmod(0o600)
    roots.mkdir()
    done = start(folder, "--policies", "policies", "--log", "roots/block.ndjson", "--confdir", roots)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "tokgate: nobody can't use what tokgate needs:",
        f"  {policies}/more/hidden.yaml can't be read: `chmod a+rX` it and the folders above, or put it elsewhere",
        f"  {roots} can't be written to: `chown nobody: {roots}`, or name another folder",
    ]
    policies.chmod(0o700)
    done = start(folder, "--policies", "policies", "--log", "block.ndjson", "--confdir", "keys")
    assert f"{policies} can't be read" in done.stderr


def test_what_root_left_behind_is_told(folder: Path) -> None:
    """A log and a key from a time when tokgate ran as root: it says so, rather than filter without a log."""
    for name in ("block.ndjson", "block.key"):
        (folder / name).touch(0o600)
    (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    done = start(folder, "--policies", "policy.yaml", "--log", "block.ndjson", "--confdir", "keys")
    assert done.returncode == 3
    assert f"{folder}/block.key can't be read: `chown nobody: {folder}/block.key`" in done.stderr
    assert f"{folder}/block.ndjson can't be written to: `chown nobody: {folder}/block.ndjson`" in done.stderr


def test_as_in_kubernetes(
    lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], folder: Path, unchanged: None
) -> None:
    """What deploy/kubernetes gives is all that it needs: these capabilities, no namespaces, read-only settings."""
    manifest = yaml.safe_load((ROOT / "deploy/kubernetes/gateway.yaml").read_text())
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    given = [f"+{name.lower()}" for name in container["securityContext"]["capabilities"]["add"]]
    shutil.chown(folder, "root")  # as the node's folders are
    policy = office_policy() | {"settings": {"unknown_clients": "block", "gateway": {"canary": {"seconds": 1}}}}
    gateway = any_gateway(
        folder, policy=policy, mode=KERNEL_TOO, options=("--user", NOBODY, "--confdir", folder / "keys")
    )
    gateway.log = folder / "log" / gateway.log.name
    plainly, root = gateway.command, folder / "root"
    root.mkdir()
    # From a chroot no user namespace can be made (unshare(2)); where /proc/sys is read-only nothing is set.
    mounted = f"mount --rbind / {root} && mount -o bind,ro /proc/sys {root}/proc/sys && exec chroot {root}"
    limited = f'setpriv --bounding-set {",".join(("-all", *given))} "$@"'
    confined = ["unshare", "--mount", "sh", "-c", f"{mounted} {limited}", "sh"]
    gateway.command = lambda *words: [*confined, *plainly(*words)]  # type: ignore[method-assign]
    with gateway:
        assert "warning: net.ipv4.tcp_early_demux is 1, and this process may not change it" in gateway.narrated()

        def canary() -> dict[str, Any]:
            words = plainly("status", "--json", "--confdir", folder / "keys")
            done = gateway.namespace.run(*words, env=gateway.environment, check=False)
            told: dict[str, Any] = json.loads(done.stdout)["gateway"]["canary"]
            return told

        until("a probe has succeeded", lambda: canary()["asks_from"])
        assert (canary()["asks_from"], canary()["problems"]) == ("machine", [])
        drop = "table inet other { chain drops { type filter hook prerouting priority -400; meta l4proto tcp drop; }; }"
        lab.gateway.run("nft", drop)
        until("it is noticed that packets are dropped", lambda: "had no answer" in str(canary()["problems"]))
        lab.gateway.run("nft", "delete table inet other")
        until("it is noticed that none are", lambda: not canary()["problems"])
        for family in (4, 6):
            assert python(lab.client, BANNED, family, False, origin.authority).error == UNRECOGNIZED_NAME
            answer = python(lab.client, ALLOWED, family, False, origin.authority)
            assert answer.certificate == origin.fingerprints[ALLOWED]
        refused_over_http3(lab, origin, gateway, 4)
