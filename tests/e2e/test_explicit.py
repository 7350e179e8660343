"""An explicit proxy on loopback with the policies that ship, as `make run` starts it, and in stock mitmdump."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from lab_clients import through
from lab_gateway import EXPLICIT, ROOT, Gateway
from lab_netns import Lab
from lab_origin import ADDRESSES, ALLOWED, BANNED, Origin, fingerprint, to_banned

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


def test_plain_http_gets_the_page(lab: Lab, origin: Origin, proxy: Gateway) -> None:
    """http:// URLs through the proxy get the page for TikTok, and the origin's answer otherwise."""
    with origin.watch() as seen:
        _, refused, _ = through(lab.gateway, PROXY, origin.authority, f"http://{BANNED}/")

    _, passed, _ = through(lab.gateway, PROXY, origin.authority, f"http://{ALLOWED}/")

    assert "000 451" in refused
    assert to_banned(seen) == 0
    assert f"origin of {ALLOWED} over HTTP/1.1" in passed
    assert "000 200" in passed


def test_tunnel_by_address_is_judged_by_its_name(lab: Lab, origin: Origin, proxy: Gateway) -> None:
    """A CONNECT to an address, whose ClientHello then names TikTok, is refused by that name."""
    with origin.watch() as seen:
        done = lab.gateway.run(
            *("openssl", "s_client", "-proxy", "127.0.0.1:8080", "-connect", f"{Lab.BANNED[4]}:443"),
            *("-servername", BANNED),
            check=False,
        )

    assert "alert number 112" in done.stderr
    assert to_banned(seen) == 0
