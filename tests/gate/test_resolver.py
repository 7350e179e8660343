"""Names to addresses: fair to all clients, and no answer lost."""

import select
import threading
from collections.abc import Iterator

import pytest

from tokgate.gate.resolver import MOST_QUEUED, SHARE, Addresses, Resolver


@pytest.fixture
def answers() -> threading.Event:
    """When this is set, the name servers answer."""
    return threading.Event()


@pytest.fixture
def resolver(answers: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """A resolver that knows `localhost` at once, and all else when there are answers."""

    def look_up(host: str) -> Addresses:
        if host != "localhost":
            answers.wait(10)
        return (host,)

    monkeypatch.setattr("tokgate.gate.resolver._addresses", look_up)
    resolver = Resolver()
    yield resolver
    answers.set()
    resolver.close()


def deliver(resolver: Resolver, heard: list[str], count: int) -> None:
    """Take answers until so many were heard."""
    while len(heard) < count:
        assert select.select([resolver.descriptor], [], [], 10)[0]
        resolver.deliver()


def test_a_client_with_slow_names_holds_up_itself_only(resolver: Resolver, answers: threading.Event) -> None:
    """Others are answered meanwhile, and in the end so are all of its names, in their order."""
    slow: list[str] = []
    quick: list[str] = []
    for number in range(SHARE * 3):
        resolver.ask("192.0.2.1", f"{number}.example", lambda found: slow.extend(found))
    for number in range(SHARE * 2):
        resolver.ask(f"192.0.2.{number + 2}", "localhost", lambda found: quick.extend(found))
    deliver(resolver, quick, SHARE * 2)
    assert slow == []
    answers.set()
    deliver(resolver, slow, SHARE * 3)
    assert sorted(slow) == sorted(f"{number}.example" for number in range(SHARE * 3))
    assert resolver.waiting == 0
    assert not resolver._asking
    assert not resolver._queued


def test_too_many_names_are_not_found(resolver: Resolver) -> None:
    """What one client may have waiting is bounded."""
    heard: list[Addresses] = []
    for number in range(SHARE + MOST_QUEUED + 1):
        resolver.ask("192.0.2.1", f"{number}.example", heard.append)
    assert heard == [()]


def test_a_failing_answer_costs_no_other(resolver: Resolver, answers: threading.Event) -> None:
    """Those who come after are told the next time."""
    heard: list[str] = []

    def fail(found: Addresses) -> None:
        raise RuntimeError(f"{found}")

    resolver.ask("192.0.2.1", "a.example", fail)
    resolver.ask("192.0.2.1", "b.example", lambda found: heard.extend(found))
    answers.set()
    with pytest.raises(RuntimeError, match=r"a\.example"):
        deliver(resolver, heard, 2)
    deliver(resolver, heard, 1)
    assert heard == ["b.example"]
