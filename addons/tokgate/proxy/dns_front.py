"""The layer in front of DNS: decides each question, refuses or has it answered, and keeps answers to their terms.

It stands where mitmproxy has its DNSLayer, which remembers answers by message id alone, for ever, and writes every
message anew from what it understood of it.
"""
# mypy: disallow-untyped-calls=False

import re
import struct
import time
from collections.abc import Iterator
from typing import Final

from mitmproxy import dns
from mitmproxy.net.dns import types
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.dns import DnsRequestHook
from mitmproxy.proxy.mode_specs import DnsMode

from tokgate.blocklog.observation import Endpoint, Transport
from tokgate.gate import questions
from tokgate.gate.enforcer import Enforcer, Ruling
from tokgate.gate.questions import Asked
from tokgate.policy.names import parse_address
from tokgate.proxy.guard import Guard
from tokgate.proxy.visit import Visit
from tokgate.wire import dns_message
from tokgate.wire.dns_message import Query, QueryError, Rcode

OPEN_QUESTIONS: Final = 512
"""Most questions of one connection that wait for an answer; one more gives up the oldest."""
_LENGTH: Final = struct.Struct("!H")
_TLS: Final = b"\x16\x03"
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_is_host: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch


class DnsFront(layer.Layer):
    """Speaks DNS with one client, over UDP or TCP, and with the resolver that it asked or that we know."""

    def __init__(self, context: Context, enforcer: Enforcer, visit: Visit) -> None:
        super().__init__(context)
        self._enforcer: Final = enforcer
        self._visit: Final = visit
        self._stream: Final = context.client.transport_protocol == "tcp"
        self._from_client = bytearray()
        self._from_server = bytearray()
        self._open: Final[dict[int, Asked]] = {}
        self._spoke = False
        self._done = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._done:
            return
        if isinstance(event, events.DataReceived):
            if event.connection == self.context.client:
                yield from self._receive(event.data)
            else:
                for message in self._messages(self._from_server, event.data):
                    yield from self._pass_back(message)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._close()

    # From the client.

    def _receive(self, data: bytes) -> layer.CommandGenerator[None]:
        if self._stream and not self._spoke:
            self._from_client += data
            if self._from_client[:1] == _TLS[:1] and len(self._from_client) < len(_TLS):
                return
            self._spoke, data = True, bytes(self._from_client)
            self._from_client.clear()
            if (
                data[:2] == _TLS and self.context.server.address is not None
            ):  # also how a question of more than 5,635 octets begins, which then is refused
                yield from self._become_guard(data)
                return
        for message in self._messages(self._from_client, data):
            if self._done:
                return
            yield from self._take(message)

    def _take(self, message: bytes) -> layer.CommandGenerator[None]:
        """Answer one message, or ask on."""
        self._visit.spoken()
        try:
            query = dns_message.read_query(message)
        except QueryError as error:
            if error.reply is not None:
                yield from self._send(error.reply)
            elif self._stream:
                yield from self._close()
            return
        asked = self._asked(query)
        reply = self._own_word(asked)
        if reply is not None:
            yield from self._send(reply)
        else:
            yield from self._ask(asked, message)

    def _own_word(self, asked: Asked) -> bytes | None:
        """What we answer ourselves, before anyone else is asked; None: nothing."""
        try:
            ruling = questions.judge(self._enforcer, asked)
            questions.enter(self._enforcer, asked, ruling)
            if ruling.blocks:
                return questions.refuse(asked, ruling)
            rcode = questions.discouraged(self._enforcer, asked)
        except Exception as error:
            return self._by_fallback(asked, error)
        return None if rcode is None else dns_message.refusal(asked.query, rcode, ttl=questions.REMEMBERED)

    def _by_fallback(self, asked: Asked, error: Exception) -> bytes | None:
        """What `on_error` makes of a question about which something failed; None: it passes."""
        self._enforcer.failed("dns", error)
        ruling = self._enforcer.judge_by_fallback(asked.names)
        questions.enter(self._enforcer, asked, ruling)
        return dns_message.refusal(asked.query, Rcode.NXDOMAIN) if ruling.blocks else None

    # Towards an answer.

    def _ask(self, asked: Asked, message: bytes) -> layer.CommandGenerator[None]:
        """Have mitmproxy's resolver answer, if it is the one that was asked, or pass the question on as it came."""
        server = self.context.server
        flow = dns.DNSFlow(self.context.client, server, live=True)
        flow.request = _request(asked.query)
        yield DnsRequestHook(flow)
        flow.live = False
        if flow.response is not None:
            yield from self._send(self._answer_of(asked, flow.response))
            return
        failed = flow.error is not None or server.address is None
        if not failed and not server.connected:
            failed = (yield commands.OpenConnection(server)) is not None
        if failed:
            yield from self._send(dns_message.refusal(asked.query, Rcode.SERVFAIL))
            return
        self._open.pop(asked.query.id, None)
        self._open[asked.query.id] = asked
        if len(self._open) > OPEN_QUESTIONS:
            del self._open[next(iter(self._open))]
        yield commands.SendData(server, self._framed(message))

    def _answer_of(self, asked: Asked, response: dns.DNSMessage) -> bytes:
        """The resolver's answer in the form in which it goes to the client."""
        try:
            answer = dns_message.fitting(asked.query, response.packed, udp=not self._stream)
        except ValueError:
            return dns_message.refusal(asked.query, Rcode.SERVFAIL)
        return self._kept_to_terms(asked, answer)

    def _pass_back(self, message: bytes) -> layer.CommandGenerator[None]:
        """Give the client a server's answer, if it is one to an open question."""
        asked = self._open.get(_LENGTH.unpack_from(message)[0]) if len(message) > 1 else None
        if asked is None or not dns_message.answers(asked.query, message):
            return
        if not (asked.query.transfers and self._stream):
            del self._open[asked.query.id]
        yield from self._send(self._kept_to_terms(asked, message))

    def _kept_to_terms(self, asked: Asked, answer: bytes) -> bytes:
        """The answer as it may be given now: time has passed since the question, and a ban may have begun."""
        try:
            ruling = questions.judge(self._enforcer, asked)
            if ruling.blocks:
                questions.enter(self._enforcer, asked, ruling)
                return questions.refuse(asked, ruling)
            return _edited(asked, ruling, answer)
        except ValueError:  # it can't be read, and must not pass unread
            return dns_message.refusal(asked.query, Rcode.SERVFAIL)
        except Exception as error:
            return self._by_fallback(asked, error) or answer

    # What both directions share.

    def _asked(self, query: Query) -> Asked:
        address = self.context.server.address
        client = self.context.client
        ours = isinstance(client.proxy_mode, DnsMode)
        known = not ours and address is not None and parse_address(address[0]) is not None
        return Asked(
            client=self._visit.client,
            query=query,
            transport=Transport.TCP if self._stream else Transport.UDP,
            resolver=Endpoint(address[0], address[1]) if known and address is not None else None,
            connection=self._visit.connection,
            identity=self._visit.identity,
            carried=not ours,
        )

    def _messages(self, buffer: bytearray, data: bytes) -> Iterator[bytes]:
        """The whole messages that have come; the rest waits in the buffer (RFC 1035 §4.2.2)."""
        if not self._stream:
            yield data
            return
        buffer += data
        while len(buffer) >= _LENGTH.size and len(buffer) - _LENGTH.size >= (size := _LENGTH.unpack_from(buffer)[0]):
            message = bytes(buffer[_LENGTH.size : _LENGTH.size + size])
            del buffer[: _LENGTH.size + size]
            yield message

    def _framed(self, message: bytes) -> bytes:
        return _LENGTH.pack(len(message)) + message if self._stream else message

    def _send(self, message: bytes) -> layer.CommandGenerator[None]:
        yield commands.SendData(self.context.client, self._framed(message))

    def _close(self) -> layer.CommandGenerator[None]:
        """One end has gone. Who still waits learns that there will be no answer."""
        self._done = True
        if self.context.client.connected:
            for asked in self._open.values():
                yield from self._send(dns_message.refusal(asked.query, Rcode.SERVFAIL))
        for end in (self.context.server, self.context.client):
            if end.connected:
                yield commands.CloseConnection(end)

    def _become_guard(self, received: bytes) -> layer.CommandGenerator[None]:
        """TLS on this port, as nobody's resolver speaks it: decided like all TLS."""
        self.context.layers.remove(self)
        guard = Guard(self.context, self._enforcer, self._visit, tunnelled=False)
        self._handle_event = guard.handle_event  # type: ignore[method-assign]
        yield from guard.handle_event(events.Start())
        yield from guard.handle_event(events.DataReceived(self.context.client, received))


def _request(query: Query) -> dns.DNSMessage:
    """The question for mitmproxy's resolver; not read by mitmproxy, which does not know all names.

    Asked for addresses the resolver answers itself, without signatures, and for host names only; asked for anything
    else it says who is to be asked.
    """
    by_itself = _is_host(query.name) and not query.dnssec_ok
    kind = query.type if by_itself else types.TXT
    return dns.DNSMessage(
        id=query.id,
        query=True,
        op_code=query.opcode,
        authoritative_answer=False,
        truncation=False,
        recursion_desired=True,
        recursion_available=False,
        reserved=0,
        response_code=0,
        questions=[dns.Question(query.name, kind, query.class_)],
        answers=[],
        authorities=[],
        additionals=[],
        timestamp=time.time(),
    )


def _edited(asked: Asked, ruling: Ruling, answer: bytes) -> bytes:
    """The answer within its terms. Raises ValueError if that needs it to be read, and it can't be."""
    terms = questions.terms(asked, ruling)
    if terms.longest is not None:
        answer = dns_message.capped(answer, terms.longest)
    if terms.hides_nothing and dns_message.offers_ech(answer):
        answer = dns_message.without_ech(answer)
    return answer
