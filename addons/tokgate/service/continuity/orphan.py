"""Ends a process whose supervisor was killed, also where it is stopped or hangs and can't see that by itself.

See prctl(2), PR_SET_PDEATHSIG. A supervisor that leaves its processes to the next program ends no one.
"""

import ctypes
import signal
from typing import Final

from tokgate.service.children import readable

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
MARGIN: Final = 10
"""Seconds that it has beyond its drain."""


def end_with_supervisor(lifeline: int, drain: float) -> None:
    """In a child: have the kernel wake it when the supervisor dies, and kill it where it then doesn't drain in time.

    `lifeline` as in `gate_process.Inheritance`, `drain` in seconds. Nobody else may use SIGALRM in this process.
    """

    def died(*_: object) -> None:
        if readable([lifeline], 0.0):  # else another program holds it open, or it was stopped for another reason
            signal.alarm(round(drain) + MARGIN)

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGCONT, died)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
