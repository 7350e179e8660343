"""A relay's decisions about the first exchange of a connection: when it waits, asks again, goes on, or breaks off."""

import socket
from select import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDHUP

import pytest

from labs.relay_ends import Ends, Exchange, Way, fill
from tokgate.gate.connection import CLOSED
from tokgate.traffic.client_messages import AfterHello

HANDSHAKE = b"\x16\3"
"""What a second ClientHello may begin with."""


@pytest.mark.parametrize(
    ("said", "done"), [(HANDSHAKE, []), (b"", []), (b"GET", ["listen"])], ids=["handshake", "nothing", "data"]
)
def test_what_a_watched_client_says_meanwhile(ends: Ends, said: bytes, done: list[str]) -> None:
    """What may be a second hello waits for the server's answer; all else passes, and nothing of it is lost."""
    ends.connection.received = b"early"
    ends.watch(AfterHello("www.example.net", early_data=False, begun=b""))
    ends.client.sendall(said)
    ends.go_on(EPOLLIN)
    assert ends.relay.done == done
    assert ends.is_open is bool(done)
    assert (ends.connection.client.recv(10) if said else b"") == said


def test_what_was_held_back_passes_first(ends: Ends) -> None:
    """Octets behind the first hello are sent on before what comes later."""
    ends.connection.received = b"hello"
    ends.watch(_Indifferent("www.example.net", early_data=False, begun=b"", rest=b"rest"))
    ends.client.sendall(b"more")
    ends.go_on(EPOLLIN)
    assert (ends.server.recv(20), ends.connection.received) == (b"hellorest", b"")
    assert (ends.is_open, ends.relay.done) == (True, ["listen"])


@pytest.mark.parametrize("rest", [b"rest", b""])
def test_a_watched_client_that_has_ended(ends: Ends, rest: bytes) -> None:
    """Its end waits behind what waits, for minutes as with others that have ended, and not for an hour."""
    ends.loop.now = 1000.0
    ends.watch(AfterHello("www.example.net", early_data=False, begun=b"", rest=rest))
    ends.client.shutdown(socket.SHUT_WR)
    ends.go_on(EPOLLIN | EPOLLRDHUP)
    assert (ends.is_open, ends.connection.deadline) == (not rest, 1300.0 if rest else 0.0)
    if rest:
        ends.server.sendall(b"HTTP/1.1 400")
        ends.answer(EPOLLIN)
        assert (ends.is_open, ends.connection.deadline) == (True, 0.0)
        assert ends.server.recv(10) == rest


class _Indifferent(AfterHello):
    """Nothing that is said makes a difference any more."""

    def waits(self, said: bytes | bytearray) -> bool:
        return False


def test_a_watched_client_that_breaks_off(ends: Ends) -> None:
    """Its server is told, and not taken for one that may go on."""
    ends.watch(AfterHello("www.example.net", early_data=False, begun=b""))
    ends.client.sendall(b"GET")
    ends.go_on(EPOLLIN | EPOLLERR)
    assert ends.relay.done == ["reset server"]


def test_a_watched_client_that_can_not_be_read_from(ends: Ends) -> None:
    """The same when reading is what tells."""
    ends.watch(AfterHello("www.example.net", early_data=False, begun=b""))
    ends.connection.client.close()
    ends.go_on(EPOLLIN)
    assert ends.relay.done == ["reset server"]


class Stated(AfterHello):
    """A watched connection of which a test says whether the server's answer makes the client say more."""

    says: bool | None = None

    def asked(self, answer: bytes | bytearray) -> bool | None:
        return self.says


def watched(says: bool | None) -> AfterHello:
    """A connection that waits for its server's answer."""
    made = Stated("www.example.net", early_data=False, begun=b"")
    object.__setattr__(made, "says", says)
    return made


@pytest.mark.parametrize(
    ("says", "event", "done", "opens", "heard"),
    [
        (True, EPOLLIN, ["asked again"], False, b"answer"),
        (False, EPOLLIN, [], True, b"answer"),
        (None, EPOLLIN, [], False, b""),
        (None, EPOLLIN | EPOLLRDHUP, [], True, b"answer"),
        (True, EPOLLOUT, [], False, b""),
    ],
    ids=["retry", "other", "too_little", "the_end", "writable_only"],
)
def test_what_a_watched_server_answers(
    ends: Ends, says: bool | None, event: int, done: list[str], opens: bool, heard: bytes
) -> None:
    """After a HelloRetryRequest it is the client's turn; after any other answer all passes, at once."""
    ends.watch(watched(says))
    ends.server.sendall(b"answer")
    ends.answer(event)
    assert (ends.relay.done, ends.is_open, ends.heard) == (done, opens, heard)
    assert ends.ended == (["client"] if opens and event & EPOLLRDHUP else [])


