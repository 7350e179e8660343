"""A site of which one address is down, by real clients: behind a gate it is reached, and sooner than past it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labs.gateway import CARRIERS, Gateway, MakeGateway, office_policy
from labs.netns import Lab
from labs.origin import ADDRESSES, ALLOWED, Origin

REFUSES = {4: "203.0.113.77", 6: "2001:db8:f::77"}
SILENT = {4: "203.0.113.78", 6: "2001:db8:f::78"}
HALF_DOWN = {
    "a-refuses": (REFUSES[4], ADDRESSES[ALLOWED][4]),
    "aaaa-refuses": (REFUSES[6], ADDRESSES[ALLOWED][4]),
    "black-hole": (SILENT[4], ADDRESSES[ALLOWED][4]),
    "black-hole-aaaa": (SILENT[6], ADDRESSES[ALLOWED][4]),
}
PYTHON = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[2])
print(urllib.request.urlopen(sys.argv[1], context=context, timeout=60).read().decode())
"""
NODE = "fetch(process.argv[1]).then((answer) => answer.text()).then(console.log)"
CLIENTS: dict[str, Callable[[str, Path], tuple[str | Path, ...]]] = {
    "curl": lambda url, ca: ("curl", "-sS", "--max-time", "60", "--cacert", ca, url),
    "wget": lambda url, ca: ("wget", "-q", "-T", "60", "-t", "1", "-O", "-", f"--ca-certificate={ca}", url),
    "python": lambda url, ca: (sys.executable, "-c", PYTHON, url, ca),
    "node": lambda url, ca: ("env", f"NODE_EXTRA_CA_CERTS={ca}", "node", "-e", NODE, url),
}
PATIENT = office_policy() | {"settings": {"egress": {"connect_seconds": 60}}}
"""A gate that gives a destination a minute to answer, as most clients do."""
SOON = 30.0
"""Seconds on a crowded machine, in which an opener may start: half of what the gate would wait."""


@pytest.fixture(scope="module")
def half_down(lab: Lab, origin: Origin) -> Iterator[None]:
    """Addresses of the origin's at which nothing listens, and others of which nothing is heard."""
    for each in (*REFUSES.values(), *SILENT.values()):
        lab.origin.run("ip", "address", "add", f"{each}/{64 if ':' in each else 24}", "dev", "eth0", "nodad")
    rules = (
        "table inet hole { chain input { type filter hook input priority 0;"
        f" ip daddr {SILENT[4]} tcp flags syn drop; ip6 daddr {SILENT[6]} tcp flags syn drop; }}\n}}"
    )
    lab.origin.run("nft", rules)
    lab.gateway.hosts({})  # there from now on: what starts there sees its later contents
    yield
    lab.origin.run("nft", "delete table inet hole")


@pytest.fixture(scope="module")
def gate(lab: Lab, half_down: None, any_gateway: MakeGateway) -> Iterator[Gateway]:
    """One gateway with gates for redirected clients."""
    with any_gateway(policy=PATIENT, **CARRIERS["gates"]) as running:
        lab.client.hosts({ALLOWED: (ADDRESSES[ALLOWED][4],)})
        lab.client.run("curl", "-sS", "--max-time", "60", f"http://{ALLOWED}/")  # there is an opener now
        yield running


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("how", HALF_DOWN)
def test_redirected(lab: Lab, origin: Origin, gate: Gateway, how: str, client: str, scheme: str) -> None:
    """Past the gate most of these wait for half a minute or a minute where an address is silent."""
    for namespace in (lab.client, lab.gateway):
        namespace.hosts({ALLOWED: HALF_DOWN[how]})
    began = time.monotonic()
    done = lab.client.run(*CLIENTS[client](f"{scheme}://{ALLOWED}/", origin.authority))
    assert f"origin of {ALLOWED}" in done.stdout
    assert time.monotonic() - began < SOON


def test_explicit(lab: Lab, origin: Origin, half_down: None, any_gateway: MakeGateway, tmp_path: Path) -> None:
    """An explicit client gives a name, and the gate does all of it."""
    with any_gateway(tmp_path, policy=PATIENT, mode="gate:explicit@3129", ports=(3129,)):
        for how, addresses in HALF_DOWN.items():
            lab.gateway.hosts({ALLOWED: addresses})
            for url in (f"https://{ALLOWED}/", f"http://{ALLOWED}/"):
                began = time.monotonic()
                words = ("curl", "-sS", "--max-time", "60", "-x", "http://127.0.0.1:3129", "--cacert", origin.authority)
                assert f"origin of {ALLOWED}" in lab.gateway.run(*words, url).stdout, how
                assert time.monotonic() - began < SOON, how
