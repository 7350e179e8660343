"""Pseudonyms: they change with the period, and only who holds both halves of the secret can tell who was meant."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs.samples import NOON
from tokgate.blocklog.integrity.checkpoint import KeyUnusable
from tokgate.blocklog.records.record import WITHHELD
from tokgate.blocklog.write.pseudonyms import (
    NotAHalf,
    Pseudonyms,
    Secret,
    join,
    period_of,
    read_secret,
    reidentify,
    split,
    write_secret,
)

SECRET = Secret(30, 600, bytes(range(32)))


def test_pseudonyms_change_with_the_period() -> None:
    """The same within one, another in the next, another for another client and another secret."""
    later = SECRET.at(601)
    names = {
        SECRET.pseudonym("192.0.2.7"),
        SECRET.pseudonym("192.0.2.8"),
        later.pseudonym("192.0.2.7"),
        Secret(30, 600, bytes(32)).pseudonym("192.0.2.7"),
    }
    assert len(names) == 4
    assert SECRET.pseudonym("192.0.2.7") in names
    assert SECRET.at(603) == later.at(603)
    with pytest.raises(ValueError, match="before this secret"):
        later.at(600)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 400), st.integers(0, 10_000))
def test_two_halves_make_the_whole(state: bytes, days: int, period: int) -> None:
    """Any secret comes back from its halves, in either order; neither half holds it."""
    secret = Secret(days, period, state)
    first, second = split(secret)
    assert join(first, second) == join(second, first) == secret
    assert state.hex() not in first + second


@pytest.mark.parametrize("other", ["", "tokgate-half 30 600 00 00", "half", split(SECRET)[0]])
def test_other_halves_are_refused(other: str) -> None:
    """A half of something else never gives wrong names."""
    with pytest.raises(NotAHalf):
        join(split(SECRET)[0], other)


def test_halves_of_something_else_are_refused() -> None:
    """Also where all but the first word fits: another format may derive its keys in another way."""
    first, second = split(SECRET)
    with pytest.raises(NotAHalf, match="not the two halves"):
        join(first, second.replace("tokgate-half", "tokgate-half-2"))


def test_reidentify() -> None:
    """Pseudonyms of several periods, with the addresses that are theirs; others are not told."""
    known = {SECRET.at(600).pseudonym("192.0.2.7"), SECRET.at(612).pseudonym("2001:db8::1")}
    among = ["192.0.2.6", "192.0.2.7", "2001:db8::1"]
    assert {address for _, address in reidentify(SECRET, known, among)} == {"192.0.2.7", "2001:db8::1"}
    assert list(reidentify(SECRET, [SECRET.pseudonym("192.0.2.9")], among)) == []
    with pytest.raises(ValueError, match="no pseudonym"):
        list(reidentify(SECRET, ["192.0.2.7"], among))


def test_the_secret_moves_on_and_is_overwritten(tmp_path: Path) -> None:
    """What lies on the machine gives no earlier period back; a clock that goes back keeps the later name."""
    path, moments, troubles = tmp_path / "block.pseudonyms", [NOON], list[Exception]()
    name = Pseudonyms(path, 7, lambda: moments[-1], troubles.append)
    first = name("192.0.2.7")
    before = read_secret(path)
    assert (before.period, path.stat().st_mode & 0o777) == (period_of(NOON, 7), 0o600)
    written = path.stat().st_ino
    assert name("192.0.2.7") == first
    assert path.stat().st_ino == written  # not replaced for each record
    moments.append(NOON.add(hours=24 * 7))
    assert name("192.0.2.7") != first
    assert read_secret(path) == before.at(before.period + 1)
    moments.append(NOON.add(hours=24 * 21))
    second = name("192.0.2.7")
    after = read_secret(path)
    assert (after, first != second) == (before.at(before.period + 3), True)
    moments.append(NOON)
    assert name("192.0.2.7") == second
    assert Pseudonyms(path, 30, lambda: moments[-1], troubles.append)("192.0.2.7") == second
    assert not troubles


@pytest.mark.parametrize(
    "content",
    [
        *("{}", "[]", "no json", "", "é", '{"days": 30, "period": 600, "state": "xy"}'),
        '{"days": null, "period": 600, "state": "00"}',
    ],
)
def test_without_a_key_clients_are_withheld(tmp_path: Path, content: str) -> None:
    """Never their addresses."""
    troubles: list[Exception] = []
    path = tmp_path / "block.pseudonyms"
    path.write_text(content)
    path.chmod(0o600)
    name = Pseudonyms(path, 30, Instant.now, troubles.append)
    assert name("192.0.2.7") == WITHHELD
    write_secret(path, SECRET)
    path.chmod(0o640)  # whoever can read it can tell who each pseudonym is
    assert name("192.0.2.7") == WITHHELD
    assert [type(trouble) for trouble in troubles] == [KeyUnusable, KeyUnusable]
