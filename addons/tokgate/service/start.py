"""Starts a supervisor: anew, as the program that takes over from another, or as one that is only tried."""

import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence

from whenever import Instant

from tokgate.block_page.authority import establish_authority, secure_folder
from tokgate.blocklog.records.record import this_observer
from tokgate.blocklog.write.channel import RecordSender
from tokgate.blocklog.write.collector import DEADLINE
from tokgate.config.reload.holder import PolicyError, PolicyHolder, open_policy
from tokgate.gateway.canary.definition import compile_with_canary
from tokgate.policy.snapshot import compile_policy
from tokgate.runtime.held_file import HeldFile
from tokgate.service import program_change
from tokgate.service.child_programs import BEHIND_TRAFFIC, SuperviseOptions
from tokgate.service.last_state import StateFile
from tokgate.service.processes import ChildProcesses
from tokgate.service.program_change import Bequest, inherited, is_trial, load_programs
from tokgate.service.service_manager import ServiceManager, kept_sockets
from tokgate.service.status import Work
from tokgate.service.supervisor import RESTART_DRAIN, Supervisor


def supervise(options: SuperviseOptions, say: Callable[[str], None]) -> int:
    """Run gates and openers until told to stop. Exit codes: 0, 1 for an invalid policy, 3 for an unfit environment."""
    if is_trial(os.environ):
        return _try(options, say)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # first: what was left may be more than the soft limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection takes two descriptors
    listeners, others = kept_sockets(os.environ)
    bequest = _left_by_another(inherited(os.environ), others, say)
    known = StateFile(options.confdir)
    holder = _valid_policy(options, say, known, waits=bequest is not None)
    if holder is None:
        known.remove()
        return 1
    if bequest is not None and bequest.caller is None and bequest.options != options.shape:
        say("the options or the user have changed: what the program before serves ends within seconds")
        _end_predecessors(options, holder, bequest, say)
        bequest = None
    secure_folder(options.confdir)
    establish_authority(options.confdir, Instant.now())
    return Supervisor(options, holder, say, bequest, listeners).run()


def _left_by_another(
    inherited: Sequence[socket.socket], kept: Sequence[socket.socket], say: Callable[[str], None]
) -> Bequest | None:
    """What the program before has left in this process, or systemd has kept.

    If it was another process, those of this unit that it did not leave to this one are ended.
    """
    bequest = None
    try:
        bequest = program_change.taken(inherited or kept)
    except (OSError, ValueError) as error:
        say(f"nothing is taken over: {error}")
        _forget()
    if not inherited:
        program_change.end_strays(() if bequest is None else [each.child.pid for each in bequest.children])
    return bequest


def _valid_policy(
    options: SuperviseOptions, say: Callable[[str], None], known: StateFile, *, waits: bool
) -> PolicyHolder | None:
    """The policy; None if it is invalid. `waits`: until it is valid, since the gates of the program before serve."""
    told, compiled = "", compile_policy if options.gateway is None else compile_with_canary
    known.write(None, Work("it reads the policy", str(Instant.now())), Instant.now())
    while True:
        try:
            held = HeldFile.of(options.confdir, options.policies)
            return open_policy(options.policies, Instant.now(), held, compiled)
        except PolicyError as error:
            if str(error) != told:
                told = str(error)
                say(f"there is no valid policy to start with:\n{told}")
                why = f"there is no valid policy to start with: {told.splitlines()[0]}"
                known.write(None, Work(why, str(Instant.now()), normal=0.0), Instant.now())
        if not waits:
            return None
        ServiceManager().keep_alive(None)
        time.sleep(1.0)


def _end_predecessors(
    options: SuperviseOptions, holder: PolicyHolder, bequest: Bequest, say: Callable[[str], None]
) -> None:
    """Drain the processes of the program before, shortly, since new clients wait; close all that it left."""
    _forget()  # first: systemd's copies would keep the collector from ending, and clients waiting where nobody answers
    processes = ChildProcesses(
        options, holder, bequest=bequest, let_go=lambda: None, died=say, left=lambda message: sender.send(message)
    )
    sender = RecordSender(processes.records, this_observer())
    processes.listen([])
    processes.drain(min(options.drain, RESTART_DRAIN), lambda: False)
    sender.finish(DEADLINE)  # what killed processes left
    processes.end()
    for descriptor in bequest.descriptors():
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _forget() -> None:
    """Have systemd close what was left, so that nobody answers there any more."""
    manager = ServiceManager()
    manager.forget(program_change.NAME)
    manager.has_read()


def _try(options: SuperviseOptions, say: Callable[[str], None]) -> int:
    """Load and read all that a run needs, behind the traffic of the running one; see `program_change`."""
    os.nice(BEHIND_TRAFFIC)
    try:
        Supervisor(options, open_policy(options.policies, Instant.now()), say)
        load_programs(metrics=options.metrics is not None)
    except (PolicyError, ValueError) as error:
        say(str(error))
        return 1
    return 0
