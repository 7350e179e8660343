"""Supervises the processes that carry traffic: gates, openers, and the collector of their records.

It carries no traffic and has one thread, so that it may fork. A gate is a fork of it, with the policy compiled and the
listeners open. The supervisor reads changed policies, restarts processes that died, and stops them in order.
"""

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.records import lifecycle
from tokgate.blocklog.records.record import Record, Stamp, new_stamp, this_observer
from tokgate.blocklog.write import channel
from tokgate.blocklog.write.collector import DEADLINE, ORPHANED
from tokgate.blocklog.write.segment import LogRefused, wait_for_lock
from tokgate.config.reload.holder import PolicyHolder
from tokgate.gate.takeover import FORMAT
from tokgate.gateway import GatewayError
from tokgate.gateway.capabilities import limit_to
from tokgate.runtime.banner import written
from tokgate.runtime.control_socket import Call, Caller, Control, ControlRequest
from tokgate.runtime.instance import Instance
from tokgate.service import listeners, program_change
from tokgate.service.background_reload import BackgroundReload
from tokgate.service.child_programs import SuperviseOptions
from tokgate.service.children import Role, readable
from tokgate.service.gateway.gateway_keeper import keeper_of
from tokgate.service.last_state import STATE_EVERY, StateFile
from tokgate.service.metrics.sample import vitals_of
from tokgate.service.privileges import needed_to_run
from tokgate.service.processes import ChildProcesses
from tokgate.service.program_change import ENDS, Bequest, Exec, ProgramChange, Store, not_started
from tokgate.service.reload_answer import Waiting
from tokgate.service.service_manager import ServiceManager, name_of
from tokgate.service.status import LONGEST, ListenerStatus, Status, Work, state_of
from tokgate.traffic.counters import Key

logger = logging.getLogger(__name__)


RESTART_DRAIN: Final = 3.0
"""Seconds that open connections have at the most while systemd restarts tokgate, since new clients wait meanwhile."""


class UnfitEnvironment(Exception):
    """What keeps tokgate from starting here, for the one who started it."""


