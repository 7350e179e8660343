"""Ways in that must stay shut, and what must not grow: sessions, failures, forms."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from labs.builders import present
from labs.records import Monotonic
from labs.review_page import BASE, OpenPage, Page, passwords
from tokgate.accounts.htpasswd import Htpasswd
from tokgate.webui.auth import (
    FAILURE_SECONDS,
    IDLE,
    LIFETIME,
    MAX_FAILURES,
    MAX_FAILURES_OF_ADDRESS,
    MAX_SESSIONS,
    Authenticator,
    LinkAuthenticator,
    PasswordAuthenticator,
    Sessions,
)

RIGHT = {"user": "alice", "password": "correct horse"}
ORIGIN = {"Origin": BASE}


def follows(authenticator: Authenticator, token: str | None) -> bool:
    """Whether a live page that is left open goes on."""
    return authenticator.viewer("192.0.2.1", Headers(), token, awake=False) is not None


@pytest.fixture
def clock() -> Monotonic:
    return Monotonic()


@pytest.fixture
def authenticator(users: Path, clock: Monotonic) -> PasswordAuthenticator:
    return PasswordAuthenticator(Sessions(clock), Htpasswd(users), clock)


@pytest.fixture
def password_page(open_page: OpenPage, users: Path) -> Iterator[Page]:
    with open_page(authenticator=passwords(users)) as page:
        yield page


def test_an_empty_token_opens_nothing_once_the_link_is_used(page: Page) -> None:
    """After the link has been opened no token is expected; whoever sends none gets no session."""
    page.client.cookies.clear()
    for url in ("/enter?token=", "/enter"):
        assert page.client.get(url).status_code == 403
        assert page.get("/").status_code == 303


def test_who_reads_stays_signed_in_and_who_only_follows_does_not(
    authenticator: PasswordAuthenticator, clock: Monotonic
) -> None:
    """A session lasts while pages are asked for, and ends though a live page is left open."""
    token = authenticator.sign_in("192.0.2.1", **RIGHT)
    for _ in range(2):
        clock.now += IDLE - 1
        assert authenticator.viewer("192.0.2.1", Headers(), token) == "alice"
    clock.now += IDLE - 1
    assert follows(authenticator, token)
    clock.now += 2
    assert not follows(authenticator, token)


def test_who_is_no_user_any_more_follows_no_more(authenticator: PasswordAuthenticator, users: Path) -> None:
    """Taken out of the file, an analyst doesn't see another line on the page that is still open."""
    token = authenticator.sign_in("192.0.2.1", **RIGHT)
    assert follows(authenticator, token)
    kept = [line for line in users.read_text().splitlines(keepends=True) if not line.startswith("alice:")]
    users.write_text("".join(kept))
    assert not follows(authenticator, token)


def test_an_own_account_is_no_way_to_guess_on(authenticator: PasswordAuthenticator) -> None:
    """Who signs in with a right password between guesses at other names is slowed down for these as before."""
    for number in range(MAX_FAILURES_OF_ADDRESS):
        assert authenticator.sign_in("192.0.2.1", f"user{number}", "wrong") is None
    assert authenticator.sign_in("192.0.2.1", **RIGHT) is not None
    assert authenticator.is_slowed("192.0.2.1", "bob")
    assert not authenticator.is_slowed("192.0.2.2", "bob")


def test_a_right_password_wipes_the_slate_clean(authenticator: PasswordAuthenticator, clock: Monotonic) -> None:
    """Whoever mistypes now and then over a morning isn't locked out by mistakes from before they signed in."""
    for _ in range(2):
        for _ in range(MAX_FAILURES - 1):
            assert authenticator.sign_in("192.0.2.1", "alice", "wrong") is None
            clock.now += FAILURE_SECONDS / (4 * MAX_FAILURES)
        assert not authenticator.is_slowed("192.0.2.1", "alice")
        assert authenticator.sign_in("192.0.2.1", **RIGHT) is not None


