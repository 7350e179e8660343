"""Clients that share an event loop have turns."""

import asyncio
from collections.abc import Callable

from tokgate.mitm.layers.fair_turns import LENGTH, Turns


def add(turns: Turns, client: str, work: Callable[[], object]) -> None:
    """Have work done in a client's turn."""

    async def wait() -> None:
        await turns.turn(client)
        work()

    WAITING.add(asyncio.get_running_loop().create_task(wait()))


WAITING: set[asyncio.Task[None]] = set()


async def test_one_clients_thousand_do_not_go_before_anothers_one() -> None:
    """Somebody who opens a thousand connections at once would have all others wait for their pages."""
    turns, done = Turns(), []
    for number in range(1000):
        add(turns, "192.0.2.1", lambda number=number: done.append(("one", number)))  # type: ignore[misc]
    add(turns, "192.0.2.2", lambda: done.append(("other", 0)))
    while len(done) < 1001:
        await asyncio.sleep(0)
    assert done.index(("other", 0)) <= 1
    assert [number for who, number in done if who == "one"] == list(range(1000))


async def test_who_left_costs_others_nothing() -> None:
    """A connection that is closed while it waits for its turn doesn't stop the turns of others."""
    turns = Turns()
    waiting = asyncio.create_task(turns.turn("192.0.2.1"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await turns.turn("192.0.2.2")
    assert waiting.cancelled()


class Connections:
    """Pieces of work that go on as mitmproxy's do: each step is a callback that the one before made ready."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.under_way = 0
        self.done = 0

    def begin(self) -> None:
        self.under_way += 1
        self._step(self.steps)

    def _step(self, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(self._step, left - 1)
        else:
            self.under_way -= 1
            self.done += 1


async def test_who_comes_later_waits_for_one_connection_in_all_its_steps() -> None:
    """With a connection under way for each step that hooks take, a page would take ten times as long as alone."""
    turns, connections = Turns(), Connections(steps=10)
    for _ in range(50):
        add(turns, "192.0.2.1", connections.begin)
    while connections.done < 5:
        await asyncio.sleep(0)
    before = connections.done
    await turns.turn("192.0.2.2")
    assert connections.under_way == 0
    for _ in range(10):  # the steps of the one who came later
        await asyncio.sleep(0)
    assert connections.done + connections.under_way - before <= 2
    while connections.done < 50:
        await asyncio.sleep(0)


async def test_turns_come_round_though_the_loop_always_has_work() -> None:
    """Under a flood some socket is always ready, and all pages would wait until it is over."""
    turns, stopped, iterations = Turns(), asyncio.Event(), 0

    def flood() -> None:
        nonlocal iterations
        iterations += 1
        if not stopped.is_set() and iterations < 100 * LENGTH:
            asyncio.get_running_loop().call_soon(flood)

    flood()
    await turns.turn("192.0.2.1")
    before = iterations
    await turns.turn("192.0.2.2")
    assert iterations - before <= LENGTH + 2
    stopped.set()


async def test_a_turn_does_not_wait_for_what_waits() -> None:
    """A connection to a slow server would hold up everybody else's pages."""
    turns = Turns()
    slow: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def one() -> None:
        await turns.turn("192.0.2.1")
        await slow

    waiting = asyncio.create_task(one())
    await asyncio.sleep(0)
    await turns.turn("192.0.2.2")
    assert not waiting.done()
    slow.set_result(None)
    await waiting
