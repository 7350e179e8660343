"""Giving capabilities up, and passing them to the next program, as the kernel tells of it."""

import subprocess
import sys

from tokgate.gateway.host import capabilities
from tokgate.gateway.host.capabilities import Capability

HEAD = """if True:
    import os, subprocess, sys
    from tokgate.gateway.host import capabilities
    from tokgate.gateway.host.capabilities import Capability

    def told(process="self"):
        lines = [line.split() for line in open(f"/proc/{process}/status") if line.startswith("Cap")]
        return {line[0]: int(line[1], 16) for line in lines}
"""


def held_after(code: str) -> list[int]:
    """The numbers that a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", HEAD + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_what_is_held_is_what_the_kernel_says() -> None:
    """Else tokgate would try to become a user without the right to, and not start."""
    (told,) = held_after("    print(told()['CapPrm:'])")
    assert capabilities.held() == told


def test_what_is_given_up_is_gone() -> None:
    """A gate that was taken over can't use what it no longer needs, nor can what it starts."""
    code = """
    capabilities.limit_to({Capability.NET_ADMIN})
    now = told()
    print(now['CapPrm:'], now['CapEff:'], now['CapInh:'], now['CapAmb:'])
    """
    kept = capabilities.held() & 1 << Capability.NET_ADMIN
    assert held_after(code) == [kept, kept, 0, 0]


def test_what_is_passed_on_outlives_an_exec() -> None:
    """An opener that marks its connections may, although it is another program than the gate that forked for it."""
    code = """
    capabilities.limit_to({Capability.NET_ADMIN})
    capabilities.pass_on()
    now = told()
    print(now['CapPrm:'], now['CapInh:'], now['CapAmb:'])
    """
    kept = capabilities.held() & 1 << Capability.NET_ADMIN
    assert held_after(code) == [kept] * 3


def test_nothing_is_taken_that_was_not_held() -> None:
    """Keeping what a process never had is no error: under systemd, tokgate starts with nothing."""
    code = """
    capabilities.limit_to(())
    capabilities.limit_to({Capability.NET_ADMIN, Capability.NET_BIND_SERVICE})
    print(capabilities.held())
    """
    assert held_after(code) == [0]


def test_where_the_system_forbids_it_nothing_is_asked_of_it() -> None:
    """The systemd unit forbids capset: with nothing to give up or to pass on, tokgate starts there all the same."""
    code = """
    capabilities.limit_to(())

    def forbidden(*arguments):
        raise PermissionError(1, "Operation not permitted")

    capabilities._hold = forbidden
    capabilities.limit_to({Capability.NET_ADMIN})
    capabilities.limit_to(())
    capabilities.pass_on()
    print(capabilities.held())
    """
    assert held_after(code) == [0]
