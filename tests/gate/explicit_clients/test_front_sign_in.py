"""Who an explicit client is, step by step: what it is asked, and what it is told."""

import pytest

from labs.front_steps import BASIC, CONNECT, SOCKS, TUNNEL, Client
from labs.waiting import DEADLINE, readable
from tokgate.accounts.auth_cache import AuthResult
from tokgate.gate.connection import CLOSED
from tokgate.gate.explicit_clients import proxy_auth
from tokgate.policy.membership import Identity
from tokgate.traffic import refusal_texts
from tokgate.wire import socks5
from tokgate.wire.proxy_request import ACCEPTED, REJECTED

PASSWORD = b"\1\3ada\6secret"


@pytest.mark.parametrize("step", [1, 1000])
def test_a_socks_client_signs_in(client: Client, step: int) -> None:
    """It is asked once, told once that it is known, and then served as others are."""
    client.signs_in()
    client.loop.knows = AuthResult(Identity("ada"))
    said = b"\5\1\2" + PASSWORD + SOCKS[3:]
    done = client.says(*(said[at : at + step] for at in range(0, len(said), step)))
    assert [each for each in done if each != "wait"] == [socks5.PASSWORD_CHOSEN, ACCEPTED, *TUNNEL]
    assert client.connection.person == Identity("ada")
    assert client.connection.received == b""


def test_a_socks_client_that_has_only_signed_in(client: Client) -> None:
    """Its request is waited for; once it has gone, it is not."""
    client.signs_in()
    client.loop.knows = AuthResult(Identity("ada"))
    assert client.says(b"\5\1\2" + PASSWORD) == [socks5.PASSWORD_CHOSEN, ACCEPTED, "wait"]


@pytest.mark.parametrize(("said", "done"), [(b"\5\1\2", [socks5.PASSWORD_CHOSEN]), (PASSWORD, [ACCEPTED])])
def test_a_socks_client_that_has_gone(client: Client, said: bytes, done: list[bytes]) -> None:
    """Nothing is done for it any more."""
    client.signs_in()
    client.loop.knows = AuthResult(Identity("ada"))
    if said is PASSWORD:
        client.says(b"\5\1\2")
        client.loop.done.clear()
        said += SOCKS[3:]
    client.loop.hears = False
    assert client.says(said) == done


@pytest.mark.parametrize(
    ("said", "words"), [(b"\5\1\0", socks5.NO_METHOD), (b"\5\1\2\5", REJECTED), (b"\5\1\2\1\1\xff\1x", REJECTED)]
)
def test_a_socks_client_that_does_not_sign_in(client: Client, said: bytes, words: bytes) -> None:
    """It is told so, and gets no tunnel."""
    client.signs_in()
    assert client.says(said)[-1] == ("refuse", words)


@pytest.mark.parametrize(
    ("result", "words", "wrong"),
    [
        (AuthResult(None), refusal_texts.SIGN_IN, 1),
        (AuthResult(None, unavailable=True), refusal_texts.UNAVAILABLE, 0),
        (AuthResult(None, unavailable=True, complaint=OSError("gone")), refusal_texts.UNAVAILABLE, 0),
    ],
)
def test_who_is_not_known(client: Client, result: AuthResult, words: bytes, wrong: int) -> None:
    """A wrong password is counted as such; accounts that can't be asked are none of the client's making, and told."""
    client.signs_in()
    client.loop.knows = result
    assert client.says(BASIC) == [("refuse", words)]
    assert client.enforcer.counters.wrong_passwords == wrong
    assert client.enforcer.counters.errors["proxy-auth"] == (result.complaint is not None)


def test_who_says_nothing_of_who_it_is(client: Client) -> None:
    """A browser asks only when it is asked: that is no wrong password."""
    client.signs_in()
    assert client.says(CONNECT) == [("refuse", refusal_texts.SIGN_IN)]
    assert client.enforcer.counters.wrong_passwords == 0


@pytest.mark.parametrize("stays", [True, False])
def test_a_password_is_checked_beside(client: Client, stays: bool) -> None:
    """Its client alone waits, and is then served, if it is still there."""
    client.signs_in()
    assert client.says(BASIC) == [("suspend", 10.0)]
    if not stays:
        client.connection.state = CLOSED
    checks = client.front._sign_in._checks
    assert checks is not None
    assert readable(checks.descriptor, DEADLINE)
    checks.deliver()
    assert client.loop.done[1:] == ([("listen", 0.0), *TUNNEL] if stays else [])


def test_too_many_passwords_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes then is told to come again, and no queue grows without end."""
    monkeypatch.setattr(proxy_auth, "MOST_WAITING", 1)
    client.signs_in()
    for done in ([("suspend", 10.0)], [("refuse", refusal_texts.UNAVAILABLE)]):
        client.connection.state, client.connection.received = client.front.request, b""
        client.loop.done.clear()
        assert client.says(BASIC) == done


@pytest.mark.parametrize(("said", "done"), [(b"\5", []), (b"\5\1\2", [socks5.PASSWORD_CHOSEN])])
def test_a_socks_client_that_has_not_said_all(client: Client, said: bytes, done: list[bytes]) -> None:
    """It is asked once it has said what it can, and then waited for."""
    client.signs_in()
    assert client.says(said) == [*done, "wait"]
