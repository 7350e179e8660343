"""DNS: neither the banned name nor a name that only leads to it is answered, and other names are."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dns.edns
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest

from evasion.carriers import NAME_SERVER, Carried, Clients, Key, Program, Settings
from evasion.rows.dns import BANNED, Question, questions
from labs.requirements import require
from labs.resolver import Resolver

DEADLINE = 20.0
QUESTIONS = list(questions())
DNS = Key(Program.DNS, Settings.DEFAULT)


class NameServer(Resolver):
    """Answers with the records that it is told; at port 53, so that only root can have it."""

    def __init__(self) -> None:
        super().__init__(None, NAME_SERVER)
        self.records: dict[str, list[str]] = {}

    def answers(self, name: str, kind: str) -> Iterator[str]:
        yield from self.records.get(name.lower(), ())

    def was_asked(self, name: str) -> bool:
        return name in {asked for asked, _ in self.asked}


@pytest.fixture(scope="module")
def name_server() -> Iterator[NameServer]:
    require("root")  # for port 53
    with NameServer() as made:
        yield made


@pytest.fixture(scope="module")
def resolver(name_server: NameServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carried]:
    """tokgate as a resolver; what it said is looked at when it has ended."""
    running = Carried(DNS, tmp_path_factory.mktemp("resolver") / "dns")
    yield running
    running.close()
    assert "Traceback" not in running.narrated()


CLIENTS = Clients()


def ask(resolver: Carried, name: str, kind: str, *, edns: bool = True, tcp: bool = False) -> dns.message.Message:
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
def test_question(resolver: Carried, name_server: NameServer, question: Question, tcp: bool) -> None:
    """The question is refused with a reason where it can carry one, and the same question for its twin is answered."""
    name_server.records = {question.name.lower(): list(question.answers)}
    answer = ask(resolver, question.name, question.kind, edns=question.edns, tcp=tcp)
    assert is_refused(answer), answer.to_text()
    if question.edns and answer.rcode() != dns.rcode.FORMERR:
        assert [option for option in answer.options if isinstance(option, dns.edns.EDEOption)]
    twin = question.twin
    name_server.records = {dns.name.from_text(twin.name).to_text(True).lower(): list(twin.answers)}
    answered = ask(resolver, twin.name, twin.kind, edns=twin.edns, tcp=tcp)
    assert answered.rcode() == dns.rcode.NOERROR
    assert answered.answer


def test_each_refusal_is_in_the_log(name_server: NameServer, tmp_path: Path) -> None:
    """A name that leads to the banned one leaves the record that the banned one leaves."""
    with closing(Carried(DNS, tmp_path / "dns")) as running:
        for number, question in enumerate(QUESTIONS):
            name_server.records = {question.name.lower(): list(question.answers)}
            ask(running, question.name, question.kind, tcp=bool(number % 2))
    actions = [record["event"]["action"] for record in running.records()]
    assert actions.count("dns-query-blocked") == len(QUESTIONS)


def octets(name: str, number: int = 2) -> bytes:
    return dns.message.make_query(name, "A", id=number, use_edns=0).to_wire()


def two_questions(first: str, second: str) -> bytes:
    message = dns.message.make_query(first, "A")
    message.question.append(dns.rrset.RRset(dns.name.from_text(second), dns.rdataclass.IN, dns.rdatatype.A))
    return message.to_wire()


NAME = b"\3www\5clips\7example\3org\0"
HEAD = b"\0\1\1\0\0\1\0\0\0\0\0\0"
ODD = {
    "two questions": two_questions("www.example.org", BANNED),
    "two questions reversed": two_questions(BANNED, "www.example.org"),
    "a pointer to itself": HEAD + b"\xc0\x0c\0\1\0\1",
    "two pointers at each other": HEAD + b"\xc0\x0e\xc0\x0c\0\1\0\1",
    "a pointer to the name behind it": HEAD + b"\xc0\x12\0\1\0\1" + NAME,
    "a name that ends in a pointer": HEAD + b"\3www\xc0\x17\0\1\0\1x" + NAME[4:],
    "a label of another type": HEAD + b"\x41x" + NAME + b"\0\1\0\1",
    "cut off in the name": HEAD + NAME[:9],
    "cut off behind the name": HEAD + NAME + b"\0",
    "no question": HEAD[:4] + b"\0\0" + HEAD[6:] + NAME + b"\0\1\0\1",
    "a response": b"\0\1\x81\0" + HEAD[4:] + NAME + b"\0\1\0\1",
    "another opcode": b"\0\1\x11\0" + HEAD[4:] + NAME + b"\0\1\0\1",
    "class CH": HEAD + NAME + b"\0\1\0\3",
    "class ANY": HEAD + NAME + b"\0\1\0\xff",
    "octets behind the question": HEAD + NAME + b"\0\1\0\1" + NAME,
    "the name in an answer of the question": HEAD[:6] + b"\0\1" + HEAD[8:] + NAME + b"\0\1\0\1",
}
"""Messages that a resolver might read otherwise than we do."""


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_odd_message(resolver: Carried, name_server: NameServer, data: bytes) -> None:
    """The name server is not asked for the banned name, by UDP or TCP, and answers what is asked behind it."""
    name_server.records = {
        BANNED: [f"{BANNED}. 60 A 192.0.2.80"],
        "www.example.org": ["www.example.org. 60 A 192.0.2.1"],
    }
    name_server.asked.clear()
    client = CLIENTS.address("127.0.0.1", banned=True)
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind((client, 0))
        datagrams.sendto(data, ("127.0.0.1", resolver.explicit))
        datagrams.settimeout(DEADLINE)
        datagrams.sendto(octets("www.example.org"), ("127.0.0.1", resolver.explicit))
        while not (answer := dns.message.from_wire(datagrams.recv(65535), ignore_trailing=True)).answer:
            continue
    assert answer.question[0].name.to_text() == "www.example.org."
    behind = octets("www.example.org")
    answered = asked_over_tcp(resolver, [struct.pack("!H", len(each)) + each for each in (data, behind)], 1)
    assert answered in ([], ["www.example.org"])  # the stream may as well end
    assert not name_server.was_asked(BANNED)
    assert ask(resolver, "www.example.org", "A", tcp=True).answer


def asked_over_tcp(resolver: Carried, pieces: list[bytes], wanted: int) -> list[str]:
    """The names of so many answers to a client that sends these pieces; fewer where the stream ends."""
    client, said, found = CLIENTS.address("127.0.0.1", banned=True), b"", list[str]()
    with socket.create_connection(("127.0.0.1", resolver.explicit), DEADLINE, (client, 0)) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                stream.sendall(piece)
            while len(found) < wanted and (piece := stream.recv(65535)):
                said += piece
                while len(said) > 2 and len(said) >= 2 + (length := struct.unpack("!H", said[:2])[0]):
                    answer = dns.message.from_wire(said[2 : 2 + length], ignore_trailing=True)
                    found += [rrset.name.to_text(omit_final_dot=True) for rrset in answer.answer]
                    said = said[2 + length :]
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 40, 1000])
def test_questions_in_one_stream(resolver: Carried, name_server: NameServer, size: int) -> None:
    """Each is decided by itself, whatever pieces they come in, also where the length is cut."""
    name_server.records = {
        name: [f"{name}. 60 A 192.0.2.80"] for name in (BANNED, "www.example.org", "x.example.net", "y.example.net")
    }
    name_server.asked.clear()
    names = ("x.example.net", BANNED, "www.example.org", BANNED.upper(), "y.example.net")
    asked = [octets(name, number) for number, name in enumerate(names)]
    data = b"".join(struct.pack("!H", len(one)) + one for one in asked)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert sorted(asked_over_tcp(resolver, pieces, 3)) == ["www.example.org", "x.example.net", "y.example.net"]
    assert not name_server.was_asked(BANNED)
