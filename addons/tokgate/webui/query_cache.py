"""Runs queries on the index in threads, a few at a time, and caches their results until the log changes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Final

from anyio import CapacityLimiter, to_thread

from tokgate.analytics.index import IndexState, Source
from tokgate.blocklog.read.reader import Line

REMEMBERED: Final = 128
"""Results in the cache; beyond it the least recently used is dropped."""
_AT_ONCE: Final = 4
_PATIENCE: Final = 2.0
"""Seconds that a query waits for files that are not read yet; then its result is of what is read."""


class QueryCache:
    """A cache of query results from one index. A result is at most half a second behind the log."""

    def __init__(self, index: Source) -> None:
        """The caller closes the index."""
        self._index: Final = index
        self._limiter: Final = CapacityLimiter(_AT_ONCE)
        self._answers: Final[OrderedDict[tuple[Hashable, ...], Any]] = OrderedDict()

    @property
    def state(self) -> IndexState:
        """How much of the log the index has read."""
        return self._index.state

    async def catch_up(self, seconds: float = _PATIENCE) -> IndexState:
        """Read lines appended since the last call, for at most `seconds`; what is left is read by the next call."""
        return await to_thread.run_sync(self._index.catch_up, seconds, limiter=self._limiter)

    async def ask[A](self, question: Callable[..., A], *said: Hashable) -> A:
        """The result of `question(index, *said)`, from the cache if the log has not changed."""
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
        """The result of `question(index, *said)`, not cached: for downloads and streams."""
        await self.catch_up()
        return await to_thread.run_sync(question, self._index, *said, limiter=self._limiter)

    async def proof(self, event: str) -> dict[str, Any]:
        """The proof of the line with an event id. Raises NoProof."""
        return await to_thread.run_sync(self._index.prove, event, limiter=self._limiter)

    async def line(self, event: str) -> Line | None:
        """The line with an event id, or None; read once more if its file was rotated meanwhile."""
        await self.catch_up()
        try:
            return await to_thread.run_sync(self._index.line, event, limiter=self._limiter)
        except FileNotFoundError:
            await self.catch_up()
            return await to_thread.run_sync(self._index.line, event, limiter=self._limiter)

    async def related(self, line: Line) -> list[Line]:
        """The other lines about the same connection or repeats, in the same file; none if that was rotated just now."""
        with suppress(FileNotFoundError):
            return await to_thread.run_sync(self._index.related, line, limiter=self._limiter)
        return []
