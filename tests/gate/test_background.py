"""Names to addresses: fair to all clients, and no answer lost."""

import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Sized
from functools import partial

import pytest

from labs.waiting import DEADLINE, readable
from tokgate.gate.background import MOST_ADDRESSES, Addresses, BackgroundCalls, Resolver, addresses_of
from tokgate.traffic.counters import DnsError
from tokgate.traffic.limits import ResolverLimits

LIMITS = ResolverLimits(lookups=128, per_client=8, queued_per_client=40, failures=2)
SHARE, MOST_QUEUED = LIMITS.per_client, LIMITS.queued_per_client


@pytest.fixture
def answers() -> threading.Event:
    """When this is set, the name servers answer."""
    return threading.Event()


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def resolver(answers: threading.Event, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """A resolver that knows `localhost` at once, and all else when there are answers."""

    def look_up(host: str) -> Addresses:
        if host != "localhost":
            answers.wait(DEADLINE)
        return () if host.startswith("gone") else (host,)

    monkeypatch.setattr("tokgate.gate.background.addresses_of", look_up)
    resolver = Resolver(LIMITS, monotonic=lambda: clock[0])
    yield resolver
    answers.set()
    resolver.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no name"), DnsError.NOT_FOUND),
        (socket.gaierror(socket.EAI_AGAIN, "nobody answers"), DnsError.UNANSWERED),
        (socket.gaierror(socket.EAI_FAMILY, "no family"), DnsError.OTHER),
        (OSError("no descriptor"), DnsError.OTHER),
        (UnicodeError("label too long"), DnsError.OTHER),
    ],
    ids=repr,
)
def test_why_there_are_no_addresses(error: Exception, said: DnsError, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics tell a name that nobody has from name servers that are down."""

    def fails(*_args: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    assert addresses_of("www.example.org") is said


def test_addresses_once_each_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a thousand addresses is not tried a thousand times."""
    found = [f"192.0.2.{number // 2}" for number in range(100)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: [(0, 0, 0, "", (each, 0)) for each in found])
    assert addresses_of("www.example.org") == tuple(f"192.0.2.{number}" for number in range(MOST_ADDRESSES))


def deliver(resolver: Resolver, heard: Sized, count: int) -> None:
    """Take answers until so many were heard."""
    while len(heard) < count:
        assert readable(resolver.descriptor, DEADLINE)
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
    assert (resolver.waiting, resolver._free) == (0, LIMITS.lookups)
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

    for answer in (fail, heard.extend):  # one lookup: the answers come together
        resolver.ask("192.0.2.1", "a.example", answer)
    answers.set()
    with pytest.raises(RuntimeError, match=r"a\.example"):
        deliver(resolver, heard, 2)
    deliver(resolver, heard, 1)
    assert heard == ["a.example"]


def test_many_clients_with_slow_names_leave_lookups_for_others(resolver: Resolver) -> None:
    """The fewer lookups are left, the fewer a client gets: slow names don't stop everybody's CONNECT."""
    for number in range(LIMITS.lookups * 4):
        resolver.ask(f"192.0.2.{number % 32}", f"{number}.example", lambda found: None)
    quick: list[str] = []
    resolver.ask("198.51.100.1", "localhost", quick.extend)
    deliver(resolver, quick, 1)
    assert quick == ["localhost"]


@pytest.mark.parametrize(("lookups", "shares"), [(1, (1, 0)), (8, (1, 1)), (17, (2, 1))])
def test_a_share_of_what_is_left(answers: threading.Event, lookups: int, shares: tuple[int, int]) -> None:
    """It is an eighth, and one at least; there are no more lookups than threads to make them."""
    resolver = Resolver(ResolverLimits(lookups=lookups))
    resolver.run = lambda *_: None  # type: ignore[method-assign]
    for client in ("192.0.2.1", "192.0.2.2"):
        for number in range(3):
            resolver.ask(client, f"{number}.{client}.example", lambda found: None)
    assert (resolver._asking["192.0.2.1"], resolver._asking["192.0.2.2"]) == shares
    resolver.close()


def test_an_ipv6_subnet_has_one_share(resolver: Resolver) -> None:
    """A host that asks from each of its IPv6 addresses would have as many shares."""
    for number in range(SHARE + 1):
        resolver.ask(f"2001:db8::{number:x}", f"{number}.example", lambda found: None)
    assert dict(resolver._asking) == {"2001:db8::/64": SHARE}


def test_waiting_clients_have_turns(answers: threading.Event, resolver: Resolver) -> None:
    """Who has one name to ask isn't served after all of somebody's hundreds."""
    order: list[str] = []
    for number in range(LIMITS.lookups):  # every lookup is taken by somebody
        resolver.ask(f"203.0.113.{number}", f"{number}.example", lambda found: None)
    for number in range(20):
        resolver.ask("192.0.2.1", f"slow-{number}.example", order.extend)
    resolver.ask("192.0.2.2", "only.example", order.extend)
    begun: list[str] = []
    look_up = resolver._look_up
    resolver._look_up = lambda who, host, answer: (begun.append(host), look_up(who, host, answer))  # type: ignore[method-assign, assignment, func-returns-value]
    answers.set()
    deliver(resolver, order, 21)
    assert begun.index("only.example") <= 1


def test_a_name_is_resolved_once_for_all_who_wait(resolver: Resolver, answers: threading.Event) -> None:
    """A page that a whole office opens doesn't take a lookup for each of them."""
    heard: list[str] = []
    for number in range(LIMITS.lookups * 2):
        resolver.ask(f"192.0.2.{number % 4}", "www.example", heard.extend)
    assert resolver._asking.total() == 1
    answers.set()
    deliver(resolver, heard, LIMITS.lookups * 2)
    assert resolver.waiting == 0


def test_a_name_that_was_not_found_is_not_asked_for_again_at_once(
    resolver: Resolver, answers: threading.Event, clock: list[float]
) -> None:
    """A client in a loop doesn't keep name servers busy; after some seconds the name may be there."""
    answers.set()
    heard: list[Addresses] = []
    resolver.ask("192.0.2.1", "gone.example", heard.append)
    deliver(resolver, heard, 1)
    resolver.ask("192.0.2.1", "gone.example", heard.append)
    assert heard == [(), ()]
    clock[0] += LIMITS.failure_kept
    resolver.ask("192.0.2.1", "gone.example", heard.append)
    assert resolver._asking.total() == 1


def test_a_name_that_fails_again_is_remembered_anew(
    resolver: Resolver, answers: threading.Event, clock: list[float]
) -> None:
    """Where there is no room for all, those that failed longest ago are asked for again first."""
    answers.set()
    heard: list[Addresses] = []
    for number, host in enumerate(("gone-1.example", "gone-2.example", "gone-1.example", "gone-3.example"), 1):
        resolver.ask("192.0.2.1", host, heard.append)
        deliver(resolver, heard, number)
        clock[0] += LIMITS.failure_kept
    assert list(resolver._failed) == ["gone-1.example", "gone-3.example"]


def test_why_a_name_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are counted by their cause, and found names are none."""
    told: list[DnsError] = []
    heard: list[Addresses] = []
    found = {"a": ("192.0.2.1",), "b": DnsError.UNANSWERED}
    monkeypatch.setattr("tokgate.gate.background.addresses_of", found.get)
    resolver = Resolver(failed=told.append)
    for number, host in enumerate(("a", "b"), 1):
        resolver.ask("192.0.2.1", host, heard.append)
        deliver(resolver, heard, number)
    resolver.close()
    assert (heard, told) == ([("192.0.2.1",), ()], [DnsError.UNANSWERED])


def test_who_asks_for_what_is_being_resolved_has_no_turn_to_wait_for(
    resolver: Resolver, answers: threading.Event
) -> None:
    """It costs no lookup, so that a client with slow names gets it with the others."""
    heard: list[str] = []
    resolver.ask("192.0.2.2", "www.example", heard.extend)
    for number in range(SHARE):
        resolver.ask("192.0.2.1", f"{number}.example", lambda found: None)
    resolver.ask("192.0.2.1", "www.example", heard.extend)
    assert dict(resolver._queued) == {}
    answers.set()
    deliver(resolver, heard, 2)
    assert heard == ["www.example"] * 2


def test_answers_that_were_taken_are_told_no_more(resolver: Resolver, answers: threading.Event) -> None:
    """A loop that is told of nothing runs idle, and not in circles."""
    heard: list[str] = []
    answers.set()
    assert not readable(resolver.descriptor, 0)
    resolver.ask("192.0.2.1", "www.example", heard.extend)
    deliver(resolver, heard, 1)
    assert not readable(resolver.descriptor, 0)
    assert not os.get_blocking(resolver.descriptor), "no gate waits where nothing has come"
    assert not os.get_inheritable(resolver.descriptor)


def test_what_is_closed_leaves_nothing_behind() -> None:
    """A gate that ends waits for no work that has not begun, and no thread writes to a descriptor that is another's."""
    calls, begun, dropped, closed = BackgroundCalls(1), threading.Event(), threading.Event(), threading.Event()
    done: list[str] = []

    def first() -> None:
        begun.set()
        dropped.wait(DEADLINE)
        closed.wait(0.05)  # longer than a `close` that does not wait
        done.append("first")

    waiting = [partial(done.append, "second"), partial(done.append, "third")]  # the pool holds on to the last one
    weakref.finalize(waiting[0], dropped.set)
    works: list[Callable[[], None]] = [first, *waiting]
    for work in works:
        calls.run(work, lambda _: None, None)
    del work, works, waiting
    assert begun.wait(DEADLINE)
    calls.close()
    assert done == ["first"]
    closed.set()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(calls.descriptor)


@pytest.mark.parametrize("threads", [0, 1])
def test_where_no_more_threads_can_be_started(
    resolver: Resolver, answers: threading.Event, clock: list[float], monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Names are resolved by the threads there are; without any they are not found, and asked for again later."""
    heard: dict[str, Addresses] = {}

    def ask(number: int) -> None:
        host = f"{number}.example"
        resolver.ask("192.0.2.1", host, lambda found: heard.update({host: found}))

    with monkeypatch.context() as limited:
        for number in range(threads):
            ask(number)
        limited.setattr(threading.Thread, "start", start_none)
        for number in range(threads, 3):
            ask(number)
        answers.set()
        deliver(resolver, heard, 3)
        assert heard == {f"{n}.example": (f"{n}.example",) if threads else () for n in range(3)}
    heard.clear()
    clock[0] += LIMITS.failure_kept
    ask(2)
    deliver(resolver, heard, 1)
    assert heard == {"2.example": ("2.example",)}
    assert (resolver.waiting, resolver._free) == (0, LIMITS.lookups)


def start_none(thread: threading.Thread) -> None:
    """What the standard library does where the system allows no more threads."""
    raise RuntimeError("can't start new thread")
