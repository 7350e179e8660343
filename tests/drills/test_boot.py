"""Drill: the machine starts. The rules from before hold until tokgate runs, also where it can't."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labs.clients import UNRECOGNIZED_NAME, python
from labs.gateway import KERNEL_TOO, Gateway, office_policy
from labs.netns import Lab, wait_until
from labs.origin import ALLOWED, BANNED, Origin

UNIT = Path(__file__).parents[2] / "deploy/systemd/tokgate-boot.service"
BROKEN = "version: 1\nbans: {office-ban: {servces: [tiktok]}}\n"


@pytest.fixture
def gateway(any_gateway: Callable[..., Gateway], lab: Lab, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that does not run, and nothing in the kernel, as after a start of the machine."""
    made = any_gateway(tmp_path, policy=office_policy(), mode=KERNEL_TOO)
    made.home.mkdir()
    yield made
    made._end()
    lab.gateway.run("nft", "flush", "ruleset")


def boots(gateway: Gateway) -> tuple[int, str]:
    """Run what the unit runs, with this gateway's paths: its exit code and what it said."""
    (line,) = [each for each in UNIT.read_text().splitlines() if each.startswith("ExecStart=")]
    for said, here in {
        "/var/lib/tokgate": str(gateway.home),
        "/opt/tokgate/bin/tokgate": shlex.join(gateway.command()),
        "/etc/tokgate/policies": str(gateway.policies),
    }.items():
        line = line.replace(said, here)
    words = shlex.split(line.removeprefix("ExecStart="))
    done = gateway.namespace.run(*words, env=gateway.environment, check=False)
    return done.returncode, done.stderr


def starts_again(gateway: Gateway) -> None:
    """What a machine that loses power has left of tokgate: files."""
    assert gateway.process is not None
    gateway.process.kill()
    gateway.process.wait()
    wait_until("no gate listens", lambda: not gateway.listens())
    gateway.namespace.run("nft", "flush", "ruleset")
    for file in gateway.log.parent.glob("block*"):  # the log lacks an end; a new one begins
        file.unlink()


def reaches(lab: Lab, origin: Origin, name: str, who: str = "client") -> bool:
    """Whether a network gets the origin's own certificate for a name."""
    return python(getattr(lab, who), name, 4, False, origin.authority).certificate == origin.fingerprints[name]


def test_the_last_rules_hold(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """They are loaded by nft alone and say what `on_crash` says; then tokgate takes over what is there."""
    gateway.write_policy(office_policy() | {"settings": {"gateway": {"on_crash": "open"}}})
    with gateway:
        starts_again(gateway)
        assert boots(gateway) == (0, "")
        assert reaches(lab, origin, BANNED)
        assert reaches(lab, origin, ALLOWED)
        assert reaches(lab, origin, BANNED, "guest")
        with gateway:
            assert python(lab.client, BANNED, 4, False, origin.authority).error == UNRECOGNIZED_NAME
            assert reaches(lab, origin, ALLOWED)


def test_a_typo_in_the_policy(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """The rules from before refuse; tokgate starts with the last good policy, and is red until it is mended."""
    with gateway:
        starts_again(gateway)
        assert reaches(lab, origin, BANNED)  # without rules
        assert boots(gateway) == (0, "")
        assert reaches(lab, origin, BANNED) is reaches(lab, origin, ALLOWED) is False
        assert reaches(lab, origin, BANNED, "guest")
        gateway.write_policy(BROKEN)
        with gateway:
            assert python(lab.client, BANNED, 4, False, origin.authority).error == UNRECOGNIZED_NAME
            assert reaches(lab, origin, ALLOWED)
            assert reaches(lab, origin, BANNED, "guest")
            assert "office-ban" in gateway.narrated()
            gateway.write_policy(office_policy())
            gateway.reload()
            assert python(lab.client, BANNED, 4, False, origin.authority).error == UNRECOGNIZED_NAME


def test_no_rules_yet(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """The first start has the policy's own rules; without a valid policy the web is closed for all, and it says so."""
    code, said = boots(gateway)
    assert (code, "is loaded, policy" in said) == (0, True), said
    assert not reaches(lab, origin, BANNED)
    assert reaches(lab, origin, BANNED, "guest")
    gateway.namespace.run("nft", "flush", "ruleset")
    gateway.write_policy(BROKEN)
    code, said = boots(gateway)
    assert (code, "the web is closed for all that is forwarded" in said) == (1, True), said
    assert not reaches(lab, origin, BANNED, "guest")
    gateway.write_policy(office_policy())
    with gateway:
        assert reaches(lab, origin, BANNED, "guest")


def test_damaged_rules(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """What nft does not take is no reason to stay open: the policy's own rules are loaded."""
    kept = gateway.home / ".tokgate" / "rules.nft"
    kept.parent.mkdir()
    kept.write_text("table inet tokgate {\n")
    code, said = boots(gateway)
    assert (code, "can't be loaded" in said, "is loaded, policy" in said) == (0, True, True), said
    assert not reaches(lab, origin, BANNED)
