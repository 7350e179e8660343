"""What a new program takes over from the one before it: its child processes, listeners and channels."""

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from tokgate.blocklog.records.record import this_observer
from tokgate.blocklog.write.collector import FINISH
from tokgate.config.reload.holder import PolicyHolder
from tokgate.gate import handoff
from tokgate.gate.quic.sockets import QuicSockets
from tokgate.gate.sockets import Entry
from tokgate.gate.takeover import FORMAT
from tokgate.service.channels import Channels
from tokgate.service.child_programs import ChildPrograms, SuperviseOptions
from tokgate.service.children import Child, Role
from tokgate.service.continuity.replacement import Bequest, QuicBequest, Survivor
from tokgate.service.gate_process import RETIRE
from tokgate.service.listeners import inherited_listener
from tokgate.traffic.counters import Key, ProcessCounters, SharedCounters


class InheritedProcesses(ChildPrograms):
    """Child processes that the next program goes on with, their counters included."""

    def __init__(
        self, options: SuperviseOptions, holder: PolicyHolder, channels: Channels, let_go: Callable[[], None]
    ) -> None:
        super().__init__(options, holder, channels, let_go)
        self.counters: Final = ProcessCounters()
        self._children: Final[dict[int, Child]] = {}
        self._replaced_openers: Final[list[Child]] = []

    def bequeath(self, told: Mapping[int, Mapping[Key, int]], control: int | None, caller: int | None) -> Bequest:
        """What the next program needs. Raises OSError.

        `told`: what this one has told of each process's counters. `caller` waits for an answer, `control` is the
        listener of the control socket. Without a caller the next program is another process.
        """
        if caller is None:
            for child in self._children.values():
                if child.process is None:
                    child.process = os.pidfd_open(child.pid)  # it was not waited for, so the number is still its own
        warned = self.warned.descriptor
        if warned is None:
            raise RuntimeError("nothing has begun")
        return Bequest(
            program=this_observer().version,
            takeover=FORMAT,
            channels=self.channels.descriptors(),
            listeners=[(each.socket.fileno(), each.entry.value) for each in self.listeners],
            metrics=None if self.metrics is None else self.metrics.fileno(),
            control=control,
            quic=self._bequeath_quic(),
            warned=warned,
            caller=caller,
            children=[
                Survivor.of(child, self.counters.of(child.pid).share(), told.get(child.pid, {}))
                for child in self._children.values()
            ],
            options=self._options.shape,
        )

    def _bequeath_quic(self) -> QuicBequest | None:
        if self.quic is None:
            return None
        return QuicBequest(*self.quic.descriptors(), [(w.fileno(), r.fileno()) for w, r in self.quic_channels])

    def inherit(self, bequest: Bequest) -> None:
        """Take over listeners and processes."""
        if bequest.metrics is not None:
            self.metrics = socket.socket(fileno=bequest.metrics)
        self.listeners.extend(inherited_listener(number, Entry(entry)) for number, entry in bequest.listeners)
        if bequest.quic is not None:
            self.quic = QuicSockets.inherited(bequest.quic.fronts, bequest.quic.raw)
            ends = [(socket.socket(fileno=w), socket.socket(fileno=r)) for w, r in bequest.quic.channels]
            self.quic_channels = ends
        for each in bequest.children:
            self._children[each.pid] = each.as_child(time.monotonic())
            self.counters.begin(each.pid, SharedCounters(each.shared), dict(each.told))
        if bequest.takeover != FORMAT:  # old gates keep their connections: nobody would understand what they pass on
            self.channels.transfers_out.shutdown(socket.SHUT_RD)
            transfers_in, transfers_out = handoff.channel()
            self.channels = replace(self.channels, transfers_in=transfers_in, transfers_out=transfers_out)

    def retire_predecessors(self) -> None:
        """Retire the processes of the program before that one of this program replaces; openers once those serve."""
        for child in self._children.values():
            if child.role is Role.OPENER and not child.retired:
                self._replaced_openers.append(child)
            elif child.role in (Role.COLLECTOR, Role.METRICS) and not child.retired:
                child.retired = True
                child.signal(FINISH if child.role is Role.COLLECTOR else signal.SIGTERM)

    def retire_replaced(self) -> None:
        """Retire the openers of the program before, once those of this one serve."""
        if self._replaced_openers:
            serving = [c for c in self._children.values() if c.role is Role.OPENER and not c.retired]
            new = [child for child in serving if child not in self._replaced_openers]
            if new and all(child.report for child in new):  # else those that began have died, and begin again
                for child in self._replaced_openers:
                    self.retire_opener(child)
                self._replaced_openers.clear()

    @staticmethod
    def retire_opener(child: Child) -> None:
        """Have an opener take no more connections, and end with its last one."""
        child.retired = True
        child.signal(RETIRE)
