"""What the authentication cache must not mix up or keep, and what an unknown user must not learn from the time."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tokgate.accounts.auth_cache import AuthCache, accounts_of
from tokgate.policy.membership import Identity
from tokgate.policy.settings import ProxyAuth
from tokgate.wire.proxy_request import Credentials


class Accounts:
    """One user; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def state(self) -> object:
        """Never changes."""
        return None

    def lacks(self, users: Iterable[str], groups: Iterable[str]) -> Iterator[str]:
        """Nothing."""
        return iter(())

    def identify(self, credentials: Credentials) -> Identity | None:
        """Alice, by her password."""
        self.asked += 1
        return Identity("alice") if credentials == Credentials("alice", "secret") else None


def test_a_name_and_a_password_are_two_things() -> None:
    """While Alice is remembered, the same letters cut elsewhere between name and password are nobody."""
    cache = AuthCache(Accounts)
    assert cache.verify(Credentials("alice", "secret")).identity == Identity("alice")
    for user, password in (("alic", "esecret"), ("alices", "ecret"), ("", "alicesecret"), ("alicesecret", "")):
        assert cache.recall(Credentials(user, password)) is None
        assert cache.verify(Credentials(user, password)).identity is None


def test_guesses_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of wrong passwords only so many are remembered: the oldest is asked about again, the newest is not."""
    monkeypatch.setattr("tokgate.accounts.auth_cache.MOST", 3)
    accounts = Accounts()
    cache = AuthCache(lambda: accounts, monotonic=lambda: 1000.0)
    guesses = [Credentials("alice", f"guess {number}") for number in range(8)]
    for guess in guesses:
        assert cache.verify(guess).identity is None
    assert cache.recall(guesses[0]) is None
    assert cache.recall(guesses[-1]) is not None
    assert sum(cache.recall(guess) is not None for guess in guesses) == 3


def test_an_unknown_user_takes_as_long_as_a_wrong_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the time would tell who has an account here."""
    (tmp_path / "htpasswd").write_text(f"alice:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    accounts = accounts_of(ProxyAuth(htpasswd=str(tmp_path / "htpasswd")))
    compared: list[bytes] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, hashed: bytes) -> Any:
        compared.append(password)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    for user in ("alice", "nobody"):
        assert accounts.identify(Credentials(user, "guess")) is None
    assert compared == [b"guess", b"guess"]
