"""The form of the warning page: what its token is good for, and where it leads."""

import pytest
from whenever import Instant

from tokgate.block_page.continue_form import PATH, Button, presses_button, read_form, target_of
from tokgate.traffic.warning_state import Person

NOW = Instant.from_utc(2023, 4, 1, 12)
BUTTON = Button(Person("192.0.2.7"), "ban", "www.example.org", "/a?b=c")
KEY = bytes(32)


def test_a_token_holds_for_its_hour() -> None:
    """From when it was made, up to but not including an hour later."""
    token = BUTTON.token(KEY, NOW)

    assert BUTTON.made(token, KEY, NOW)
    assert BUTTON.made(token, KEY, NOW.add(hours=1).subtract(seconds=1))
    assert not BUTTON.made(token, KEY, NOW.add(hours=1))
    assert not BUTTON.made(token, KEY, NOW.subtract(seconds=1))  # made in what is now the future


@pytest.mark.parametrize(
    "other",
    [
        Button(Person("192.0.2.8"), "ban", "www.example.org", "/a?b=c"),
        Button(Person("192.0.2.7", "alice"), "ban", "www.example.org", "/a?b=c"),
        Button(Person("192.0.2.7"), "another", "www.example.org", "/a?b=c"),
        Button(Person("192.0.2.7"), "ban", "evil.example", "/a?b=c"),
        Button(Person("192.0.2.7"), "ban", "www.example.org", "/"),
        Button(Person("192.0.2.7"), "ban\0www.example.org", "", "/a?b=c"),
    ],
)
def test_a_token_is_for_one_client_ban_name_and_target(other: Button) -> None:
    assert not other.made(BUTTON.token(KEY, NOW), KEY, NOW)


def test_a_token_can_not_be_forged() -> None:
    """Not with another key, not by moving its end, not by cutting or adding."""
    token = BUTTON.token(KEY, NOW)
    end, _, digest = token.partition("-")
    forged = [f"{int(end) + 1}-{digest}", f"{end}-{'0' * 64}", token[:-1], token + "0", f" {token}", digest, "", "-"]
    forged.append(f"{end}-{digest.upper()}" if digest.upper() != digest else "")

    assert not BUTTON.made(token, bytes(31) + b"\1", NOW)
    assert [each for each in forged if BUTTON.made(each, KEY, NOW)] == []


@pytest.mark.parametrize(
    ("body", "token", "target"),
    [
        (b"token=t&target=%2Fa%3Fb%3Dc", "t", "/a?b=c"),
        (b"token=t&target=%2F%2Fevil.example", "t", "//evil.example"),
        (b"token=t&target=https%3A%2F%2Fevil.example", "t", "/"),
        (b"token=t&target=%2Fa%0D%0ASet-Cookie%3A+x", "t", "/"),
        (b"token=t&target=%2F%C3%A9", "t", "/"),
        (b"token=t&target=%2F" + b"a" * 9000, "t", "/"),
        (b"token=a&token=b", "a", "/"),
        (b"a&b=1&c=2&d=3&e=4&f=5&g=6", "", "/"),
        (b"\xff", "", "/"),
        (b"", "", "/"),
        (None, "", "/"),
    ],
)
def test_forms(body: bytes | None, token: str, target: str) -> None:
    """A target is a path of this origin in plain characters; all else is the root."""
    assert read_form(body) == (token, target)


@pytest.mark.parametrize(
    ("method", "path", "pressed", "target"),
    [
        ("POST", PATH, True, "/"),
        ("GET", PATH, False, "/"),
        ("GET", f"{PATH}?token=x", False, "/"),
        ("POST", f"{PATH}/x", False, f"{PATH}/x"),
        ("POST", f"{PATH}?x", False, "/"),
        ("GET", "/a?b=c", False, "/a?b=c"),
        ("OPTIONS", "*", False, "/"),
    ],
)
def test_the_buttons_address(method: str, path: str, pressed: bool, target: str) -> None:
    """Only a POST to exactly that path; a page asked for there leads on to the root."""
    assert presses_button(method, path) is pressed
    assert target_of(path) == target
