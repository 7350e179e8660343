"""Which gates have room, as each process sees it."""

import os

from tokgate.gate.room import Rooms


def test_room_that_another_gate_has() -> None:
    """A full gate leaves clients to others only as long as one of them says that it has room."""
    rooms = Rooms(3)
    assert not rooms.elsewhere(0)
    pid = os.fork()
    if not pid:
        rooms.tell(1, True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert [rooms.elsewhere(slot) for slot in range(3)] == [True, False, True]
    rooms.tell(1, False)
    assert not rooms.elsewhere(0)
