"""Whether somebody has a file open for writing: half a file may well be valid YAML, with half of the bans."""

import errno
import fcntl
import os
import signal
from pathlib import Path


def being_written(path: Path) -> bool:
    """Whether a file is open for writing somewhere on this machine; False where the system does not tell.

    The kernel grants a read lease (fcntl(2)) only on a file that nobody has open for writing. It tells the file's
    owner and root, on local file systems.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # Whoever opens it for writing at this moment makes the kernel signal us: by a signal that does nothing.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False
