"""Coverage in words: which share showed a name, and what was not seen."""

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from labs import builders
from labs.builders import at
from tokgate.blocklog.records.coverage import NOT_COUNTED, Share, coverage_counted, share_of
from tokgate.blocklog.records.record import Observer, new_stamp
from tokgate.policy.analysis.now import now_of
from tokgate.policy.observation import KernelRefusal

SEEN = {
    "sni": 900,
    "quic-sni": 50,
    "decrypted": 20,
    "dns": 9,
    "address": 11,
    "none": 7,
    "ech-outer": 3,
}


def test_the_sentences() -> None:
    """A share of names, and each way of not being seen with its number."""
    judged, unseen, not_counted = Share(SEEN).sentences()
    assert judged == "Of 1,000 connections and requests 97.9 % showed a name, by which they were judged."
    assert unseen == (
        "Not seen by name: 11 judged by address alone; 7 TLS that named no host; "
        "3 TLS whose real name was encrypted (ECH)."
    )
    assert not_counted == NOT_COUNTED


@pytest.mark.parametrize(
    ("seen", "percent"),
    [({}, "–"), ({"sni": 1}, "100 %"), ({"sni": 99999, "none": 1}, "99.9 %"), ({"none": 4}, "0 %")],
)
def test_the_share_is_never_rounded_up(seen: dict[str, int], percent: str) -> None:
    """100 % means all."""
    assert Share(seen).percent == percent


def test_all_and_nothing_are_said_plainly() -> None:
    """No zero shares, no empty lists."""
    assert (
        Share({"sni": 2}).sentences()[0]
        == "All of 2 connections and requests showed a name, by which they were judged."
    )
    assert Share({"none": 1}).sentences()[0].startswith("Of 1 connection or request 0 % showed")
    assert Share({}).sentences() == ("Nothing passed or was refused.", NOT_COUNTED)


def test_a_newer_versions_words_are_not_taken_for_seen() -> None:
    assert "3 of which this version doesn't know" in Share({"sni": 1, "telepathy": 3}).sentences()[1]


def test_networks_are_added_up() -> None:
    assert share_of({"office": {"sni": 1}, "-": {"sni": 2, "none": 1}}).seen == {"sni": 3, "none": 1}


def test_what_the_kernel_refused(valid_record: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """No gate saw it: it stands beside the counts of what was decided, by kind and in words."""
    stamp = new_stamp(at("2023-03-10T10:00:00Z"), Observer(hostname="gateway.example.org", version="0"))
    refused = {kind.value: number for number, kind in enumerate(KernelRefusal, 1)}
    record = valid_record(coverage_counted(stamp, {}, at("2023-03-10T09:00:00Z"), refused))
    assert record["tokgate"]["gateway"]["refused"] == refused
    assert "Packets that the kernel refused, and no gate saw: 1 of QUIC to port 443; 2 of QUIC" in record["message"]
    counted = coverage_counted(stamp, {"office": SEEN}, at("2023-03-10T09:00:00Z"))["tokgate"]
    assert counted["judged"] == {"total": 1000, "named": 979, "percent": 97}
    assert record["tokgate"]["judged"] == {"total": 0, "named": 0}
    assert "gateway" not in coverage_counted(stamp, {}, at("2023-03-10T09:00:00Z"))["tokgate"]


def test_what_is_in_force(valid_record: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A court reads in the record of the hour that the ban stood, and that a network was open."""
    stamp = new_stamp(at("2023-03-15T10:00:00Z"), Observer(hostname="gateway.example.org", version="0"))
    closed = builders.snapshot(builders.ban())
    opening = builders.exemption(clients=(ip_network("192.0.2.0/24"), ip_network("2001:db8:1::/48")), by="eve")
    opened = builders.snapshot(builders.ban(), exemptions=(opening,))
    one, other, before = (
        valid_record(coverage_counted(stamp, {}, stamp.at, now=now_of(snapshot, moment)))
        for snapshot, moment in ((closed, stamp.at), (opened, stamp.at), (closed, at("2023-03-01T00:00:00Z")))
    )
    assert one["tokgate"]["in_force"] == other["tokgate"]["in_force"] == ["block: ban for office"]
    assert one["message"].endswith("Then 1 ban is in force.")
    assert "open" not in one["tokgate"]
    (sentence,) = other["tokgate"]["open"]
    assert sentence == "the whole network office is exempt from ban by eve until 2023-03-31T16:00:00Z: press"
    assert "in_force" not in before["tokgate"]
    assert "no ban is in force until 2023-03-09T23:00:00Z" in before["message"]