class Supervisor:
    """Starts all processes, keeps them running, and stops them."""

    def __init__(
        self,
        options: SuperviseOptions,
        holder: PolicyHolder,
        say: Callable[[str], None],
        bequest: Bequest | None = None,
        kept: Sequence[socket.socket] = (),
    ) -> None:
        """Nothing is opened before `run`. With a `bequest` it goes on where the program before ended.

        `kept` are listening sockets that systemd kept.
        """
        self._options: Final = options
        self._holder: Final = holder
        self._say: Final = say
        self._observer: Final = this_observer()
        self._control: Final = Control(options.confdir)
        self._manager: Final = ServiceManager()
        self._bequest: Final = bequest
        self._kept: Final = [*kept]
        self._processes: Final = ChildProcesses(
            options,
            holder,
            bequest=bequest,
            let_go=self._let_go,
            died=self._died,
            left=lambda message: self._sender.send(message),
            meanwhile=self._meanwhile,
        )
        self._program: Final = ProgramChange(options.policies, self._processes.others, self._bequeathed)
        self._sender: Final = channel.RecordSender(self._processes.records, self._observer)
        self._keeper: Final = keeper_of(options, holder, self._write, say, self._meanwhile)
        self._instance: Final = Instance(
            holder,
            options.log,
            self._write,
            self._processes.counters.total,
            version=self._observer.version,
            log_kept=lambda: self._processes.log_kept,
        )
        self._instance.gateway = self._keeper.state
        self._waiting: Final = Waiting(self._instance)
        self._file: Final = StateFile(options.confdir)
        self._work: Work | None = None
        self._next_state = 0.0
        self._signals: Final = SignalQueue()
        self._ending: str | None = None
        self._ready = False
        self._reload: Final = BackgroundReload(holder, lambda: self._begins("it reads the policy"), self._meanwhile)
        self._listening: list[ListenerStatus] = []
        self._answers: dict[Any, Callable[[], None]] = {}
        """Handlers by descriptor, also called while a policy is read."""

    def run(self) -> int:
        """Run until SIGTERM or SIGINT. Exit codes: 0, or 3 for an environment that does not allow it."""
        self._begins("it starts")
        try:
            self._open()
        except UnfitEnvironment as error:
            self._say(str(error))
            self._file.remove()
            return 3
        processes = self._processes
        self._signals.listen()
        bequeathed = None if self._bequest is None else self._bequest.control
        self._control.open() if bequeathed is None else self._control.adopt(bequeathed)
        self._answers = {
            processes.reports: processes.take_reports,
            **dict.fromkeys(self._keeper.sockets, self._keeper.noticed),
        }
        # Before any gate, which may refuse a client at once: the log of a run begins with its start.
        self._instance.start()
        processes.begin()
        if processes.metrics is not None:
            self._say(f"metrics: http://{written(*processes.metrics.getsockname()[:2])}/metrics")
        listeners.announce(processes.listeners, self._holder.snapshot, self._say, processes.quic)
        self._say_replaced()
        while self._ending is None:
            if self._program.tried is not None:
                self._change_program(self._program.tried)
            pause = min(self._instance.due(), self._keeper.due(), self._reload.due())
            ready = readable([self._signals, *self._answers, *self._control.sockets], pause)
            for number in self._signals.take():
                self._heed(number)
            self._answer(ready)
            processes.kill_hanging()
            processes.reap()
            processes.restart_missing()
            processes.retire_replaced()
            self._follow_policy()
            if self._control.is_lost():  # somebody has deleted the socket or its folder
                self._control.close(remove=False)
                self._control.open()
            self._keeper.look()
            self._waiting.look(processes.workers())
            if self._instance.tick():
                self._instance.history.save()
            self._sender.flush()
            self._tell_manager()
            self._keep_state()
        return self._end(self._ending)

    def _answer(self, ready: Collection[int]) -> None:
        for watched, answer in self._answers.items():
            if (watched if isinstance(watched, int) else watched.fileno()) in ready:
                answer()
        if any(each.fileno() in ready for each in self._control.sockets):
            self._take_calls()

    def _begins(self, what: str, normal: float = LONGEST, *, hands_over: bool = False) -> None:
        """Tell that work begins during which this process may not answer for a while."""
        now = Instant.now()
        self._work = Work(what, str(now), normal, hands_over)
        self._file.write(None, self._work, now)

    def _keep_state(self) -> None:
        """Write the state for those who get no answer later, where it has changed."""
        if time.monotonic() >= self._next_state:
            self._next_state = time.monotonic() + STATE_EVERY
            self._file.write(self._state(), self._work, Instant.now())

    def _meanwhile(self) -> None:
        """Answer requests during longer work: while the policy is read, for which a thread runs, nothing may fork."""
        self._answer(readable([*self._answers, *self._control.sockets], 0.0))
        self._manager.keep_alive(self._state if self._serves else None)

    def _tell_manager(self) -> None:
        """Tell systemd that this process lives, and once that gates accept; from then on it keeps the listeners."""
        if not self._ready and self._processes.gates_report:
            self._ready, self._work, self._next_state = True, None, 0.0
            self._manager.tell("READY=1")
            self._manager.forget(program_change.NAME)
            on_crash = self._holder.snapshot.settings.gateway.on_crash
            for each in self._processes.listeners:
                if listeners.waited_for(each, on_crash):
                    self._manager.keep(name_of(each.socket), each.socket)
                else:
                    self._manager.forget(name_of(each.socket))
        if self._serves:
            self._manager.keep_alive(self._state)

    @property
    def _serves(self) -> bool:
        """Whether gates accept; before, systemd does not watch it yet, and nothing needs attention."""
        return self._ready or self._bequest is not None

    def _open(self) -> None:
        """Take the log, listen, load the kernel's part, and give up what only that takes. Raises UnfitEnvironment."""
        try:
            if self._bequest is None:
                wait_for_lock(self._options.log, ORPHANED + DEADLINE + 1.0)
        except LogRefused as error:
            raise UnfitEnvironment(f"{error.filename}: {error.strerror}") from error
        try:
            self._processes.listen(self._kept)
            for sock in self._kept:  # of other endpoints than it has now, or one that came with a bequest as well
                if self._bequest is None:
                    self._manager.forget(name_of(sock))
                sock.close()
        except OSError as error:
            raise UnfitEnvironment(f"can't listen: {error.strerror}") from error
        named = [(each.entry, each.socket.getsockname()) for each in self._processes.listeners]
        self._listening = [{"entry": entry, "host": name[0], "port": name[1]} for entry, name in named]
        try:
            self._keeper.up() if self._bequest is None else self._keeper.take_over()
        except (GatewayError, OSError) as error:
            raise UnfitEnvironment(f"the gateway can't be set up, and nothing was changed:\n{error}") from error
        if os.geteuid() != 0:
            try:
                options = self._options
                limit_to(needed_to_run(options.mark, options.endpoints, gateway=options.gateway is not None))
            except OSError as error:
                logger.warning("what only listening takes can't be given up: %s", error.strerror)

    def _let_go(self) -> None:
        """In a child: close what only the supervisor needs."""
        self._control.close(remove=False)
        self._keeper.let_go()

    def _heed(self, number: int) -> None:
        """Do what a signal asks for."""
        if number in ENDS:
            self._ending, self._processes.ending = signal.Signals(number).name, True
        elif number == signal.SIGHUP:
            self._reload.wanted = True
            self._processes.tell(signal.SIGHUP, Role.OPENER)

    # -- the control socket

    def _take_calls(self) -> None:
        for caller in self._control.callers():
            match caller.call:
                case Call(ControlRequest.STATUS):
                    caller.answer(self._state())
                case Call(ControlRequest.RELOAD, lift, by):
                    self._waiting.add(caller, self._holder.lift(lift, by))
                    self._reload.wanted = True
                    self._processes.tell(signal.SIGHUP, Role.OPENER)
                case Call(ControlRequest.VITALS):
                    log, deaths = self._processes.log_report(), self._processes.deaths()
                    vitals = vitals_of(
                        self._instance, self._state(), log=log, confdir=self._options.confdir, deaths=deaths
                    )
                    caller.answer(vitals)
                case Call(ControlRequest.RESTART) if self._ending is None:
                    self._program.ask(caller)
                case Call(ControlRequest.RESTART):
                    caller.answer({"ok": False, "problems": "it ends"})
                case _:
                    caller.close()

    # -- a new program

    def _change_program(self, caller: Caller) -> None:
        """Go on as the program that is on disk now. It answers the caller."""
        caller.tell("the new program reads the policy; the old gates serve meanwhile")
        self._say("a new program takes over")
        self._begins("a new program takes over", hands_over=True)
        try:
            self._pass_on(Exec(self._signals.came), "a new program takes over", caller)
        except OSError as error:
            self._program.tried = self._work = None
            not_started(caller, error)

    def _leave_to_next(self, reason: str) -> bool:
        """While systemd restarts it: leave all to the program that it starts next; whether that can take it over."""
        free = self._manager.free_places()
        if not free:
            return False
        self._say(f"{reason}: the next program takes over, and the gates serve meanwhile")
        self._begins("the next program takes over", hands_over=True)
        try:
            self._pass_on(Store(self._manager, free), reason)
        except OSError as error:
            self._say(f"the next program can't take over: {error.strerror}")
            return False
        self._keeper.drain(restarts=True)
        self._control.close(remove=False)
        self._keeper.down()
        return True

    def _pass_on(self, carrier: Exec | Store, reason: str, caller: Caller | None = None) -> None:
        """Leave all to the next program, and tell of what was counted until then, and of the stop. Raises OSError."""
        try:
            carrier.leave(self._bequeathed(caller, self._processes.counters.freeze()))
        except OSError:
            self._processes.counters.thaw()
            raise
        self._instance.stop(reason)
        self._sender.finish(DEADLINE)
        self._waiting.close()
        carrier.go()

    def _bequeathed(
        self, caller: Caller | None, told: Mapping[int, Mapping[Key, int]] = MappingProxyType({})
    ) -> Bequest:
        """What another program finds; `told` as in `bequeath`, nothing for one that is only tried."""
        return self._processes.bequeath(told, self._control.descriptor(), None if caller is None else caller.fileno())

    def _say_replaced(self) -> None:
        """Answer who asked the program before for this one; its gates accept now."""
        if self._bequest is not None and self._bequest.caller is not None:
            caller = Caller(socket.socket(fileno=self._bequest.caller), Call(ControlRequest.RESTART))
            moves = self._bequest.takeover == FORMAT
            version = self._observer.version
            caller.answer({"ok": True, "before": self._bequest.program, "version": version, "moves": moves})

    def _state(self) -> Status:
        return state_of(
            self._instance,
            self._processes.workers(),
            faults=self._processes.faults(),
            work=self._work,
            listening=self._listening,
        )

    # -- the policy

    def _follow_policy(self) -> None:
        reloaded = self._reload.look()
        if reloaded is None:
            return
        if not self._reload.wanted:  # else a caller came meanwhile, who waits for the next reload
            self._waiting.read(reloaded)
        if reloaded.snapshot.version != reloaded.before:
            self._begins("gates with a new policy begin")
            self._processes.next_generation()
        self._work, self._next_state = None, 0.0

    def _died(self, what: str) -> None:
        self._write(partial(lifecycle.internal_error, error=RuntimeError(what), where="supervisor"))

    def _write(self, build: Callable[[Stamp], Record]) -> None:
        self._sender.put(build(new_stamp(Instant.now(), self._observer)))

    # -- the end

    def _end(self, reason: str) -> int:
        """Drain all processes, wait, then kill; the collector exits last, when no process sends records any more."""
        self._begins(f"it ends by {reason}")
        restarts = self._manager.restarts()
        if restarts and self._leave_to_next(reason):
            return 0
        drain = min(self._options.drain, RESTART_DRAIN) if restarts else self._options.drain
        self._say(f"{reason}: draining for at most {drain:g} s")
        self._begins(f"it ends by {reason}, and open connections have {drain:g} s", LONGEST if restarts else 0.0)
        self._manager.forget(program_change.NAME)  # there until it is ready: the lifeline would not end
        self._manager.tell("STOPPING=1", f"STATUS={reason}: open connections may end")
        self._keeper.drain(restarts=restarts)
        for each in () if restarts else self._processes.listeners:
            self._manager.forget(name_of(each.socket))  # who comes now is refused at once, and turns elsewhere
        self._processes.drain(drain, lambda: self._signals.ends)  # SIGTERM or SIGINT came again
        self._processes.need_collector()
        self._instance.stop(reason)
        self._sender.close(DEADLINE)  # what killed processes left
        self._waiting.close()
        self._control.close(remove=True)
        self._processes.end()
        self._file.remove()
        self._keeper.down()
        return 0


class SignalQueue:
    """Handles the signals that end tokgate, have it read its policy, or tell of a child."""

    def __init__(self) -> None:
        """None is handled before `listen`."""
        self.came: Final[list[int]] = []
        """Those that were not taken, in their order."""
        self._wake = -1

    def listen(self) -> None:
        """Handle them from now on. Raises OSError."""
        self._wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (*ENDS, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda number, _: self.came.append(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)

    def fileno(self) -> int:
        """A descriptor that is readable when a signal has come."""
        return self._wake

    def take(self) -> Iterator[int]:
        """Take those that came, one by one."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while self.came:
            yield self.came.pop(0)

    @property
    def ends(self) -> bool:
        """Whether one of them ends tokgate."""
        return not ENDS.isdisjoint(self.came)
