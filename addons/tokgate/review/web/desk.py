"""Questions to the index from the event loop: in threads, a few at a time, each answered once until the log changes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final

from anyio import CapacityLimiter, to_thread

from tokgate.blocklog.reader import Line
from tokgate.review.index import Index, State

REMEMBERED: Final = 128
"""Answers that are kept."""
_AT_ONCE: Final = 4
_PATIENCE: Final = 2.0
"""Seconds that a question waits for files that are not read yet; after that it is answered from what there is."""


class Desk:
    """Asks one index. Answers are those of the log as it was not longer than half a second ago."""

    def __init__(self, index: Index) -> None:
        """The index is closed by whoever opened it."""
        self._index: Final = index
        self._limiter: Final = CapacityLimiter(_AT_ONCE)
        self._answers: Final[OrderedDict[tuple[Hashable, ...], Any]] = OrderedDict()

    @property
    def state(self) -> State:
        """How much of the log is read."""
        return self._index.state

    async def catch_up(self, seconds: float = _PATIENCE) -> State:
        """Bring in what is new."""
        return await to_thread.run_sync(self._index.catch_up, seconds, limiter=self._limiter)

    async def ask[A](self, question: Callable[..., A], *said: Hashable) -> A:
        """The answer of a function of the index; the same one while the log stays the same."""
        state = await self.catch_up()
        key = (state.version, question, *said)
        if key in self._answers:
            self._answers.move_to_end(key)
        else:
            self._answers[key] = await to_thread.run_sync(question, self._index, *said, limiter=self._limiter)
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        answer: A = self._answers[key]
        return answer

    async def ask_afresh[A](self, question: Callable[..., A], *said: object) -> A:
        """The answer to what is asked once: a download, the lines that came since."""
        await self.catch_up()
        return await to_thread.run_sync(question, self._index, *said, limiter=self._limiter)

    async def line(self, event: str) -> Line | None:
        """The line of an event; looked up once more if its file was rotated just then."""
        await self.catch_up()
        try:
            return await to_thread.run_sync(self._index.line, event, limiter=self._limiter)
        except FileNotFoundError:
            await self.catch_up()
            return await to_thread.run_sync(self._index.line, event, limiter=self._limiter)
