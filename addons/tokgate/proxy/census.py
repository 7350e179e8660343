"""What all processes together have counted since their supervisor began: those that run, and those that ended."""

from collections import Counter
from typing import Final

from tokgate.gate.tally import Key, Tally


class Census:
    """A tally for each process that counts, and the sum over those that are gone. None of it is lost with a process."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._tallies: Final[dict[int, Tally]] = {}
        self._gone: Final[Counter[Key]] = Counter()

    def begin(self, pid: int, tally: Tally) -> None:
        """A process counts in `tally`."""
        self.end(pid)
        tally.keep()
        self._tallies[pid] = tally

    def end(self, pid: int) -> None:
        """A process has ended: what it counted stays."""
        tally = self._tallies.pop(pid, None)
        if tally is not None:
            self._gone.update(tally.read())
            tally.close()

    def total(self) -> Counter[Key]:
        """All counts; none ever falls."""
        total = Counter(self._gone)
        for tally in self._tallies.values():
            total.update(tally.read())
        return total
