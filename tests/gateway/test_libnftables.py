"""nftables' own library: what is missing, what it refuses, what it lists."""

import ctypes
import signal
import sys

import pytest

from labs.netns import Namespace
from tokgate.gateway import GatewayError, libnftables


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An admin on a plain machine learns what to install."""
    libnftables._library.cache_clear()
    monkeypatch.setattr(libnftables, "LIBRARY", "libnftables.so.99")
    with pytest.raises(GatewayError, match="apt install libnftables1"):
        libnftables.run("list tables")
    libnftables._library.cache_clear()


def test_a_refused_command_says_why(namespace: Namespace) -> None:
    """The kernel's reason reaches the admin, and one bad line takes the whole transaction back."""
    with pytest.raises(libnftables.NftError, match="syntax error"):
        namespace.inside(lambda: libnftables.run("add table inet a\nadd tabel inet b"))
    with pytest.raises(libnftables.NftError, match="No such file or directory"):
        namespace.inside(lambda: libnftables.run("add table inet a\nflush chain inet a none"))
    assert namespace.inside(libnftables.tables) == []


def test_a_dry_run_changes_nothing(namespace: Namespace) -> None:
    """What is only checked is not there afterwards."""
    namespace.inside(lambda: libnftables.run("add table inet a", dry=True))
    assert namespace.inside(libnftables.tables) == []
    namespace.inside(lambda: libnftables.run("add table inet a"))
    assert namespace.inside(libnftables.tables) == ["a"]


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that makes no context is an error, not a crash."""
    library = libnftables._library()
    monkeypatch.setattr(library, "nft_ctx_new", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint)(lambda flags: None))
    with pytest.raises(GatewayError, match="memory"):
        libnftables.run("list tables")


_UNDER_SIGNALS = """
import signal
from tokgate.gateway import libnftables

came = []
elements = ", ".join(f"10.{each // 250}.{each % 250}.0/24" for each in range(3000))
signal.signal(signal.SIGALRM, lambda number, frame: came.append(number))
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for _ in range(100):
    libnftables.run("add table inet a\\ndelete table inet a\\ntable inet a {\\n"
                    "set b { type ipv4_addr; flags interval; elements = { %s }\\n }\\n }\\n" % elements)
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(came))
"""


def test_signals_wait_for_the_kernel(namespace: Namespace) -> None:
    """A signal does not make a failure of a transaction that the kernel has carried out."""
    done = namespace.run(sys.executable, "-c", _UNDER_SIGNALS)
    assert int(done.stdout) > 100


_KILLED = """
import os, signal, subprocess
from tokgate.gateway import libnftables

def killed(answer):
    subprocess.run(["nft", "list", "tables"], check=True)
    os.kill(os.getpid(), signal.SIGKILL)

libnftables._objects = killed
libnftables.listed_once("table inet a", "chain b {\\n}\\n}\\n")
"""


def test_what_is_made_to_be_listed_goes_with_a_killed_process(namespace: Namespace) -> None:
    """A supervisor that is killed while it compares leaves no sleeping table for somebody to find."""
    done = namespace.run(sys.executable, "-c", _KILLED, check=False)
    assert (done.stdout, done.returncode) == ("table inet a\n", -signal.SIGKILL)
    assert namespace.inside(libnftables.tables) == []
