"""Users who prove to an explicit proxy who they are, with curl: through gates and through mitmproxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bcrypt
import pytest

from labs.clients import through
from labs.gateway import EXPLICIT, Gateway, office_policy
from labs.netns import Lab
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin, to_banned


@pytest.fixture(scope="module", params=EXPLICIT)
def proxy(
    request: pytest.FixtureRequest,
    lab: Lab,
    origin: Origin,
    any_gateway: Callable[..., Gateway],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A proxy that wants to know who asks. TikTok is banned for the staff, which Alice belongs to and Bob doesn't."""
    lab.gateway.hosts({name: list(addresses.values()) for name, addresses in ADDRESSES.items()})
    folder = tmp_path_factory.mktemp("proxy-auth")
    users = (f"{user}:{bcrypt.hashpw(b'secret', bcrypt.gensalt(10)).decode()}\n" for user in ("alice", "bob"))
    (folder / "htpasswd").write_text("".join(users))
    (folder / "groups").write_text("staff: alice\n")
    policy = office_policy(networks=["staff"], response="page")
    policy["networks"]["staff"] = {"groups": ["staff"], "timezone": "Europe/Brussels"}
    policy["settings"] = {"proxy_auth": {"htpasswd": str(folder / "htpasswd"), "groups": str(folder / "groups")}}
    with any_gateway(folder, policy=policy, **EXPLICIT[request.param]) as running:
        yield running


def curl(lab: Lab, origin: Origin, url: str, *options: str, scheme: str = "http") -> tuple[int, str, str]:
    """curl's exit code, output and error for a URL through the proxy on loopback."""
    return through(lab.gateway, f"{scheme}://127.0.0.1:8080", origin.authority, url, *options)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_asks_decides(lab: Lab, origin: Origin, proxy: Gateway, scheme: str) -> None:
    """TikTok is refused to Alice, whose group the policy names, and carried for Bob, from one and the same address."""
    assert "407" in curl(lab, origin, f"{scheme}://{ALLOWED}/")[1]
    with origin.watch() as seen:
        _, output, _ = curl(lab, origin, f"{scheme}://{BANNED}/", "--insecure", "--proxy-user", "alice:secret")
    assert "451" in output.splitlines()[-1] or " 451\n" in output
    assert to_banned(seen) == 0
    record = proxy.wait_for_record("the refusal is logged", lambda record: record.get("user") == {"name": "alice"})
    assert record["tokgate"]["groups"] == ["staff"]
    assert record["tokgate"]["network"] == "staff"
    assert record["related"]["user"] == ["alice"]

    code, output, _ = curl(lab, origin, f"{scheme}://{BANNED}/", "--proxy-user", "bob:secret")
    assert code == 0
    assert f"origin of {BANNED}" in output
    assert "secret" not in proxy.log.read_text()
    assert "secret" not in proxy.narrated()
