"""Gates behind nftables `tproxy` instead of `redirect`: no translation, the destination is the socket's own address."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_clients import UNRECOGNIZED_NAME, python
from lab_gateway import PORT, Gateway, office_policy, refuses
from lab_netns import Lab
from lab_origin import ALLOWED, BANNED, Origin, to_banned

RULES = f"""
table inet tokgate {{
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    ip saddr 192.0.2.0/24 tcp dport {{ 80, 443 }} tproxy ip to :{PORT} meta mark set 1 accept
    ip6 saddr 2001:db8:c::/64 tcp dport {{ 80, 443 }} tproxy ip6 to :{PORT} meta mark set 1 accept
  }}
}}
"""
ROUTES = (
    ("ip", "rule", "{}", "fwmark", "1", "lookup", "100"),
    ("ip", "route", "{}", "local", "0.0.0.0/0", "dev", "lo", "table", "100"),
    ("ip", "-6", "rule", "{}", "fwmark", "1", "lookup", "100"),
    ("ip", "-6", "route", "{}", "local", "::/0", "dev", "lo", "table", "100"),
)
"""What makes the kernel deliver marked packets here although they are addressed elsewhere."""


@pytest.fixture(scope="module", params=[False, True], ids=["gates", "single"])
def gateway(
    request: pytest.FixtureRequest,
    lab: Lab,
    any_gateway: Callable[..., Gateway],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway with `tproxy` rules."""
    folder: Path = tmp_path_factory.mktemp("tproxy")
    with contextlib.ExitStack() as stack:
        for command in ROUTES:
            lab.gateway.run(*(word.format("add") for word in command))
            stack.callback(lab.gateway.run, *(word.format("del") for word in command))
        gateway = any_gateway(folder, policy=office_policy(), mode="gate:tproxy", single=request.param)
        running = stack.enter_context(gateway)
        lab.gateway.run("nft", "-f", "-", given=RULES)
        yield running


def test_allowed_and_banned(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """The allowed name comes with the origin's own certificate; the banned one is refused and the origin untouched."""
    with origin.watch() as seen:
        refused = python(lab.client, BANNED, family, False, origin.authority)
        allowed = python(lab.client, ALLOWED, family, False, origin.authority)

    assert refused.error == UNRECOGNIZED_NAME
    assert allowed.certificate == origin.fingerprints[ALLOWED]
    assert to_banned(seen) == 0
    record = gateway.wait_for_record("the refusal is recorded", refuses(BANNED, Lab.CLIENT[family]))
    assert record["destination"]["ip"] == Lab.BANNED[family]


def test_another_network_passes(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A client whose packets no rule takes reaches the same name."""
    answer = python(lab.guest, BANNED, family, False, origin.authority)
    assert answer.certificate == origin.fingerprints[BANNED]
