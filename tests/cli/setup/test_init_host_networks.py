"""The networks of a host, of what Linux writes in /proc/net."""

from pathlib import Path

import pytest

from tokgate.cli.setup import init
from tokgate.cli.setup.init import v4_networks, v6_networks

ROUTE = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
eth1	006433C6	00000000	0000	0	0	0	00FFFFFF	0	0	0
eth1	00007100	010200C0	0003	0	0	0	00FFFFFF	0	0	0
eth0	0000FEA9	00000000	0001	0	0	0	0000FFFF	0	0	0
"""
IF_INET6 = """\
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
20010db8000100000000000000000002 04 40 00 82     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""


def test_v4() -> None:
    """Networks on a link are the host's; not the default route, one behind a gateway, one that is down, link-local."""
    assert [str(network) for network in v4_networks(ROUTE.splitlines())] == ["192.0.2.0/24"]


def test_v6() -> None:
    """The prefix of an address is the host's; not link-local, not loopback."""
    assert [str(network) for network in v6_networks(IF_INET6.splitlines())] == ["2001:db8:1::/64"]


def test_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is among them; a kernel without IPv6 has no file for it, and that is no error."""
    monkeypatch.setattr(init, "_PROC", tmp_path)
    (tmp_path / "route").write_text(ROUTE)
    assert [str(network) for network in init.host_networks()] == ["127.0.0.0/8", "192.0.2.0/24", "::1/128"]
