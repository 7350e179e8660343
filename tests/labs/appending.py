"""Drives the log's appender: runs on one log, whose clock stands until it is set."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from labs.builders import at, present
from labs.samples import OBSERVER
from tokgate.blocklog.integrity.chain_state import Finding
from tokgate.blocklog.integrity.trusted_keys import checkpoints_in
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import every_file
from tokgate.blocklog.records.chain import link, stated_head
from tokgate.blocklog.records.lifecycle import gateway_changed
from tokgate.blocklog.records.record import EventAction, Stamp, encode, new_stamp
from tokgate.blocklog.write.appender import Appender
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.segment import Rotation

_begun: Final[list[Appender]] = []


class AppenderRuns:
    """Runs that follow each other on one log, and what they complained of."""

    def __init__(
        self,
        path: Path,
        rotation: Rotation | None = None,
        options: LogOptions | None = None,
        now: str = "2023-03-10T12:00Z",
    ) -> None:
        self.path = path
        self.rotation = rotation or Rotation(daily=False)
        self.options = options or LogOptions()
        self.now = at(now)
        self.troubles: list[Exception] = []

    def stamp(self) -> Stamp:
        """A stamp of now."""
        return new_stamp(self.now, OBSERVER)

    def begin(self) -> Appender:
        """A run that has written nothing."""
        trouble = self.troubles.append
        run = Appender(
            self.path, self.rotation, self.stamp, trouble=trouble, reject=trouble, options=self.options,
            uptime=lambda: self.stamp().at.timestamp(),
        )  # fmt: skip
        _begun.append(run)
        return run

    def write(self, to: Appender, count: int = 1, *, attest: bool = False) -> None:
        """Write records, each with all that it brings about, and a checkpoint if wanted."""
        for number in range(count):
            append(to, gateway_changed(self.stamp(), EventAction.CANARY_RECOVERED, [f"number {number}"], "v"))
        if attest:
            to.attest()
            append(to)
            to.sync()

    def stray(self, octets: bytes) -> None:
        """Octets that somebody else appends."""
        with self.path.open("ab") as file:
            file.write(octets)

    def forge(self, *records: dict[str, Any], path: Path | None = None) -> None:
        """Append records whose numbers and hashes fit, which anybody can compute who can write to the file."""
        path = path or self.path
        head = present(stated_head(json.loads(path.read_bytes().splitlines()[-1])))
        with path.open("ab") as file:
            for record in records:
                linked, head = link(head, record)
                file.write(encode(linked))

    @property
    def files(self) -> list[Path]:
        """The log's files, oldest first."""
        return every_file(self.path)

    def found(self, *trusted: str, kept: Iterable[str] = (), whole: bool = True, **more: Any) -> list[Finding]:
        """What verification finds; `kept` are checkpoints from elsewhere."""
        return list(Verifier(trusted, checkpoints_in(kept, "kept.txt"), whole=whole, **more).run(self.files))

    def run(self, count: int = 1, *, attest: bool = True) -> None:
        """A run that ends in order."""
        run = self.begin()
        self.write(run, count, attest=attest)
        run.leave("closed")

    def run_for_a_day(self) -> None:
        """A run, whose file was written last when it ended; then the next day comes."""
        self.path.touch()
        self.run()
        os.utime(self.path, (self.path.stat().st_atime, self.now.timestamp()))
        self.now = self.now.add(hours=24)


def append(to: Appender, *records: dict[str, Any]) -> None:
    """Write records and everything that is pending."""
    for record in records:
        to.add(record)
    while to.pending:
        to.advance()


def kill(run: Appender) -> None:
    """End a run as SIGKILL does: nothing is written any more, its lock is gone, and its files are closed."""
    if run._segment is not None:
        run._segment.close()
        run._segment = None
    run._checkpointer.close()


def kill_all() -> None:
    """End all runs of a test, which may have left them anywhere."""
    while _begun:
        kill(_begun.pop())
