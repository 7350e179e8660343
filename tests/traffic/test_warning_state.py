"""What is remembered of clients under a warning: exact in all processes, over restarts, and without naming anybody."""

import os
from pathlib import Path
from typing import Any

import pytest

from labs.builders import at, duration, present
from labs.hello_builder import hello_for
from tokgate.blocklog.paths import warned_path_for
from tokgate.evasion import hello as build
from tokgate.policy.analysis.terms import LONGEST
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Passed
from tokgate.traffic.warning_state import SLOTS, Person, WarnedClients, open_beside, software
from tokgate.wire.client_hello import ClientHello
from tokgate.wire.hello_reader import read_client_hello

NOW = at("2023-04-01T12:00:00Z")
CLIENT = "192.0.2.7"


def hello(name: str = "www.clips.example.org", *more: build.Extension) -> ClientHello:
    named = hello_for(name, *more) if name else build.records(build.hello())
    return present(read_client_hello(named))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log" / "block.ndjson"


def test_continuing_holds_for_one_client_and_one_ban_until_its_end(log: Path) -> None:
    """Not for other clients, not for other bans, and not at its end."""
    warned, end = open_beside(log, NOW), NOW.add(hours=8)
    warned.continues(Person(CLIENT), "ban", end)

    assert warned.passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED
    assert warned.passed(Person(f"::ffff:{CLIENT}"), "ban", NOW, hello()) is Passed.CONTINUED
    assert warned.passed(Person(CLIENT), "ban", end.subtract(seconds=1)) is Passed.CONTINUED
    assert warned.passed(Person(CLIENT), "ban", end) is None
    assert warned.passed(Person(CLIENT), "other", NOW) is None
    assert warned.passed(Person("192.0.2.8"), "ban", NOW) is None


def test_users_of_one_address_continue_each_for_themselves(log: Path) -> None:
    """On a machine that many share, the user who proved who they are; names are compared without case."""
    warned = open_beside(log, NOW)
    alice = Person.at(CLIENT, Identity(user="alice"))
    warned.continues(alice, "ban", NOW.add(hours=1))

    assert warned.passed(alice, "ban", NOW) is Passed.CONTINUED
    assert warned.passed(Person(CLIENT, "ALICE"), "ban", NOW) is Passed.CONTINUED
    assert warned.passed(Person(CLIENT, "bob"), "ban", NOW) is None
    assert warned.passed(Person.at(CLIENT, None), "ban", NOW) is None
    assert warned.passed(Person("192.0.2.8", "alice"), "ban", NOW) is None


