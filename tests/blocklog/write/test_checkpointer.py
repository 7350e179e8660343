"""A chain that goes on after a restart, keys that take each other's place, and where checkpoints are sent."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import present
from labs.samples import OBSERVER
from labs.waiting import DEADLINE
from tokgate.blocklog.integrity.checkpoint import MARK, Signer, parse_checkpoints
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.log_state import log_checkpoint
from tokgate.blocklog.records.record import Record, encode, new_stamp, timestamp
from tokgate.blocklog.write.checkpointer import Checkpointer, LogOptions, log_options_of, outlet
from tokgate.policy.settings import LogSettings

NOW = Instant.from_utc(2023, 3, 10)
AT = timestamp(NOW)
HEAD = Head("c0ffee", 7, "0" * 64)


@pytest.fixture
def checkpointer(tmp_path: Path) -> Checkpointer:
    """Of a run that has just begun."""
    return Checkpointer(tmp_path / "block.ndjson", LogOptions(), _unexpected)


def _unexpected(error: Exception) -> None:
    raise error


def _unsigned(record: Record) -> None:
    record["tokgate"]["checkpoint"]["signature"] = "A" * 86 + "=="


def _of_another_number(record: Record) -> None:
    record["event"]["sequence"] += 1


def _of_another_content(record: Record) -> None:
    record["message"] = "another"


def _of_no_chain(record: Record) -> None:
    del record["tokgate"]["chain"]


def _without_fields(record: Record) -> None:
    record["tokgate"]["checkpoint"] = "log-checkpoint"


@pytest.mark.parametrize(
    "forge", [_unsigned, _of_another_number, _of_another_content, _of_no_chain, _without_fields, None]
)
def test_whose_checkpoint_a_line_is(
    checkpointer: Checkpointer, tmp_path: Path, forge: Callable[[Record], None] | None
) -> None:
    """Where no journal is left, a run goes on after the last checkpoint that its key signed, and after no other's."""
    mine = present(checkpointer.checkpoint(HEAD, AT))
    record, head = link(HEAD, log_checkpoint(new_stamp(NOW, OBSERVER), mine.as_json()))
    if forge is not None:
        forge(record)
    assert checkpointer.signed(encode(record)) == (head if forge is None else None)
    assert checkpointer.signed(encode(record)[:-9]) is None
    other = Signer(tmp_path / "other.key").sign(HEAD, AT)
    assert checkpointer.signed(encode(link(HEAD, log_checkpoint(new_stamp(NOW, OBSERVER), other.as_json()))[0])) is None
    after = Head(HEAD.chain, HEAD.sequence + 1, HEAD.hash)
    assert checkpointer.signed(encode(link(after, log_checkpoint(new_stamp(NOW, OBSERVER), mine.as_json()))[0])) is None


@pytest.mark.parametrize("other", [lambda signer: signer, lambda signer: Signer(signer.path, evolving=True)])
def test_another_checkpoint_replaces_no_key(tmp_path: Path, other: Callable[[Signer], Signer]) -> None:
    """A checkpoint that announced another key, or whose key has taken over, must not use the next one up."""
    signer = Signer(tmp_path / "block.key", evolving=True)
    checkpoint = other(signer).sign(HEAD, AT)
    signer.sign(HEAD, AT)
    signer.used(checkpoint)
    kept = signer.path.read_bytes()
    expected = signer.sign(HEAD, AT)
    signer.used(checkpoint)
    assert signer.path.read_bytes() == kept
    assert signer.sign(HEAD, AT).key == expected.key


def listening(path: Path) -> socket.socket:
    """A datagram socket, as journald and syslogd have one."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(DEADLINE)
    return sock


def test_journald(tmp_path: Path) -> None:
    """The native protocol: fields, one a line."""
    with listening(tmp_path / "journal") as journal:
        outlet("journald", journal=tmp_path / "journal")(f"{MARK}{{}}")
        lines = journal.recv(4096).decode().splitlines()
    assert lines == [f"MESSAGE={MARK}{{}}", "PRIORITY=5", "SYSLOG_IDENTIFIER=tokgate"]


def test_a_journal_that_is_stuck(tmp_path: Path) -> None:
    """The log doesn't wait for it: what it doesn't take is an error of the system's."""
    send = outlet("journald", journal=tmp_path / "journal")
    with listening(tmp_path / "journal"), pytest.raises(BlockingIOError):
        all(send(MARK) is None for _ in range(100_000))


def test_syslog_of_this_machine(tmp_path: Path) -> None:
    """Facility daemon, severity info, the text unchanged."""
    with listening(tmp_path / "log") as syslog:
        outlet("syslog", dev_log=tmp_path / "log")(f"{MARK}100%s {{}}")
        assert syslog.recv(4096).decode() == f"<30>tokgate: {MARK}100%s {{}}"


def test_syslog_elsewhere() -> None:
    """Over UDP, to the port that is named."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as syslog:
        syslog.bind(("127.0.0.1", 0))
        syslog.settimeout(DEADLINE)
        outlet(f"syslog://127.0.0.1:{syslog.getsockname()[1]}")(MARK)
        assert syslog.recv(4096).decode() == f"<30>tokgate: {MARK}"


@pytest.mark.parametrize("target", ["journald", "syslog"])
def test_nobody_there(tmp_path: Path, target: str) -> None:
    """What can't be sent is an error of the system's, which the caller counts."""
    send = outlet(target, journal=tmp_path / "none", dev_log=tmp_path / "none")
    with pytest.raises(OSError, match="No such file"):
        send(MARK)


@pytest.mark.parametrize(
    "target",
    [
        *("", "journal", "http://example.org", "syslog://", "syslog://:514", "syslog://h/p", "syslog://h?q"),
        *("syslog://h#f", "syslog://u@h", "syslog://h:99999"),
    ],
)
def test_no_such_outlet(target: str) -> None:
    with pytest.raises(ValueError, match=r"journald|syslog:|range"):
        outlet(target)


def test_a_checkpoint_is_sent_once_it_is_on_the_disk(tmp_path: Path) -> None:
    """Not before: what a power cut may take back must not be attested elsewhere."""
    sent: list[str] = []
    troubles: list[Exception] = []

    def broken(_: str) -> None:
        raise ConnectionRefusedError("nobody there")

    options = LogOptions(outlets=(broken, sent.append))
    checkpointer = Checkpointer(tmp_path / "block.ndjson", options, troubles.append)
    checkpoint = present(checkpointer.checkpoint(checkpointer.head, AT))
    checkpointer.wrote(checkpointer.head, checkpoint)
    assert sent == []
    checkpointer.synced()
    checkpointer.synced()
    checkpointer.close()
    assert list(parse_checkpoints(sent)) == [checkpoint]
    assert [type(trouble) for trouble in troubles] == [ConnectionRefusedError]


def test_the_settings_of_a_policy() -> None:
    options = log_options_of(LogSettings(checkpoint_to=("journald", "syslog"), key="/etc/key", forward_security=True))
    assert (options.key, options.forward_secure, len(options.outlets)) == (Path("/etc/key"), True, 2)
    assert log_options_of(LogSettings()) == LogOptions()
