"""An explicit proxy on loopback with the policies that ship, as `make run` starts it, and in stock mitmdump."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from labs.clients import through
from labs.gateway import EXPLICIT, ROOT, Gateway
from labs.netns import Lab
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin, fingerprint, to_banned

PROXY = "http://127.0.0.1:8080"


@pytest.fixture(scope="module", params=EXPLICIT)
def proxy(
    request: pytest.FixtureRequest,
    lab: Lab,
    origin: Origin,
    any_gateway: Callable[..., Gateway],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """The proxy, and names that it can resolve: were it to let one pass, the origin would see it."""
    lab.gateway.hosts({name: list(addresses.values()) for name, addresses in ADDRESSES.items()})
    folder = tmp_path_factory.mktemp("explicit")
    with any_gateway(folder, policy=ROOT / "policies", **EXPLICIT[request.param]) as running:
        yield running


def test_allowed_name_passes_undecrypted(lab: Lab, origin: Origin, proxy: Gateway) -> None:
    """A tunnel to an allowed name carries the origin's own certificate."""
    code, output, error = through(lab.gateway, PROXY, origin.authority, f"https://{ALLOWED}/")

    assert (code, error) == (0, "")
    assert f"origin of {ALLOWED} over HTTP/2.0" in output
    assert fingerprint(output.encode()) == origin.fingerprints[ALLOWED]


def test_banned_name_gets_no_tunnel(lab: Lab, origin: Origin, proxy: Gateway) -> None:
    """CONNECT for TikTok is answered with 451 before any tunnel, and leaves one readable line in the log."""
    with origin.watch() as seen:
        code, output, _ = through(lab.gateway, PROXY, origin.authority, f"https://{BANNED}/")

    assert code != 0
    assert "451 000" in output
    assert to_banned(seen) == 0
    record = proxy.wait_for_record(
        "the refusal is logged", lambda record: record["event"]["action"] == "connect-refused"
    )
    assert record["destination"]["domain"] == BANNED
    assert BANNED in record["message"]
