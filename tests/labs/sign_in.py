"""Users of an explicit proxy, and a policy under which they have to say who they are."""

from pathlib import Path

import bcrypt
import pytest

from labs import builders
from labs.proxy_lab import ban
from tokgate.policy.networks import Network
from tokgate.policy.settings import ProxyAuth
from tokgate.policy.snapshot import Snapshot


def entry(user: str, password: str = "secret") -> str:
    """A line of an htpasswd file."""
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"


@pytest.fixture
def asking(tmp_path: Path) -> Snapshot:
    """Clips are banned for the press, which Alice is in and Bob is not."""
    (tmp_path / "htpasswd").write_text(entry("alice") + entry("bob"))
    (tmp_path / "groups").write_text("press: alice\nstaff: alice bob\n")
    return builders.snapshot(
        ban(networks=("press",)),
        services=(builders.service("clips", "suffix:clips.example.org"),),
        networks=(builders.network("loop", "127.0.0.0/8"), Network("press", (), groups=("Press",))),
        proxy_auth=ProxyAuth(htpasswd=str(tmp_path / "htpasswd"), groups=str(tmp_path / "groups")),
    )
