"""What is remembered of warnings when ends overlap, the disk is full, or software varies its ClientHello."""

import os
from pathlib import Path
from typing import Any

import pytest

from labs import hello_builder
from labs.builders import at
from tokgate.policy.analysis.terms import LONGEST
from tokgate.policy.observation import Passed
from tokgate.traffic.warning_state import Person, WarnedClients, open_beside, software
from tokgate.wire.client_hello import ClientHello
from tokgate.wire.hello_reader import read_client_hello

NOW = at("2023-04-01T12:00:00Z")
CLIENT = "192.0.2.7"


def hello(*more: hello_builder.Extension, name: str = "www.clips.example.org") -> ClientHello:
    """A ClientHello that was read."""
    read = read_client_hello(hello_builder.hello_for(name, *more))
    assert read is not None
    return read


@pytest.mark.parametrize("beside_a_log", [True, False])
def test_the_later_end_holds(tmp_path: Path, beside_a_log: bool) -> None:
    """Whoever continues in a second window for a shorter time loses nothing of the longer one."""
    warned = open_beside(tmp_path / "block.ndjson", NOW) if beside_a_log else WarnedClients()
    warned.continues(Person(CLIENT), "ban", NOW.add(hours=8))
    warned.continues(Person(CLIENT), "ban", NOW.add(hours=1))
    assert warned.passed(Person(CLIENT), "ban", NOW.add(hours=7)) is Passed.CONTINUED
    if beside_a_log:
        again = open_beside(tmp_path / "block.ndjson", NOW)
        assert again.passed(Person(CLIENT), "ban", NOW.add(hours=7)) is Passed.CONTINUED


def test_a_disk_that_takes_half_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, for the other processes will show the page again; here it holds."""
    warned = open_beside(tmp_path / "block.ndjson", NOW)
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
    with pytest.raises(OSError, match="could not be written whole"):
        warned.continues(Person(CLIENT), "ban", NOW.add(hours=1))
    monkeypatch.undo()
    assert warned.passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED


@pytest.mark.parametrize("kind", [21, 41, 42, 44], ids=["padding", "pre_shared_key", "early_data", "cookie"])
def test_the_same_software_on_its_second_visit(kind: int) -> None:
    """A browser that resumes, pads or retries is known again, and isn't shown a page that it can't show."""
    warned = WarnedClients()
    warned.has_no_page(CLIENT, software(hello()), NOW)
    assert warned.passed(Person(CLIENT), "ban", NOW, hello((kind, b""))) is Passed.NO_PAGE
    assert software(hello((27, b"\x02\x00\x02"))) != software(hello())


def test_the_longest_time_to_continue_holds() -> None:
    """With `continue_for: P30D` nobody is shown the page again within the month."""
    warned = WarnedClients()
    warned.continues(Person(CLIENT), "ban", NOW + LONGEST)
    assert warned.passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED


class Scanned(dict[str, tuple[int, ...]]):
    """Counts how often it is looked through."""

    scans = 0

    def items(self) -> Any:
        self.scans += 1
        return super().items()


def test_memory_is_not_looked_through_for_each_question() -> None:
    """Where thousands of people have continued, a request doesn't wait for all of their ends to be compared."""
    warned = WarnedClients()
    for number in range(6000):
        warned.continues(Person(str(number)), "ban", NOW.add(hours=1))
    assert warned.passed(Person("17"), "ban", NOW) is Passed.CONTINUED
    known = warned._ends = Scanned(warned._ends)
    for number in range(6000, 16000):
        warned.continues(Person(str(number)), "ban", NOW.add(hours=1))
        if number % 1000 == 0:
            assert warned.passed(Person(str(number)), "ban", NOW) is Passed.CONTINUED
    assert known.scans == 0