def test_failures_of_many_fill_no_memory(authenticator: PasswordAuthenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the latest are remembered: an old failure gives way, and what was tried last still counts."""
    monkeypatch.setattr("tokgate.webui.auth._MAX_REMEMBERED", 4)
    monkeypatch.setattr(Htpasswd, "knows", lambda users, user, password: False)
    for _ in range(MAX_FAILURES):
        authenticator.sign_in("192.0.2.1", "alice", "wrong")
    assert authenticator.is_slowed("192.0.2.1", "alice")
    for number in range(4):
        authenticator.sign_in(f"192.0.2.{10 + number}", "alice", "wrong")
    assert not authenticator.is_slowed("192.0.2.1", "alice")
    for _ in range(MAX_FAILURES - 1):
        authenticator.sign_in("192.0.2.13", "alice", "wrong")
    assert authenticator.is_slowed("192.0.2.13", "alice")


def test_who_goes_on_guessing_is_forgotten_last(
    authenticator: PasswordAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures elsewhere push out those of whoever has stopped, and not the first that ever failed."""
    monkeypatch.setattr("tokgate.webui.auth._MAX_REMEMBERED", 4)
    monkeypatch.setattr(Htpasswd, "knows", lambda users, user, password: False)
    for host in (*[1] * (MAX_FAILURES - 1), 2, 1, 3):
        authenticator.sign_in(f"192.0.2.{host}", "alice", "wrong")
    assert authenticator.is_slowed("192.0.2.1", "alice")


def test_old_failures_fill_no_memory(authenticator: PasswordAuthenticator, clock: Monotonic) -> None:
    """Who guesses for days, slowly, is remembered by the last minutes alone."""
    for _ in range(3):
        authenticator.sign_in("192.0.2.1", "alice", "wrong")
        clock.now += FAILURE_SECONDS / 2
        authenticator.is_slowed("192.0.2.1", "alice")
    assert [len(times) for times in authenticator._failures.values()] == [1, 1]
    clock.now += FAILURE_SECONDS
    assert not authenticator.is_slowed("192.0.2.1", "alice")
    assert not authenticator._failures


def test_where_strangers_sign_in(password_page: Page, page: Page) -> None:
    """With passwords they are led to the form; where a link opens the page, the form opens nothing."""
    answer = password_page.client.get("/lines", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Flines")
    assert page.client.post("/sign-in", data=RIGHT, headers=ORIGIN).status_code == 400


def test_a_form_without_an_end_is_not_read(password_page: Page) -> None:
    """The sign-in form is a name and a password; nobody fills the server's memory through it."""
    for size, status in ((8000, 303), (9000, 400)):
        body = f"user=alice&password=correct+horse&next=%2F&more={'x' * size}"
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        assert password_page.client.post("/sign-in", content=body, headers=ORIGIN | kind).status_code == status


def test_sessions_are_bounded(clock: Monotonic) -> None:
    """Signing in again and again takes no more memory: the session that was longest unused ends for a new one."""
    sessions = Sessions(clock)
    first, second = sessions.begin("alice"), sessions.begin("bob")
    for _ in range(MAX_SESSIONS - 2):
        sessions.begin("carol")
    clock.now += 1
    assert sessions.user(first) == "alice"
    sessions.begin("dave")
    assert len(sessions) == MAX_SESSIONS
    assert sessions.user(first) == "alice"
    assert sessions.user(second) is None


def test_what_has_ended_makes_room_first(clock: Monotonic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is over ends for a new one, and not one that was used less and still lasts."""
    monkeypatch.setattr("tokgate.webui.auth.MAX_SESSIONS", 2)
    sessions = Sessions(clock)
    old = sessions.begin("alice")
    for _ in range(11):
        clock.now += LIFETIME / 12
        assert sessions.user(old) == "alice"
    quiet = sessions.begin("bob")
    clock.now += LIFETIME / 12
    assert sessions.user(old) == "alice"
    clock.now += 1
    sessions.begin("carol")
    assert (sessions.user(quiet), sessions.user(old)) == ("bob", None)


def test_an_unused_link_stays(clock: Monotonic) -> None:
    """Signing out with some cookie makes no other link while nobody has used the one that was told."""
    told: list[str] = []
    authenticator = LinkAuthenticator(Sessions(clock), "alice", told.append)
    authenticator.leave("anything")
    assert len(told) == 1
    session = present(authenticator.open(told[0]))
    authenticator.renew()
    assert len(told) == 1
    authenticator.leave(session)
    assert len(told) == 2


def test_a_session_that_ended_by_itself_leaves_a_new_link(clock: Monotonic) -> None:
    """Otherwise whoever comes back from lunch would have to start the page again."""
    told: list[str] = []
    authenticator = LinkAuthenticator(Sessions(clock), "alice", told.append)
    assert authenticator.open(told[0]) is not None
    clock.now += IDLE + 1
    authenticator.renew()
    assert len(told) == 2
