"""What a probe makes of the answers that it gets."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tokgate.gateway.canary import process
from tokgate.gateway.canary.definition import ALLOWED, BANNED
from tokgate.gateway.canary.process import OWN_ANSWER, Answer
from tokgate.wire.hello_reader import read_client_hello

LOOPBACK = "127.0.0.1"
REFUSAL = bytes((21, 3, 3, 0, 2, 2, 112))


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that answers one connection."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                connection.settimeout(20)
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(20)


def says(data: bytes) -> Callable[[socket.socket], None]:
    """Reads a little, answers, and ends."""

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(data)

    return answer


def resets(connection: socket.socket) -> None:
    """What is unread at the end becomes a reset."""
    connection.recv(1)


@pytest.mark.parametrize(
    ("server", "answer"),
    [
        (says(REFUSAL), Answer.REFUSED),
        (says(OWN_ANSWER), Answer.ANSWERED),
        (says(b"HTTP/1.1 400"), Answer.OTHER),
        (says(REFUSAL[:-1]), Answer.OTHER),
        (resets, Answer.RESET),
    ],
)
def test_answers(server: Callable[[socket.socket], None], answer: Answer) -> None:
    """A gate's refusal, the canary's own server, and what is neither."""
    with serving(server) as port:
        assert process.ask(LOOPBACK, (LOOPBACK, port), BANNED, 20) is answer


def test_no_answer() -> None:
    """A gate that hangs has accepted the connection, and says nothing; one that is gone accepts none."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        address = listener.getsockname()
        assert process.ask(LOOPBACK, address, BANNED, 0.05) is Answer.SILENT
    assert process.ask(LOOPBACK, (LOOPBACK, 1), BANNED, 20) is Answer.RESET
    assert process.ask("192.0.2.1", address, BANNED, 20) is Answer.UNREACHABLE


def test_clients_that_say_nothing() -> None:
    """Whoever connects to the canary's server and is silent doesn't keep it from answering the canary."""
    listener = socket.create_server((LOOPBACK, 0))  # stays open with its thread
    process.serve([listener])
    with contextlib.ExitStack() as held:
        for _ in range(100):
            held.enter_context(socket.create_connection(listener.getsockname(), 20))
        assert process.ask(LOOPBACK, listener.getsockname(), ALLOWED, 20) is Answer.ANSWERED


def test_the_hello() -> None:
    """It names what it is to name."""
    for name in (ALLOWED, BANNED):
        hello = read_client_hello(process.client_hello(name))
        assert hello is not None
        assert hello.name == name


@pytest.mark.parametrize(
    ("banned", "allowed", "said"),
    [
        (Answer.REFUSED, Answer.ANSWERED, []),
        (Answer.ANSWERED, Answer.ANSWERED, ["IPv4: the banned test name passed"]),
        (Answer.REFUSED, Answer.REFUSED, ["IPv4: the allowed test name was refused"]),
        (
            Answer.SILENT,
            Answer.RESET,
            ["IPv4: the banned test name had no answer in 5 s", "IPv4: the allowed test name was reset"],
        ),
    ],
)
def test_problems(monkeypatch: pytest.MonkeyPatch, banned: Answer, allowed: Answer, said: list[str]) -> None:
    """Each name has to have its own answer."""
    monkeypatch.setattr(process, "ask", lambda _from, _to, name, _: banned if name == BANNED else allowed)
    probes = [process.Probe("192.0.2.1", ("192.0.2.2", 443), name) for name in (BANNED, ALLOWED)]
    assert process.problems(probes) == said
