"""Accounts and the authentication cache: who gets in, what is remembered, for how long, and what is never told."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest

from labs.builders import present
from labs.gate_lab import until
from labs.records import Monotonic
from labs.waiting import DEADLINE
from tokgate.accounts import AccountsError, UnusablePasswordError
from tokgate.accounts.auth_cache import (
    AWAY,
    COMPLAIN_EVERY,
    LOOK_EVERY,
    REMEMBERED,
    REMEMBERED_WRONG,
    AuthCache,
    CurrentAuthCache,
    accounts_of,
)
from tokgate.accounts.htpasswd import read_groups
from tokgate.policy.membership import Identity
from tokgate.policy.settings import Directory, ProxyAuth
from tokgate.wire.proxy_request import Credentials

ALICE = Credentials("alice", "secret")


def hashed(password: str) -> str:
    """A password as `htpasswd -B` writes it, as cheap as it gets."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


class Book:
    """Accounts in memory that count how often they are asked."""

    def __init__(self) -> None:
        self.passwords = {"alice": "secret"}
        self.asked = 0
        self.version = 0
        self.error: AccountsError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.inside = 0
        self.most_inside = 0
        self._lock = threading.Lock()

    def state(self) -> object:
        """Changes when the test says so."""
        return self.version

    def lacks(self, users: Iterable[str], groups: Iterable[str]) -> Iterator[str]:
        """Nothing."""
        return iter(())

    def identify(self, credentials: Credentials) -> Identity | None:
        with self._lock:
            self.asked += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        self.gate.wait(DEADLINE)
        with self._lock:
            self.inside -= 1
        if self.error is not None:
            raise self.error
        right = self.passwords.get(credentials.user) == credentials.password
        return Identity(credentials.user) if right else None


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def clock() -> Monotonic:
    return Monotonic()


@pytest.fixture
def cache(book: Book, clock: Monotonic) -> AuthCache:
    return AuthCache(lambda: book, monotonic=clock)


def test_right_passwords_are_remembered_for_a_while(cache: AuthCache, book: Book, clock: Monotonic) -> None:
    """The accounts are asked once in five minutes, and another password is not taken for the right one."""
    assert cache.recall(ALICE) is None
    assert cache.verify(ALICE).identity == Identity("alice")
    clock.now += REMEMBERED - 1
    known = present(cache.recall(ALICE))
    assert known.identity == Identity("alice")
    assert cache.verify(ALICE).identity == Identity("alice")
    assert cache.recall(Credentials("alice", "Secret")) is None
    assert book.asked == 1
    clock.now += 1
    assert cache.recall(ALICE) is None


def test_wrong_passwords_are_remembered_shortly(cache: AuthCache, book: Book, clock: Monotonic) -> None:
    """A program that repeats a wrong password does not cost a check each time."""
    wrong = Credentials("alice", "guess")
    assert cache.verify(wrong).identity is None
    assert cache.verify(wrong).identity is None
    assert book.asked == 1
    clock.now += REMEMBERED_WRONG
    book.passwords["alice"] = "guess"
    assert cache.verify(wrong).identity == Identity("alice")


def test_changed_accounts_forget_everything(cache: AuthCache, book: Book, clock: Monotonic) -> None:
    """Who is taken out of the file is out a second later."""
    cache.verify(ALICE)
    book.version, book.passwords = 1, {}
    clock.now += LOOK_EVERY
    assert cache.recall(ALICE) is None
    assert cache.verify(ALICE).identity is None


def test_accounts_that_fail(cache: AuthCache, book: Book, clock: Monotonic) -> None:
    """Nobody gets in, nothing is remembered, and why is said once a minute."""
    book.error = AccountsError("the directory is away")
    answers = []
    for pause in (AWAY, COMPLAIN_EVERY, AWAY):
        answers.append(cache.verify(ALICE))
        clock.now += pause
    assert all(answer.unavailable for answer in answers)
    assert [answer.complaint for answer in answers] == [book.error, None, book.error]
    assert book.asked == 3
    assert cache.failure == "the directory is away"
    book.error = None
    assert cache.verify(ALICE).identity == Identity("alice")
    assert cache.failure is None


def test_accounts_that_fail_are_left_alone_for_a_while(cache: AuthCache, book: Book, clock: Monotonic) -> None:
    """Whoever comes meanwhile is told at once, and whoever is known already goes on; changed accounts are asked."""
    cache.verify(ALICE)
    book.error = AccountsError("the directory hangs")
    bob = Credentials("bob", "secret")
    assert cache.verify(bob).unavailable
    known = present(cache.recall(bob))
    assert known.unavailable
    assert cache.verify(bob).unavailable
    assert cache.verify(ALICE).identity == Identity("alice")
    assert book.asked == 2
    book.error, book.version = None, 1
    clock.now += LOOK_EVERY
    assert cache.recall(bob) is None
    assert not cache.verify(bob).unavailable
    book.error, book.version = AccountsError("the file is malformed now"), 2
    clock.now += LOOK_EVERY
    assert cache.verify(bob).complaint is book.error