def test_all_processes_know_at_once(log: Path) -> None:
    """What one learns is known to a fork of it, and to a process that was given the file."""
    first = open_beside(log, NOW)
    assert first.descriptor is not None
    second = WarnedClients(os.dup(first.descriptor))
    assert second.token_key == first.token_key
    second.continues(Person(CLIENT), "ban", NOW.add(hours=1))
    assert first.passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED

    pid = os.fork()
    if not pid:
        known = first.passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED
        first.continues(Person("192.0.2.8"), "ban", NOW.add(hours=1))
        os._exit(0 if known else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert first.passed(Person("192.0.2.8"), "ban", NOW) is Passed.CONTINUED
    assert second.passed(Person("192.0.2.8"), "ban", NOW) is Passed.CONTINUED


def test_restarts_remember_what_is_not_over(log: Path) -> None:
    """Lines that are over are gone after the next start, the others hold on, and so does the key of pages left open."""
    before = open_beside(log, NOW)
    before.continues(Person(CLIENT), "ban", NOW.add(hours=1))
    before.continues(Person(CLIENT), "later", NOW.add(hours=9))
    after = open_beside(log, NOW.add(hours=2))

    assert after.token_key == before.token_key
    assert after.passed(Person(CLIENT), "later", NOW.add(hours=2)) is Passed.CONTINUED
    path = warned_path_for(log)
    assert sum(bool(line) for line in path.read_bytes().split(b"\n")) == 2


def test_the_file_is_private_and_names_nobody(log: Path) -> None:
    """Only its owner reads it, and it holds neither clients nor bans, also where an older one lay open."""
    path = warned_path_for(log)
    path.parent.mkdir()
    path.write_text("nonsense\n")
    path.chmod(0o644)
    warned = open_beside(log, NOW)
    warned.continues(Person(CLIENT), "tiktok-ban", NOW.add(hours=1))
    assert WarnedClients(warned.descriptor).token_key == warned.token_key

    assert path.stat().st_mode & 0o777 == 0o600
    assert CLIENT not in path.read_text()
    assert "tiktok-ban" not in path.read_text()


@pytest.mark.parametrize(
    "damage", [b"\x00" * 70, b"a1b2", b"\n\n", b"f" * 5000, b"0123456789abcdef0123456789abcdef 99999999999\n"]
)
def test_damaged_lines_say_nothing(log: Path, damage: bytes) -> None:
    """What is torn, foreign or can't be true is passed over; what follows it is read."""
    warned = open_beside(log, NOW)
    assert warned.descriptor is not None
    os.write(warned.descriptor, damage)
    assert warned.passed(Person(CLIENT), "ban", NOW) is None
    warned.continues(Person(CLIENT), "ban", NOW.add(hours=1))

    assert WarnedClients(warned.descriptor).passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED
    assert open_beside(log, NOW).passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED


@pytest.mark.parametrize("cut", [1, 20, 40])
def test_a_line_that_is_being_written(log: Path, cut: int) -> None:
    """Whoever continues while another process reads half of the line is known once it is whole."""
    warned = open_beside(log, NOW)
    assert warned.descriptor is not None
    start = os.fstat(warned.descriptor).st_size
    warned.continues(Person(CLIENT), "ban", NOW.add(hours=1))
    line = os.pread(warned.descriptor, 100, start)
    os.truncate(warned.descriptor, start)
    reader = WarnedClients(warned.descriptor)
    for part in (line[:cut], line[cut:]):
        assert reader.passed(Person(CLIENT), "ban", NOW) is None
        os.write(warned.descriptor, part)
    assert reader.passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED


@pytest.mark.parametrize("beside_a_log", [True, False])
def test_an_emptied_file_forgets(log: Path, beside_a_log: bool) -> None:
    """Truncating the file shows everyone the page again, in all processes, and it goes on serving."""
    if not beside_a_log:
        warned_path_for(log).mkdir(parents=True)
    first = open_beside(log, NOW)
    assert first.descriptor is not None
    second = WarnedClients(os.dup(first.descriptor))
    first.continues(Person(CLIENT), "ban", NOW.add(hours=1))
    assert second.passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED
    os.truncate(first.descriptor, 0)

    assert second.passed(Person(CLIENT), "ban", NOW) is None
    for host in range(10, 20):  # the file is longer again than what the first has read of it
        second.continues(Person(f"192.0.2.{host}"), "ban", NOW.add(hours=1))
    second.continues(Person("192.0.2.8"), "ban", NOW.add(hours=1))
    assert first.passed(Person(CLIENT), "ban", NOW) is None
    assert first.passed(Person("192.0.2.8"), "ban", NOW) is Passed.CONTINUED
    assert WarnedClients(first.descriptor).passed(Person("192.0.2.8"), "ban", NOW) is Passed.CONTINUED


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and remembered as long as the processes last."""
    (tmp_path / "log").write_text("a file where the folder should be")
    warned = open_beside(tmp_path / "log" / "block.ndjson", NOW)
    warned.continues(Person(CLIENT), "ban", NOW.add(hours=1))

    assert warned.passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED
    assert "a restart will forget it" in caplog.text


def test_a_link_is_not_followed(log: Path, tmp_path: Path) -> None:
    """A symbolic link in the file's place leads nowhere, nor is what it leads to believed."""
    path = warned_path_for(log)
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    open_beside(log, NOW).continues(Person(CLIENT), "ban", NOW.add(hours=1))

    assert not (tmp_path / "elsewhere").exists()
    foreign = open_beside(tmp_path / "block.ndjson", NOW)
    path.unlink()
    path.symlink_to(tmp_path / "block.warned")
    assert open_beside(log, NOW).token_key != foreign.token_key


def test_software_without_a_page(log: Path) -> None:
    """It is remembered for this software of this client, for half a day, and written once."""
    warned = open_beside(log, NOW)
    warned.has_no_page(CLIENT, software(hello()), NOW)
    assert warned.descriptor is not None
    size = os.fstat(warned.descriptor).st_size
    warned.has_no_page(CLIENT, software(hello("other.clips.example.org")), NOW)

    assert os.fstat(warned.descriptor).st_size == size
    for moment in (NOW, NOW.add(hours=12).subtract(seconds=1)):
        assert warned.passed(Person(CLIENT), "ban", moment, hello()) is Passed.NO_PAGE
    assert warned.passed(Person(CLIENT), "ban", NOW.add(hours=12), hello()) is None
    assert warned.passed(Person("192.0.2.8"), "ban", NOW, hello()) is None
    assert warned.passed(Person(CLIENT), "ban", NOW, hello("")) is Passed.NO_PAGE  # no name, no certificate for it


def test_a_clock_that_was_ahead(log: Path) -> None:
    """What it made anybody pass for holds no longer than by a right clock, here and in processes that read the file."""
    warned, ahead, hour = open_beside(log, NOW), NOW.add(hours=48), duration("PT1H")
    warned.has_no_page(CLIENT, software(hello()), ahead)
    warned.continues(Person(CLIENT), "ban", ahead.add(hours=1))
    for each in (warned, WarnedClients(warned.descriptor)):
        assert each.passed(Person(CLIENT), "ban", ahead, longest=hour) is Passed.CONTINUED
        assert each.passed(Person(CLIENT), "ban", NOW, hello(), longest=hour) is None
    warned.has_no_page(CLIENT, software(hello()), NOW)
    warned.continues(Person(CLIENT), "ban", NOW.add(hours=1))
    for each in (warned, WarnedClients(warned.descriptor)):
        assert each.passed(Person(CLIENT), "ban", NOW, longest=hour) is Passed.CONTINUED
        assert each.passed(Person(CLIENT), "other", NOW, hello(), longest=hour) is Passed.NO_PAGE


def test_one_client_can_cause_few_lines_only(log: Path) -> None:
    """However many kinds of software it pretends to have."""
    warned = open_beside(log, NOW)
    for number in range(1000):
        warned.has_no_page(CLIENT, str(number).encode(), NOW)

    path = warned_path_for(log)
    assert sum(bool(line) for line in path.read_bytes().split(b"\n")) <= SLOTS + 1


# -- when ends overlap, the disk is full, or software varies its ClientHello


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
    assert warned.passed(Person(CLIENT), "ban", NOW, hello("www.clips.example.org", (kind, b""))) is Passed.NO_PAGE
    assert software(hello("www.clips.example.org", (27, b"\x02\x00\x02"))) != software(hello())


def test_the_longest_time_to_continue_holds() -> None:
    """With `continue_for: P30D` nobody is shown the page again within the month; a line for a year is no line."""
    warned = WarnedClients()
    for ban, end in (("ban", NOW + LONGEST), ("damage", NOW.add(hours=24 * 365))):
        warned.continues(Person(CLIENT), ban, end)
    assert warned.passed(Person(CLIENT), "ban", NOW) is Passed.CONTINUED
    assert warned.passed(Person(CLIENT), "damage", NOW) is None


class Scanned(dict[str, tuple[int, ...]]):
    """Counts how often it is looked through."""

    scans = 0

    def items(self) -> Any:
        self.scans += 1
        return super().items()


def test_memory_is_not_looked_through_for_each_question() -> None:
    """Where thousands of people have continued, a request doesn't wait for all of their ends to be compared.

    What is over leaves memory all the same, without a file too.
    """
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
    for number in range(16000, 17000):
        warned.continues(Person(str(number)), "ban", NOW.add(hours=1))
    assert warned.passed(Person("17"), "ban", NOW.add(hours=2)) is None
    assert len(warned._ends) == 0
