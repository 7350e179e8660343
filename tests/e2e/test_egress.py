"""An explicit proxy for a whole network: what its clients reach by a name of their own, with curl."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from labs.clients import through
from labs.gateway import Gateway, MakeGateway, office_policy
from labs.netns import Lab, Namespace
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin, fingerprint, to_banned
from labs.web_server import served, web_server

INSIDE = "inside.example.net"
"""A client's own name for the gateway's loopback."""

CARRIERS: dict[str, dict[str, Any]] = {
    "mitmproxy": {"mode": "regular", "options": ("--listen-host", "0.0.0.0")},
    "mitmdump": {"mode": "regular", "stock": True, "options": ("--listen-host", "0.0.0.0")},
    "gates": {"mode": "gate:explicit@0.0.0.0:8080"},
    "socks": {"mode": "socks5", "options": ("--listen-host", "0.0.0.0", "--listen-port", "8080")},
}


@pytest.fixture(scope="module", params=[carrier for carrier in CARRIERS if carrier != "socks"])
def proxy(request: pytest.FixtureRequest, lab: Lab, origin: Origin, any_gateway: MakeGateway) -> Iterator[Gateway]:
    """A proxy on every address of the gateway. TikTok is banned for the office, by name and address."""
    names = {name: list(addresses.values()) for name, addresses in ADDRESSES.items()}
    lab.gateway.hosts(names | {INSIDE: ["127.0.0.1"]})
    policy = office_policy()
    policy["services"]["tiktok"]["addresses"] = [f"{Lab.BANNED[4]}/32", f"{Lab.BANNED[6]}/128"]
    with any_gateway(policy=policy, **CARRIERS[request.param]) as gateway:
        yield gateway


@pytest.fixture
def inside(lab: Lab) -> Iterator[int]:
    """The port of a web server on the gateway's loopback."""

    with served(lab.gateway.inside(lambda: web_server(b"secret"))) as port:
        yield port


def answers(client: Namespace, proxy: str, origin: Origin, url: str, *options: str) -> str:
    """What curl says of a URL through the proxy: the body, then the answers to CONNECT and to the request."""
    return through(client, proxy, origin.authority, url, *options, "--write-out", "\n%{http_connect} %{http_code}")[1]


def at(scheme: str = "http", host: str = Lab.GATEWAY[4]) -> str:
    """The proxy, as curl wants it."""
    return f"{scheme}://{host}:8080"


def test_names(lab: Lab, origin: Origin, proxy: Gateway) -> None:
    """An allowed one of an address that no ban knows passes, undecrypted; a banned one gets no tunnel."""
    code, output, error = through(lab.client, at(), origin.authority, f"https://{ALLOWED}/")
    assert (code, error) == (0, "")
    assert f"origin of {ALLOWED} over HTTP/2.0\n" in output
    assert fingerprint(output.encode()) == origin.fingerprints[ALLOWED]
    assert f"origin of {ALLOWED} over HTTP/1.1\n" in answers(lab.client, at(), origin, f"http://{ALLOWED}/")
    with origin.watch() as seen:
        assert answers(lab.client, at(), origin, f"https://{BANNED}/").endswith("451 000")
    assert to_banned(seen) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]", INSIDE])
def test_gateway_itself(lab: Lab, origin: Origin, proxy: Gateway, inside: int, host: str) -> None:
    """What listens on the gateway's loopback is for the gateway's own programs, by whatever name."""
    url = f"http://{host}:{inside}/"

    assert answers(lab.client, at(), origin, url).endswith("000 403")
    assert answers(lab.client, at(), origin, url, "--proxytunnel").endswith("403 000")
    assert answers(lab.gateway, at(host="127.0.0.1"), origin, url) == "secret\n000 200"
    assert answers(lab.gateway, at(host="127.0.0.1"), origin, url, "--proxytunnel") == "secret\n200 200"


@pytest.mark.parametrize("proxy", ["gates", "socks"], indirect=True)
def test_socks(lab: Lab, origin: Origin, proxy: Gateway, inside: int) -> None:
    """The same for SOCKS, which has no words for it."""
    for host in ("127.0.0.1", INSIDE):
        assert answers(lab.client, at("socks5h"), origin, f"http://{host}:{inside}/").endswith("000 000")
        own = answers(lab.gateway, at("socks5h", "127.0.0.1"), origin, f"http://{host}:{inside}/")
        assert own == "secret\n000 200"
    assert f"origin of {ALLOWED} " in answers(lab.client, at("socks5h"), origin, f"https://{ALLOWED}/")
