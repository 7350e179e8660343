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


FORGED: dict[str, Callable[[Record], object]] = {
    "another number": lambda record: record["event"].update(sequence=9),
    "another content": lambda record: record.update(message="another"),
    "no chain": lambda record: record["tokgate"].pop("chain"),
    "no fields": lambda record: record["tokgate"].update(checkpoint="log-checkpoint"),
}


@pytest.mark.parametrize("forge", [*FORGED.values(), None], ids=[*FORGED, "mine"])
def test_whose_checkpoint_a_line_is(
    checkpointer: Checkpointer, tmp_path: Path, forge: Callable[[Record], object] | None
) -> None:
    """Where no journal is left, a run goes on after the last checkpoint that its key signed, and after no other's."""

    def linked(after: Head, said: Record) -> tuple[Record, Head]:
        return link(after, log_checkpoint(new_stamp(NOW, OBSERVER), said))

    mine = present(checkpointer.checkpoint(HEAD, AT)).as_json()
    record, head = linked(HEAD, mine)
    if forge is not None:
        forge(record)
    assert checkpointer.signed(encode(record)) == (head if forge is None else None)
    assert checkpointer.signed(encode(record)[:-9]) is None
    other = Signer(tmp_path / "other.key").sign(HEAD, AT).as_json()
    unsigned, after = mine | {"signature": "A" * 86 + "=="}, Head(HEAD.chain, HEAD.sequence + 1, HEAD.hash)
    for before, said in ((HEAD, other), (HEAD, unsigned), (after, mine)):
        assert checkpointer.signed(encode(linked(before, said)[0])) is None


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


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("journald", f"MESSAGE={MARK}100%s {{}}\nPRIORITY=5\nSYSLOG_IDENTIFIER=tokgate\n"),
        ("syslog", f"<30>tokgate: {MARK}100%s {{}}"),
    ],
)
def test_sockets_of_this_machine(tmp_path: Path, target: str, told: str) -> None:
    """The native protocol, or facility daemon and severity info. Without a socket the caller counts an error."""
    path = tmp_path / "socket"
    send = outlet(target, journal=path, dev_log=path)
    with pytest.raises(OSError, match="No such file"):
        send(MARK)
    with listening(path) as sock:
        send(f"{MARK}100%s {{}}")
        assert sock.recv(4096).decode() == told


def test_a_journal_that_is_stuck(tmp_path: Path) -> None:
    """The log doesn't wait for it: what it doesn't take is an error of the system's."""
    send = outlet("journald", journal=tmp_path / "journal")
    with listening(tmp_path / "journal"), pytest.raises(BlockingIOError):
        all(send(MARK) is None for _ in range(100_000))


def test_syslog_elsewhere() -> None:
    """Over UDP, to the port that is named."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as syslog:
        syslog.bind(("127.0.0.1", 0))
        syslog.settimeout(DEADLINE)
        outlet(f"syslog://127.0.0.1:{syslog.getsockname()[1]}")(MARK)
        assert syslog.recv(4096).decode() == f"<30>tokgate: {MARK}"


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
