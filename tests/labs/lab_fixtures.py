"""Fixtures of the laboratory of end-to-end tests and drills: what it needs, four namespaces, an origin, gateways."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labs import netns as lab_netns
from labs.gateway import Gateway, MakeGateway
from labs.netns import Namespace
from labs.origin import Origin
from labs.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Iterable

TOOLS = ("ip", "ss", "sysctl", "nft", "curl", "openssl", "nginx", "chromium", "certutil")
REQUIRE = "TOKGATE_REQUIRE_E2E"


def _missing() -> Iterable[str]:
    """What this machine lacks for the laboratory; empty when it can be built."""
    if sys.platform != "linux" or not hasattr(os, "setns"):
        yield "Linux"
        return
    if os.geteuid() != 0:
        yield "root"
    yield from (tool for tool in TOOLS if shutil.which(tool) is None)


@pytest.fixture(scope="session")
def requirements() -> None:
    """Skip where a part is missing; fail instead where the environment says that nothing may be missing."""
    missing = ", ".join(_missing())
    if missing and os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{REQUIRE}=1 and missing here: {missing}", pytrace=False)
    if missing:
        pytest.skip(f"missing here: {missing}")


@pytest.fixture(scope="session")
def lab(requirements: None) -> Iterator[lab_netns.Lab]:
    """Client, guest, gateway and origin networks, removed at the end whatever happens."""
    lab_netns.sweep()
    built = lab_netns.Lab(os.getpid())
    try:
        built.up()
        yield built
    finally:
        built.down()


@pytest.fixture(scope="session")
def origin(lab: lab_netns.Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """The servers that the clients want to reach, and the counters of what arrives there."""
    with Origin(lab.origin, tmp_path_factory.mktemp("origin")) as running:
        yield running


@pytest.fixture(scope="module")
def resolver(lab: lab_netns.Lab) -> Iterator[Resolver]:
    """The resolver that gateways ask."""
    with Resolver(lab.origin) as running:
        yield running


@pytest.fixture(scope="module")
def any_gateway(
    lab: lab_netns.Lab, origin: Origin, check_lines: Callable[[Path], object], tmp_path_factory: pytest.TempPathFactory
) -> MakeGateway:
    """Make gateways that end with their `with` block; one at a time, because they share the namespace."""

    def make(folder: Path | None = None, **options: Any) -> Gateway:
        return Gateway(lab.gateway, folder or tmp_path_factory.mktemp("gateway"), check=check_lines, **options)

    return make


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """An empty network namespace, in which nothing is forwarded."""
    if os.geteuid() != 0 or not (shutil.which("nft") and shutil.which("ip")):
        if os.environ.get(REQUIRE) == "1":
            pytest.fail("needs root, nft and ip", pytrace=False)
        pytest.skip("needs root, nft and ip")
    made = Namespace(f"tokgate{os.getpid()}-kernel").add()
    try:
        yield made
    finally:
        made.remove()
