"""The networks of a host, of what Linux writes in /proc/net."""

from pathlib import Path

import pytest

from tokgate.cli.setup import init

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


def test_host_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback, and the networks on a link of this machine.

    Not the default route, one behind a gateway, one that is down, link-local. A kernel without IPv6 has no file for it.
    """
    monkeypatch.setattr(init, "_PROC", tmp_path)
    (tmp_path / "route").write_text(ROUTE)
    assert [str(network) for network in init.host_networks()] == ["127.0.0.0/8", "192.0.2.0/24", "::1/128"]
    (tmp_path / "if_inet6").write_text(IF_INET6)
    assert "2001:db8:1::/64" in map(str, init.host_networks())
    assert len(init.host_networks()) == 4
