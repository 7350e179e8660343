"""Users who prove to an explicit proxy who they are, with curl: through gates and through mitmproxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bcrypt
import pytest
from lab_clients import through
from lab_gateway import EXPLICIT, Gateway, office_policy
from lab_netns import Lab, wait_until
from lab_origin import ADDRESSES, ALLOWED, BANNED, Origin, fingerprint, to_banned


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


def connected_to_banned(lab: Lab) -> str:
    """The gateway's connections to TikTok: the end of one that was allowed must not count as one that was not."""
    listed = lab.gateway.run("ss", "-Hant", "state", "connected", "exclude", "time-wait").stdout
    return "\n".join(line for line in listed.splitlines() if any(each in line for each in Lab.BANNED.values()))


@pytest.mark.parametrize("who", [(), ("--proxy-user", "alice:wrong"), ("--proxy-user", "eve:secret")])
def test_nobody_passes_unknown(lab: Lab, origin: Origin, proxy: Gateway, who: tuple[str, ...]) -> None:
    """Without a right password there is no tunnel and no page, not even to an allowed name."""
    code, output, _ = curl(lab, origin, f"https://{ALLOWED}/", *who)
    assert code != 0
    assert "407 000" in output
    _, output, _ = curl(lab, origin, f"http://{ALLOWED}/", *who)
    assert "000 407" in output


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_known_users_pass_undecrypted(lab: Lab, origin: Origin, proxy: Gateway, user: str) -> None:
    """An allowed name shows its own certificate to whoever has proved who they are; plain HTTP passes as well."""
    code, output, error = curl(lab, origin, f"https://{ALLOWED}/", "--proxy-user", f"{user}:secret")
    assert (code, error) == (0, "")
    assert fingerprint(output.encode()) == origin.fingerprints[ALLOWED]
    _, output, _ = curl(lab, origin, f"http://{ALLOWED}/", "--proxy-user", f"{user}:secret")
    assert f"origin of {ALLOWED} over HTTP/1.1" in output


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_asks_decides(lab: Lab, origin: Origin, proxy: Gateway, scheme: str) -> None:
    """TikTok is refused to Alice, whose group the policy names, and carried for Bob, from one and the same address."""
    wait_until("nobody is connected to TikTok any more", lambda: not connected_to_banned(lab))
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


@pytest.mark.parametrize("proxy", ["gates", "single"], indirect=True)  # mitmproxy has a mode of its own for SOCKS
def test_socks(lab: Lab, origin: Origin, proxy: Gateway) -> None:
    """Gates ask clients of SOCKS 5 as well."""
    code, output, error = curl(lab, origin, f"https://{ALLOWED}/", "--proxy-user", "bob:secret", scheme="socks5h")
    assert (code, error) == (0, "")
    assert f"origin of {ALLOWED}" in output
    for who in ((), ("--proxy-user", "bob:wrong")):
        code, _, _ = curl(lab, origin, f"https://{ALLOWED}/", *who, scheme="socks5h")
        assert code == 97  # CURLE_PROXY
    wait_until("nobody is connected to TikTok any more", lambda: not connected_to_banned(lab))
    with origin.watch() as seen:
        code, _, _ = curl(lab, origin, f"https://{BANNED}/", "--proxy-user", "alice:secret", scheme="socks5h")
    assert code != 0
    assert to_banned(seen) == 0


def test_accounts_change_while_it_runs(lab: Lab, origin: Origin, proxy: Gateway) -> None:
    """A user who is put into the file can sign in a moment later, without a reload."""
    file = proxy.folder / "htpasswd"
    before = file.read_text()
    file.write_text(before + f"carol:{bcrypt.hashpw(b'fresh', bcrypt.gensalt(4)).decode()}\n")
    code, _, error = curl(lab, origin, f"https://{ALLOWED}/", "--proxy-user", "carol:fresh")
    assert (code, error) == (0, "")
