"""The law of first bytes: for a client under a ban they pass because they were understood, or they are counted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs import builders
from labs import hello_builder as build
from labs.builders import at
from labs.records import Sink, enforcer_of
from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Endpoint, Visibility
from tokgate.policy.settings import MissingSni
from tokgate.traffic.actions import Open, Pass, Refuse
from tokgate.traffic.admission import Admission, admit
from tokgate.traffic.client_messages import FirstBytesReader
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import Arrival, Hello, OtherBytes, ProxyConnect

BANNED = "www.clips.example.org"


def decided(data: bytes, client: str, **settings: Any) -> tuple[Admission, Enforcer, Sink]:
    """What becomes of first bytes that end there, carried out."""
    snapshot = builders.snapshot(builders.ban(), **settings)
    sink = Sink()
    enforcer = enforcer_of(snapshot, sink, now=lambda: at("2023-04-01T12:00:00Z"))
    arrival = Arrival(client=Endpoint(client, 40000), destination=Endpoint("198.51.100.9", 443), connection="c")
    reader = FirstBytesReader()
    admission = admit(enforcer, arrival, reader.feed(data) or reader.ended())
    admission.record(enforcer)
    return admission, enforcer, sink


names = st.lists(
    st.sampled_from([b"www", b"clips", b"example", b"org", b".", b"!", b"*", b"\0", b":443", b"8.8.8.8", b"\xff"]),
    max_size=6,
).map(b"".join)
hellos = st.builds(
    lambda listed, before, size, version: before + build.records(build.hello(*listed), size, version=version),
    st.lists(st.lists(names, min_size=1, max_size=2).map(lambda many: build.server_name(*many)), max_size=2),
    st.sampled_from([b"", b"\x15\3\1\0\2\1\x70", b"\x14\3\3\0\1\1", b"\x16\3\1\0\0"]),
    st.integers(1, 400),
    st.sampled_from([0x0301, 0x0200, 0x0001, 0x1603]),
)
lines = st.lists(
    st.sampled_from([b"GET", b" ", b"\t", b"\r", b"\n", b"/", b"HTTP/1.1", b"HTTP/1.10", b"CONNECT", b"a:443", b"SSH"])
).map(b"".join)
first_bytes = st.one_of(hellos, lines, st.binary(max_size=60), st.binary(max_size=20).map(lambda b: b"\x16\3\1" + b))


@given(data=first_bytes, missing=st.sampled_from(MissingSni))
def test_nothing_passes_unread(data: bytes, missing: MissingSni) -> None:
    """A pass is a name that is one and allowed, no name where the settings allow it, or another protocol, counted."""
    admission, enforcer, sink = decided(data, "192.0.2.7", missing_sni=missing)
    seen, action = admission.seen, admission.action
    if isinstance(action, Refuse):
        assert len(sink.records) == 1 or not admission.recorded
    elif isinstance(action, Pass):
        assert isinstance(seen, Hello | OtherBytes | ProxyConnect)
        if isinstance(seen, Hello):
            assert seen.hello.names_a_host or (seen.hello.is_nameless and missing is not MissingSni.BLOCK)
            assert "clips.example.org" not in (seen.hello.name or "").lower()
            assert action.watch
        if not isinstance(seen, ProxyConnect):
            (kind,) = enforcer.counters.decisions
            assert kind.outcome == Verdict.ALLOW
            assert isinstance(seen, Hello) or kind.visibility is Visibility.ADDRESS


@given(data=first_bytes)
def test_nothing_is_refused_to_others(data: bytes) -> None:
    """Clients under no ban pass as they came, or are read request by request, and leave no record."""
    admission, _, sink = decided(data, "198.51.100.7")
    assert isinstance(admission.action, Pass | Open)
    assert admission.action != Pass(watch=True)
    assert sink.records == []


@pytest.mark.parametrize("address", ["64:ff9b::203.0.113.7", "2002:cb00:7107::1"])
def test_addresses_in_addresses(address: str) -> None:
    """A banned IPv4 address is refused under each IPv6 address that stands for it."""
    enforcer = enforcer_of(builders.snapshot(builders.ban()), now=lambda: at("2023-04-01T12:00:00Z"))
    arrival = Arrival(client=Endpoint("192.0.2.7", 40000), destination=Endpoint(address, 22), connection="c")
    assert isinstance(admit(enforcer, arrival, OtherBytes()).action, Refuse)