def test_an_answer_in_pieces(ends: Ends) -> None:
    """What makes no sense alone is kept until the rest of it has come, and passed on whole."""
    answering = ends.watch(Pieces("www.example.net", False, b""))
    for piece in (b"an", b"sw"):
        ends.server.sendall(piece)
        ends.answer(EPOLLIN)
        ends.relay.buffer[:6] = b"others"  # the relay's one buffer serves all connections
    assert (answering.answer, ends.heard, ends.connection.state) == (b"answ", b"", answering)
    ends.server.sendall(b"er")
    ends.answer(EPOLLIN)
    assert (ends.heard, ends.is_open) == (b"answer", True)


def test_an_answer_that_is_broken_off(ends: Ends) -> None:
    """It reaches the client all the same, with what was kept of it; no second message is waited for."""
    way = Way(ends, False)
    answering = ends.watch(Pieces("www.example.net", False, b""))
    answering.answer = b"an"
    ends.server.sendall(b"swer")
    ends.answer(EPOLLIN | EPOLLERR)
    assert (ends.relay.done, ends.is_open, ends.connection.up_done) == ([], True, True)
    for _ in range(2):
        ends.relay.serve_bulk()
    assert way.heard == b"answer"
    ends.relay.close_pipes()


class Pieces(AfterHello):
    """An answer can be judged once six octets are there."""

    def asked(self, answer: bytes | bytearray) -> bool | None:
        return None if len(answer) < 6 else False


@pytest.mark.parametrize(("ends_with", "closed"), [(b"", False), (b"er", True)])
def test_an_unfinished_answer_that_ends(ends: Ends, ends_with: bytes, closed: bool) -> None:
    """A server that ends before its answer makes sense is heard as far as it came, whether or not its end was told."""
    ends.watch(Pieces("www.example.net", False, b""))
    ends.server.sendall(b"answ")
    ends.answer(EPOLLIN)
    ends.server.sendall(ends_with)
    ends.server.shutdown(socket.SHUT_WR)
    ends.answer(EPOLLIN | (EPOLLRDHUP if closed else 0))
    assert (ends.heard, ends.is_open, ends.ended) == (b"answ" + ends_with, True, ["client"])


@pytest.mark.parametrize("waits", [True, False])
def test_a_client_that_waited_still_receives(ends: Ends, waits: bool) -> None:
    """What a client has said meanwhile is told anew once the server has answered; epoll would not do so by itself."""
    ends.watch(watched(False))
    if waits:
        ends.client.sendall(HANDSHAKE)
        ends.go_on(EPOLLIN)
    ends.server.sendall(b"answer")
    ends.answer(EPOLLIN)
    assert (ends.is_open, ends.relay.done) == (True, ["listen"] if waits else [])


def test_a_watched_server_that_has_said_nothing(ends: Ends) -> None:
    """It is waited for; once it ends without a word, the client is served as any other."""
    ends.watch(watched(True))
    ends.answer(EPOLLIN)
    assert ends.relay.done == []
    ends.server.shutdown(socket.SHUT_WR)
    ends.answer(EPOLLIN | EPOLLRDHUP)
    assert (ends.relay.done, ends.is_open, ends.ended) == ([], True, ["client"])


def test_a_watched_server_that_can_not_be_read_from(ends: Ends) -> None:
    """Its client is told at once, instead of waiting for the end of its patience."""
    ends.watch(watched(True))
    ends.connection.server.close()
    ends.answer(EPOLLIN)
    assert ends.relay.done == ["reset client"]


def test_what_a_watched_server_takes_later(ends: Ends) -> None:
    """A hello that the server did not take at once is sent on as soon as it does, and not while it doesn't."""
    ends.watch(watched(True))
    ends.connection.received = b"hello"
    ends.answer(EPOLLOUT)
    assert (ends.server.recv(10), ends.connection.received, ends.relay.done) == (b"hello", b"", [])
    ends.connection.received = b"more"
    ends.server.close()
    ends.answer(EPOLLOUT | EPOLLIN)
    assert ends.relay.done == ["reset client"]