def test_one_whose_password_can_not_be_checked(cache: AuthCache, book: Book, caplog: pytest.LogCaptureFixture) -> None:
    """Is turned away like anybody who does not know it, with a complaint, in the journal too; all others get in."""
    book.error = UnusablePasswordError("bob's is kept as MD5")
    answers = [cache.verify(Credentials("bob", "secret")) for _ in range(2)]
    assert [(answer.identity, answer.unavailable, answer.complaint) for answer in answers] == [
        (None, False, book.error),
        (None, False, None),
    ]
    assert caplog.text.count("users can't sign in: bob's is kept as MD5") == 1
    book.error = None
    assert cache.verify(ALICE).identity == Identity("alice")


def test_accounts_are_found_where_it_may_block(clock: Monotonic, book: Book) -> None:
    """Their libraries are not imported where connections are carried: `recall` doesn't need them, `verify` blocks."""
    found: list[Book] = []

    def find() -> Book:
        found.append(book)
        return book

    cache = AuthCache(find, monotonic=clock)
    clock.now += LOOK_EVERY
    assert cache.recall(ALICE) is None
    assert not found
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(cache.verify, [ALICE] * 4))
    assert all(answer.identity == Identity("alice") for answer in answers)
    assert found == [book]


def test_few_passwords_are_checked_at_a_time(cache: AuthCache, book: Book) -> None:
    """However many guess: two at a time."""
    book.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(cache.verify, Credentials("alice", f"guess {number}")) for number in range(8)]
        assert until(lambda: book.inside == 2)
        book.gate.set()
        assert all(answer.result(DEADLINE).identity is None for answer in answers)
    assert book.most_inside == 2


def test_a_name_and_a_password_are_two_things(cache: AuthCache) -> None:
    """While Alice is remembered, the same letters cut elsewhere between name and password are nobody."""
    assert cache.verify(ALICE).identity == Identity("alice")
    for user, password in (("alic", "esecret"), ("alices", "ecret"), ("", "alicesecret"), ("alicesecret", "")):
        assert cache.recall(Credentials(user, password)) is None
        assert cache.verify(Credentials(user, password)).identity is None


