"""What the start says of users who have to sign in."""

from pathlib import Path

from whenever import Instant

from labs.builders import snapshot
from tokgate.policy.networks import Network
from tokgate.policy.settings import ProxyAuth
from tokgate.runtime.banner import overview


def test_where_users_sign_in(tmp_path: Path) -> None:
    """Whom networks name in vain, and that nobody can when the file is gone: nobody should learn that from users."""
    htpasswd, groups = tmp_path / "htpasswd", tmp_path / "groups"
    htpasswd.write_text("".join(f"{user}:$2b$04${53 * 'x'}\n" for user in ("alice", "bob")))
    groups.write_text("press: alice\n")
    vain = Network("vain", (), users=("eve", "Bob"), groups=("Press", "pres"), interfaces=("lo", "no-such.20"))
    stated = snapshot(networks=(vain,), proxy_auth=ProxyAuth(htpasswd=str(htpasswd), groups=str(groups)))
    found = list(overview(stated, Instant.now()))
    assert found[found.index(f"users of an explicit proxy sign in by {htpasswd}") + 1 :] == [
        "  no such user: eve",
        "  nobody is in the group: pres",
        "no interface is called no-such.20 here: network vain holds nobody by it",
    ]
    htpasswd.unlink()
    assert any(line.startswith("  nobody can: ") for line in overview(stated, Instant.now()))