def test_what_a_watched_server_does_not_take_yet(ends: Ends) -> None:
    """It is kept where it is, in order, and not sent by the way of bulk behind the server's answer."""
    filled = fill(ends.connection.server)
    ends.connection.received = b"hello"
    ends.proceed(watched(None))
    assert (ends.connection.received, ends.connection.up) == (b"hello", None)
    while filled:
        filled -= len(ends.server.recv(filled))
    ends.answer(EPOLLIN)
    assert ends.connection.received == b"hello", "there is room when it is told so"
    ends.answer(EPOLLOUT)
    assert (ends.server.recv(10), ends.connection.received) == (b"hello", b"")


class Unread(AfterHello):
    """What the client says next is read at once, and not only when the server has answered."""

    for_answer = False

    def waits(self, said: bytes | bytearray) -> bool:
        return bool(said)


@pytest.mark.parametrize("held", [b"", b"hello"])
def test_a_client_that_does_not_wait_for_an_answer(ends: Ends, held: bytes) -> None:
    """What it says is decided about as soon as all before it was sent."""
    ends.connection.received = held
    ends.watch(Unread("", early_data=False, begun=b""))
    ends.client.sendall(b"more")
    ends.go_on(EPOLLIN)
    assert ends.relay.done == ["asked again"] * (not held)
    if held:
        ends.answer(EPOLLOUT)
        assert (ends.relay.done, ends.server.recv(10)) == (["asked again"], b"hello")


@pytest.mark.parametrize("since", [0.0, 1.0])
def test_a_watched_answer_is_measured(ends: Ends, since: float) -> None:
    """As any first octet, once."""
    ends.connection.awaiting_since, ends.loop.now = since, 7.0
    ends.watch(watched(None))
    ends.server.sendall(b"answer")
    ends.answer(EPOLLIN)
    assert ends.relay.done == ["first octet"] * bool(since)
    assert ends.connection.seen == 7.0


@pytest.mark.parametrize("gone", [{"state": CLOSED}, {"server": None}])
def test_a_second_message_that_ends_the_connection(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, gone: dict[str, object]
) -> None:
    """A refused client hears nothing of the server that it may not reach."""

    def refuse(*_: object) -> None:
        for name, value in gone.items():
            setattr(ends.connection, name, value)

    server = ends.connection.server
    monkeypatch.setattr(Exchange, "_read_again", refuse)
    ends.watch(watched(True))
    ends.server.sendall(b"answer")
    ends.answer(EPOLLIN)
    assert ends.heard == b""
    ends.connection.server = server


def test_what_was_held_back_finds_no_server(ends: Ends) -> None:
    """A client whose server went meanwhile is told once, and not heard any more."""
    ends.connection.received = b"hello"
    ends.watch(_Indifferent("www.example.net", early_data=False, begun=b""))
    ends.client.sendall(b"more")
    ends.server.close()
    ends.go_on(EPOLLIN)
    assert ends.relay.done == ["reset client"]


def test_opening_sends_what_was_held(ends: Ends) -> None:
    """The client's first words reach a server that takes them; its later ones come by the loop."""
    ends.connection.received, ends.connection.deadline, ends.loop.now = b"hello", 100.0, 7.0
    ends.proceed()
    assert (ends.relay.done, ends.connection.awaiting_since) == (["listen"], 7.0)
    assert ends.server.recv(10) == b"hello"
    assert (ends.is_open, ends.connection.received, ends.connection.deadline) == (True, b"", 0.0)
    assert ends.connection.up is None


def test_opening_towards_a_server_that_takes_nothing_yet(ends: Ends) -> None:
    """What does not fit is kept for later, in its order, and the client is listened to meanwhile."""
    fill(ends.connection.server)
    ends.connection.received = b"hello"
    ends.proceed()
    direction = ends.connection.up
    assert direction is not None
    assert (direction.pending, direction.blocked, ends.connection.received) == (b"hello", True, b"")
    ends.answer(EPOLLOUT)
    assert (direction.blocked, list(ends.loop.bulk)) == (False, [direction])


def test_opening_towards_a_server_that_has_gone(ends: Ends) -> None:
    """A client whose destination has gone is told, and not left waiting."""
    ends.server.close()
    ends.connection.received = b"hello"
    ends.proceed()
    assert ends.relay.done == ["reset client"]


def test_opening_a_watched_connection(ends: Ends) -> None:
    """Nothing more passes before the server has answered."""
    ends.connection.received = b"hello"
    ends.proceed(watched(True))
    assert (ends.server.recv(10), ends.is_open) == (b"hello", False)
