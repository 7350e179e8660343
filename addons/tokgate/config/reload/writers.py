"""Detects whether a file is open for writing: half a file may be valid YAML, with half of the bans."""

import errno
import fcntl
import os
import signal
from pathlib import Path


def being_written(path: Path) -> bool:
    """Whether a file is open for writing on this machine; False where this is unknown.

    The kernel grants a read lease (fcntl(2)) only on a file that isn't open for writing: to the file's owner and root,
    on local file systems.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # If the file is opened for writing now, the kernel signals this process: SIGURG is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False