def test_guesses_fill_no_memory(cache: AuthCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of wrong passwords only so many are remembered: the oldest is asked about again, the newest is not."""
    monkeypatch.setattr("tokgate.accounts.auth_cache.MOST", 3)
    guesses = [Credentials("alice", f"guess {number}") for number in range(8)]
    for guess in guesses:
        assert cache.verify(guess).identity is None
    assert [cache.recall(guess) is not None for guess in guesses] == [False] * 5 + [True] * 3


def test_no_password_is_kept(cache: AuthCache) -> None:
    """What is remembered holds neither name nor password."""
    cache.verify(ALICE)
    assert "secret" not in repr(vars(cache))
    assert b"secret" not in b"".join(cache._known)


def test_the_cache_follows_the_policy(tmp_path: Path) -> None:
    """The same accounts have the same cache after a reload, others another, and none nobody."""
    current = CurrentAuthCache()
    first = ProxyAuth(htpasswd=str(tmp_path / "one"))
    cache = present(current.of(first))
    assert current.of(ProxyAuth(htpasswd=str(tmp_path / "one"))) is cache
    assert current.of(ProxyAuth(htpasswd=str(tmp_path / "two"))) is not cache
    assert current.of(None) is None


def test_what_health_says_of_accounts(tmp_path: Path) -> None:
    """Nothing where there are none; nothing bad until a check has failed, and again once one has not."""
    current, path = CurrentAuthCache(), tmp_path / "htpasswd"
    assert current.failure is None
    cache = present(current.of(ProxyAuth(htpasswd=str(path))))
    assert current.failure == ""
    assert cache.verify(ALICE).unavailable
    assert str(current.failure).startswith(str(path))
    path.write_text(f"alice:{hashed('secret')}\n")
    cache._look_at = cache._away_until = 0.0
    assert cache.verify(ALICE).identity == Identity(user="alice")
    assert current.failure == ""


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> ProxyAuth:
    """Alice and Bob, of whom one is in the press office."""
    (tmp_path / "htpasswd").write_text(f"# users\nalice:{hashed('secret')}\nbob:{hashed('secret')}\n")
    (tmp_path / "groups").write_text("# groups\npress: alice carol\nstaff : alice bob\n\n")
    return ProxyAuth(htpasswd=str(tmp_path / "htpasswd"), groups=str(tmp_path / "groups"))


def test_files(files: ProxyAuth) -> None:
    """Right passwords with the groups; wrong ones, unknown users, and what bcrypt won't take."""
    accounts = accounts_of(files)
    assert accounts.identify(ALICE) == Identity("alice", frozenset({"press", "staff"}))
    assert accounts.identify(Credentials("bob", "secret")) == Identity("bob", frozenset({"staff"}))
    for user, password in (
        ("alice", "Secret"),
        ("Alice", "secret"),
        ("eve", ""),
        ("alice", "x" * 100),
        ("alice", "\0"),
    ):
        assert accounts.identify(Credentials(user, password)) is None


def test_files_are_read_again(files: ProxyAuth) -> None:
    """A changed file holds at the next question; `state` says that it changed."""
    accounts = accounts_of(files)
    states = [accounts.state()]
    Path(str(files.groups)).write_text("press: alice\n")
    states.append(accounts.state())
    assert accounts.identify(ALICE) == Identity("alice", frozenset({"press"}))
    Path(str(files.htpasswd)).write_text(f"alice:{hashed('other, and longer')}\n")
    assert len({*states, accounts.state()}) == 3
    assert accounts.identify(ALICE) is None


@pytest.mark.parametrize(
    "kept",
    [
        "$apr1$abc$def",
        "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "abJnggxhB/yWI",
        "in-the-clear",
        "$2y$10$short",
        "$2z$" + "x" * 56,
    ],
)
def test_passwords_that_are_not_kept_with_bcrypt(files: ProxyAuth, kept: str) -> None:
    """`htpasswd` without -B writes MD5: that user can't sign in and it is said why; all others can."""
    path = Path(str(files.htpasswd))
    path.write_text(f"\ufeff{path.read_text()}eve:{kept}\r\n")
    accounts = accounts_of(files)
    with pytest.raises(UnusablePasswordError, match="`eve`") as raised:
        accounts.identify(Credentials("eve", "secret"))
    assert kept not in str(raised.value)
    assert accounts.identify(ALICE) is not None
    assert accounts.identify(Credentials("carol", "secret")) is None
    assert list(accounts.lacks((), ())) == ["not kept with bcrypt (htpasswd -B) is the password of: eve"]
    path.write_text(f"{path.read_text()}eve:{hashed('secret')}\n")
    assert accounts.identify(Credentials("eve", "secret")) is not None
    assert not list(accounts.lacks((), ()))


def test_names_that_no_file_has(files: ProxyAuth) -> None:
    """What networks name in vain is told; case makes no difference."""
    found = accounts_of(files).lacks({"Alice", "zoe", "adam"}, {"PRESS", *(f"g{number}" for number in range(12))})
    assert list(found) == [
        "no such user: adam, zoe",
        "nobody is in the group: g0, g1, g10, g11, g2, g3, g4, g5, g6, g7 and 2 more",
    ]


@pytest.mark.parametrize("damage", ["missing", "malformed", "groups", "latin-1"])
def test_files_that_can_not_be_read(files: ProxyAuth, damage: str) -> None:
    """They are no reason to let anybody in, and the complaint quotes nothing from them."""
    if damage == "missing":
        Path(str(files.htpasswd)).unlink()
    elif damage == "malformed":
        Path(str(files.htpasswd)).write_text("alice secret-hash\n")
    elif damage == "latin-1":
        Path(str(files.htpasswd)).write_bytes(b"J\xfcrgen:secret-hash\n")
    else:
        Path(str(files.groups)).write_text("press alice\n")
    with pytest.raises(AccountsError, match=str(files.groups if damage == "groups" else files.htpasswd)) as raised:
        accounts_of(files).identify(ALICE)
    assert "secret-hash" not in str(raised.value)


def test_groups_of_several_lines() -> None:
    assert read_groups("a: x y\nb: x\na: z") == {
        "x": frozenset({"a", "b"}),
        "y": frozenset({"a"}),
        "z": frozenset({"a"}),
    }


def test_files_are_looked_at_once_a_second(cache: AuthCache, book: Book, clock: Monotonic) -> None:
    """A proxy under load doesn't ask the file system about the password file for each request."""
    looked: list[float] = []

    def state() -> object:
        looked.append(clock.now)
        return 0

    book.state = state  # type: ignore[method-assign]
    cache.verify(ALICE)
    looked.clear()
    for _ in range(10):
        assert cache.recall(ALICE) is not None
    assert looked == []
    clock.now += LOOK_EVERY
    for _ in range(10):
        cache.recall(ALICE)
    assert looked == [clock.now]
    clock.now += LOOK_EVERY / 2
    cache.recall(ALICE)
    assert len(looked) == 1


def test_which_accounts_a_policy_names() -> None:
    """A policy with a directory asks it, and not a file that isn't there."""
    directory = Directory(url="ldap://127.0.0.1:1", base="ou=people,dc=example,dc=org")
    with pytest.raises(AccountsError, match=r"ldap://127\.0\.0\.1:1"):
        accounts_of(ProxyAuth(ldap=directory)).identify(ALICE)
