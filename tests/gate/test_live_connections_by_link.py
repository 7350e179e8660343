"""Live connections of clients that are told apart by their link, when a ban of theirs begins."""

from collections.abc import Callable

from labs.builders import ban, network
from labs.gate_lab import Clock, Origin, RunningGate, broken_off, dial, exactly, policy, until
from labs.hello_builder import hello_for
from tokgate.policy.networks import Network


def test_a_ban_by_interface_cuts_what_came_by_it(
    start_gate: Callable[..., RunningGate], start_origin: Callable[..., Origin]
) -> None:
    """A policy that begins to ban everyone behind an interface ends their connections, though no address is named."""
    before, after = (
        policy(
            ban(networks=("guests",)),
            networks=(network("loop", "127.0.0.0/8"), Network("guests", (), interfaces=(interface,))),
        )
        for interface in ("guests0", "lo")
    )
    gate = start_gate(start_origin(), before, now=Clock("2023-06-01T00:00:00Z"))
    said = hello_for("www.clips.example.org")
    with dial(gate.redirected, said) as client:
        assert exactly(client, len(said)) == said
        gate.holder.snapshot = after
        assert broken_off(client)
    (record,) = until(lambda: gate.sink.records)
    assert (record["event"]["action"], record["tokgate"]["network"]) == ("connection-cut", "guests")
