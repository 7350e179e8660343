"""Passwords in htpasswd files: right ones are known, and time tells nothing about which users there are."""

from pathlib import Path

import bcrypt
import pytest

from tokgate.accounts import AccountsError, UnusablePasswordError
from tokgate.accounts.htpasswd import MOST_NAMED, FileAccounts, Htpasswd, read_groups, read_passwords

COST = 5
ALICE = "$2b$05$Nv4Zmy3i8/jB/BS.zGyimOOn9O3alhAhsQ/6FIeFfcZc7zjx4VTtW"
"""`secret`: made once, so that tests have the same names in all processes."""
LONGEST = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(COST)).decode()


@pytest.mark.parametrize(
    ("content", "user"),
    [
        *((f"bob:$apr1$x$y\nalice:{ALICE}", user) for user in ("alice", "nobody")),
        *((content, "nobody") for content in ("", "bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")),
    ],
)
def test_an_unknown_user_takes_as_long_as_a_wrong_password(
    content: str, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hash is compared, at the cost of the file's own, also where it has none: time does not say whom there is."""
    compared: list[tuple[int, bool]] = []
    compare = bcrypt.checkpw

    def note(password: bytes, hashed: bytes) -> bool:
        compared.append((int(hashed.split(b"$")[2]), compare(password, hashed)))
        return compared[-1][1]

    monkeypatch.setattr(bcrypt, "checkpw", note)
    assert not read_passwords(content).match(user, "wrong")
    ((cost, same),) = compared
    assert not same
    assert cost == COST or ALICE not in content


@pytest.mark.parametrize("user", ["nobody", ""])
@pytest.mark.parametrize(
    "content", ["", "bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", f"alice:{ALICE}"], ids=["empty", "unusable", "bcrypt"]
)
def test_no_password_is_that_of_an_unknown_user(content: str, user: str) -> None:
    """Not even the empty one, nor another user's."""
    passwords = read_passwords(content)
    assert not any(passwords.match(user, password) for password in ("", "secret"))


@pytest.mark.parametrize(
    ("password", "same"),
    [("x" * 72, True), ("x" * 71, False), ("x" * 73, False), ("x" * 71 + "y", False), ("x\0" + "x" * 70, False)],
)
def test_bcrypt_reads_72_octets(password: str, same: bool) -> None:
    """A longer password that begins alike is another."""
    assert read_passwords(f"alice:{LONGEST}").match("alice", password) is same


def test_a_hash_that_can_not_be_checked_replaces_none(tmp_path: Path) -> None:
    """Of two lines for one user the one counts that can be checked; a user with none is told apart."""
    path = tmp_path / "users"
    path.write_text(f"alice:{ALICE}\nalice:$apr1$x$y\nbob:$apr1$x$y\n")
    users = Htpasswd(path)
    assert users.knows("alice", "secret")
    with pytest.raises(UnusablePasswordError, match="`bob`"):
        users.knows("bob", "secret")


def test_a_user_who_was_taken_out(tmp_path: Path) -> None:
    """Has no say from then on; a file that is gone is an error and lets nobody in."""
    path = tmp_path / "users"
    path.write_text(f"alice:{ALICE}\n")
    users = Htpasswd(path)
    assert (users.has("alice"), users.has("bob")) == (True, False)
    path.write_text("")
    assert not users.has("alice")
    path.unlink()
    with pytest.raises(AccountsError, match="users"):
        users.has("alice")


@pytest.mark.parametrize(("text", "number"), [("press alice", 1), ("# groups\n\npress: alice\nstaff bob\n", 4)])
def test_groups_that_are_none(text: str, number: int) -> None:
    """An admin who forgot a colon is told in which line: else a whole group would be under no ban."""
    with pytest.raises(ValueError, match=f"^{number}: not `group"):
        read_groups(text)


def test_each_user_has_a_password_of_their_own() -> None:
    """A user who isn't the file's first signs in with their own password, and with nobody else's."""
    bob = bcrypt.hashpw(b"of bob", bcrypt.gensalt(COST)).decode()
    passwords = read_passwords(f"alice:{ALICE}\nbob:{bob}\n")
    assert passwords.match("bob", "of bob")
    assert not passwords.match("bob", "secret")


def test_a_hash_of_an_impossible_cost_lets_nobody_in() -> None:
    """bcrypt refuses such a hash: no password is that user's, instead of any."""
    assert not read_passwords("alice:$2b$99$" + "a" * 53).match("alice", "secret")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("alice", "^1: not `user:password`"),
        (f"# users\n\nalice:{ALICE}\n:{ALICE}\n", "^4: not `user:password`"),
    ],
)
def test_users_that_are_none(text: str, complaint: str) -> None:
    """An admin who lost a name or a colon is told in which line: else somebody could not sign in, or as nobody."""
    with pytest.raises(ValueError, match=complaint):
        read_passwords(text)


@pytest.mark.parametrize(("number", "end"), [(MOST_NAMED, "user09"), (MOST_NAMED + 2, "user09 and 2 more")])
def test_very_many_missing_users(tmp_path: Path, number: int, end: str) -> None:
    """A complaint names the first and counts the rest: no more, and no fewer, than are missing."""
    path = tmp_path / "users"
    path.write_text(f"alice:{ALICE}\n")
    (told,) = FileAccounts(path, None).lacks([f"user{index:02}" for index in range(number)], [])
    assert told.startswith("no such user: user00, user01")
    assert told.endswith(f"{end}")
