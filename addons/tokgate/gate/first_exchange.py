"""Passes on what a client has said first, and reads the answer where the client may then say more.

Of a client under a ban no more is passed on than what was decided about, until its destination has answered: after a
HelloRetryRequest, or a request to a proxy, what it says next has to be decided about as well (`traffic.second_words`).
"""

from abc import abstractmethod
from select import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDHUP

from tokgate.gate.connection import CLOSED, OPEN, Answering, Connection
from tokgate.gate.sockets import DONT_WAIT
from tokgate.gate.splice import PEEK, Relay
from tokgate.traffic.second_words import Watched
from tokgate.wire.hello_retry import MAX_ANSWER


class FirstExchange(Relay):
    """A relay that begins with what was held, and watches the first answer where something depends on it."""

    def open(self, connection: Connection) -> None:
        """The destination answered: send what was held, and listen to the client from now on."""
        watched, connection.watched = connection.watched, None
        connection.state = OPEN if watched is None else Answering(watched)
        connection.deadline = 0.0
        connection.owing = self.now
        if not connection.held or self._send_held(connection):
            self.watch_client(connection)

    def _send_held(self, connection: Connection) -> bool:
        """Send what was held as far as the destination takes it; False, and the connection closed, if it is gone.

        What is left waits in `held` as long as the connection is watched, and then in a direction of its own.
        """
        held, sent = connection.held, 0
        try:
            sent = connection.server.send(held, DONT_WAIT)
        except BlockingIOError:
            pass
        except OSError:
            self.reset(connection, connection.client)
            return False
        left = held[sent:] if sent < len(held) else b""
        if left and connection.state is OPEN:
            self._direction(connection, True, bytes(left)).blocked = True
            left = b""
        connection.held = left
        return True

    def answered(self, connection: Connection, answering: Answering, event: int) -> None:
        """The destination of a watched connection has answered, ended, or takes more."""
        connection.seen = self.now
        if event & EPOLLERR:  # no second message of the client can reach it
            if answering.said:
                self._direction(connection, False, answering.said)
            self.broke_off(connection, False)
            return
        if event & EPOLLOUT and connection.held and not self._send_held(connection):
            return
        if event & EPOLLRDHUP:
            connection.server_fin = True
        if event & (EPOLLIN | EPOLLRDHUP):
            self._hear(connection, answering)
        elif answering.client_waits:
            self.goes_on(connection, answering, 0)

    def _hear(self, connection: Connection, answering: Answering) -> None:
        """Look at what the destination says first, before it is passed on: does it make the client say more?

        Once it has spoken, the connection is as others are.
        """
        said = len(answering.said)
        if said:
            self._buffer[:said] = answering.said
        try:
            received: int = connection.server.recv_into(self._view[said:] if said else self._buffer, 0, DONT_WAIT)
        except BlockingIOError:
            return
        except OSError:
            self.reset(connection, connection.client)
            return
        if connection.owing:
            self.first_octet(connection)
        said += received
        again = answering.watched.asked(self._buffer[: min(said, MAX_ANSWER)]) if said else False
        if again is None and received and not connection.server_fin:
            answering.said = bytes(self._view[:said])
            return
        if again:
            self.asked_again(connection, answering.watched)
        else:
            self._stop_watching(connection, answering)
        if connection.server is not None and connection.state is not CLOSED:
            self._pass_on(connection, False, connection.client, said, connection.server_fin or not received)

    def goes_on(self, connection: Connection, answering: Answering, event: int) -> None:
        """Data that comes before the destination answers waits for the answer, unless it can't change the decision."""
        if event & EPOLLERR:
            self.reset(connection, connection.server)
            return
        try:
            said = connection.client.recv(1, PEEK)
        except BlockingIOError:
            return
        except OSError:
            self.reset(connection, connection.server)
            return
        answering.client_waits = True
        if not answering.watched.waits(said):
            self._stop_watching(connection, answering)
        elif not (answering.watched.for_answer or connection.held):
            self.asked_again(connection, answering.watched)
        elif not said:  # it says no more, and its destination may wait for its end
            connection.deadline = self.now + self.limits.half_closed

    def _stop_watching(self, connection: Connection, answering: Answering) -> None:
        """Relay the connection like any other from now on."""
        connection.state, connection.deadline = OPEN, 0.0
        if answering.watched.rest:
            connection.held += answering.watched.rest
        if connection.held and not self._send_held(connection):
            return
        if answering.client_waits:
            self.watch_client(connection)

    @abstractmethod
    def asked_again(self, connection: Connection, watched: Watched) -> None:
        """It is the client's turn, and what it says has to be decided about before it is passed on."""
