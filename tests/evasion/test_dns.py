"""DNS: neither the banned name nor a name that only leads to it is answered, and other names are."""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import dns.edns
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from evasion.carriers import NAME_SERVER, Clients, Program, Running, Settings
from evasion.requirements import skip_or_fail
from evasion.rows.dns import Question, questions

DEADLINE = 20.0
QUESTIONS = list(questions())


class NameServer:
    """Answers at port 53 with the records that it is told; needs root."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind((NAME_SERVER, 53))
        self._listener = socket.create_server((NAME_SERVER, 53))
        threading.Thread(target=self._serve_datagrams, daemon=True).start()
        threading.Thread(target=self._serve_streams, daemon=True).start()

    def _serve_datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = self._datagrams.recvfrom(65535)
                if not data:  # shut down
                    return
                self._datagrams.sendto(self._answer(data), client)

    def _serve_streams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve_stream, args=(client,), daemon=True).start()

    def _serve_stream(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), client, client.makefile("rb") as stream:
            client.settimeout(DEADLINE)
            while True:
                answer = self._answer(stream.read(struct.unpack("!H", stream.read(2))[0]))
                client.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        self.asked.append(name)
        made = dns.message.make_response(query, recursion_available=True)
        for record in self.records.get(name, ()):
            owner, ttl, kind, rest = record.split(None, 3)
            made.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, rest))
        return made.to_wire(max_size=65535)

    def close(self) -> None:
        """Stop."""
        for sock in (self._datagrams, self._listener):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@pytest.fixture(scope="module")
def name_server() -> Iterator[NameServer]:
    """The upstream resolver; at port 53, so that only root can have it."""
    if os.geteuid() != 0:
        skip_or_fail("root, for port 53")
    made = NameServer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def resolver(name_server: NameServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """tokgate as a resolver; what it said is looked at when it has ended."""
    running = Running(Program.DNS, Settings.DEFAULT, tmp_path_factory.mktemp("dns"))
    running.wait()
    yield running
    running.end()
    assert "Traceback" not in running.narrated()


CLIENTS = Clients()


def ask(resolver: Running, name: str, kind: str, *, edns: bool = True, tcp: bool = False) -> dns.message.Message:
    """One question by a client of its own that is under the ban."""
    query = dns.message.make_query(name, kind, use_edns=0 if edns else None)
    send = dns.query.tcp if tcp else dns.query.udp
    client = CLIENTS.address("127.0.0.1", banned=True)
    return send(query, "127.0.0.1", DEADLINE, port=resolver.explicit, source=client)


def is_refused(answer: dns.message.Message) -> bool:
    """Whether it holds nothing to go on with."""
    return not answer.answer and answer.rcode() in (dns.rcode.NXDOMAIN, dns.rcode.REFUSED, dns.rcode.FORMERR)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_question(resolver: Running, name_server: NameServer, question: Question, tcp: bool) -> None:
    """The question is refused with a reason where it can carry one, and the same question for its twin is answered."""
    name_server.records = {
        question.name.lower(): list(question.answers),
        question.twin: list(question.twin_answers),
        "x.example.net": [record for record in question.twin_answers if record.startswith("x.")],
    }
    answer = ask(resolver, question.name, question.kind, edns=question.edns, tcp=tcp)
    assert is_refused(answer), answer.to_text()
    if question.edns and answer.rcode() != dns.rcode.FORMERR:
        assert [option for option in answer.options if isinstance(option, dns.edns.EDEOption)]
    twin = ask(resolver, question.twin, question.kind, edns=question.edns, tcp=tcp)
    assert twin.rcode() == dns.rcode.NOERROR
    assert twin.answer


def test_each_refusal_is_in_the_log(name_server: NameServer, tmp_path: Path) -> None:
    """A name that leads to the banned one leaves the record that the banned one leaves."""
    running = Running(Program.DNS, Settings.DEFAULT, tmp_path / "dns")
    running.wait()
    try:
        for number, question in enumerate(QUESTIONS):
            name_server.records = {question.name.lower(): list(question.answers)}
            ask(running, question.name, question.kind, tcp=bool(number % 2))
    finally:
        running.end()
    actions = [record["event"]["action"] for record in running.records]
    assert actions.count("dns-query-blocked") == len(QUESTIONS)
