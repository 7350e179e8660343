"""Fixtures of the end-to-end laboratory: what it needs, four namespaces, an origin, and a gateway that runs tokgate."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import lab_clients
import lab_netns
from lab_gateway import CARRIERS, Gateway, office_policy
from lab_origin import Origin
from lab_resolver import Resolver

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an end-to-end test."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)


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


def documented_block(language: str, beginning: str) -> str:
    """A code block of certs/README.md, by its language and its first words."""
    readme = Path(__file__).parents[2] / "certs/README.md"
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(beginning)]
    return str(found)


@pytest.fixture(scope="session")
def names_from_policies() -> str:
    """The Python of certs/README.md that lists the names to put into the certificate."""
    return documented_block("python", "from pathlib")


@pytest.fixture(scope="session")
def constrained_authority(requirements: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the commands of certs/README.md make, run as they stand there."""
    block = documented_block("sh", "set -eu")
    folder = tmp_path_factory.mktemp("certs")
    environment = {**os.environ, "NAMES": "tiktok.com tiktokv.com"}
    subprocess.run(["sh", "-c", block], cwd=folder, env=environment, check=True, capture_output=True, timeout=60)
    return folder / "authority"


@pytest.fixture(scope="module", params=CARRIERS)
def carrier(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each carrier in turn: what is true of one must be true of all."""
    return CARRIERS[request.param]


@pytest.fixture(scope="module")
def any_gateway(lab: lab_netns.Lab, origin: Origin, check_lines: Callable[[Path], object]) -> Callable[..., Gateway]:
    """Make gateways that end with their `with` block; one at a time, because they share the namespace."""

    def make(folder: Path, **options: Any) -> Gateway:
        return Gateway(lab.gateway, folder, check=check_lines, **options)

    return make


@pytest.fixture(scope="module")
def gateway_factory(any_gateway: Callable[..., Gateway], carrier: dict[str, Any]) -> Callable[..., Gateway]:
    """Make gateways with each carrier in turn, for redirected clients."""

    def make(folder: Path, **options: Any) -> Gateway:
        return any_gateway(folder, **(carrier | options))

    return make


@pytest.fixture(scope="module")
def gateway(gateway_factory: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A transparent gateway that refuses the banned service for the office network."""
    with gateway_factory(tmp_path_factory.mktemp("gateway"), policy=office_policy()) as running:
        yield running


@pytest.fixture(params=lab_clients.CLIENTS, ids=lambda client: client.__name__)
def fetch(request: pytest.FixtureRequest, origin: Origin) -> lab_clients.Client:
    """Each kind of client in turn, trusting the origin's authority only."""
    client: lab_clients.Client = request.param
    return client


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    """Each address family in turn."""
    version: int = request.param
    return version


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots stay for people to look at: TOKGATE_ARTIFACTS, else pytest's own temporary folder."""
    folder = Path(os.environ.get("TOKGATE_ARTIFACTS") or tmp_path_factory.mktemp("artifacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
