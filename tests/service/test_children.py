"""What a supervisor waits for, also where it has many descriptors open."""

import fcntl
import math
import os
import resource
from collections.abc import Iterator

import pytest

from tokgate.service.children import Child, Role, readable

HIGH = 1500
"""More than FD_SETSIZE, the end of what select(2) takes."""


@pytest.fixture
def many() -> Iterator[None]:
    """Room for descriptors of such numbers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * HIGH), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many")
def test_readable() -> None:
    """What has ended counts, and what is not ready does not."""
    read, write = os.pipe()
    high, quiet = fcntl.fcntl(read, fcntl.F_DUPFD_CLOEXEC, HIGH), os.eventfd(0)
    assert readable([high, quiet], 0.0) == []
    os.close(write)
    assert readable([high, quiet], math.inf) == [high]
    for each in (read, high, quiet):
        os.close(each)


@pytest.mark.usefixtures("many")
def test_a_child_of_another() -> None:
    """It lives until it has ended."""
    pid = os.fork()
    if not pid:
        os.read(os.pipe()[0], 1)
    process = os.pidfd_open(pid)
    child = Child(Role.GATE, 0, pid, 0.0, "", process=fcntl.fcntl(process, fcntl.F_DUPFD_CLOEXEC, HIGH))
    assert child.lives
    child.signal(9)
    assert readable([process], math.inf) == [process]
    assert not child.lives
    os.waitpid(pid, 0)
    os.close(process)
    assert child.process is not None
    os.close(child.process)
