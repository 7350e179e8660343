"""Who the client is besides its address: what networks make of it, and that nothing changes where nothing is known."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from labs.builders import BRUSSELS, OFFICE, at, ban, exemption, network, snapshot
from tokgate.policy.decide import Sighting, decide, decide_signals, is_under_block
from tokgate.policy.decision import Signal, Verdict
from tokgate.policy.membership import Identifies, Identity, joined
from tokgate.policy.networks import Device, Network, hardware_address
from tokgate.policy.snapshot import Snapshot

MAY = at("2023-05-02T08:00:00Z")
NAME = "www.clips.example.org"
ELSEWHERE = "198.51.100.7"
LAPTOP = Device("Laptop-7", (ip_network("198.51.100.70/32"),), ("00:53:00:00:00:07",), "alice", ("federal",))


def people(**named: tuple[object, ...]) -> Network:
    """A network that names its clients by other things than prefixes."""
    return Network("people", (), BRUSSELS, **named)  # type: ignore[arg-type]


def verdict(policy: Snapshot, identity: Identity | None, client: str = ELSEWHERE) -> Verdict:
    """What is decided of a banned name."""
    return decide(policy, client, NAME, MAY, identity=identity).verdict


def test_signals_are_judged_with_the_identity() -> None:
    """Several sightings are each decided for who it is."""
    policy = snapshot(ban(networks=("people",)), networks=(people(users=("alice",)),))
    sightings = [Sighting(Signal.HTTP_HOST, "example.org"), Sighting(Signal.SNI, NAME)]
    assert decide_signals(policy, ELSEWHERE, sightings, MAY).decision.verdict is Verdict.ALLOW
    assert decide_signals(policy, ELSEWHERE, sightings, MAY, Identity("alice")).decision.verdict is Verdict.BLOCK
    assert [is_under_block(policy, ELSEWHERE, MAY, Identity(name)) for name in ("alice", "bob")] == [True, False]


def test_narrowest() -> None:
    """A user and a device count as one address does; a group and an interface as wider than any prefix."""
    stated = {
        "user": Network("user", (), users=("alice",)),
        "device": Network("device", (), devices=(LAPTOP,)),
        "group": Network("group", (), groups=("press",)),
        "interface": Network("interface", (), interfaces=("eth1",)),
        "wide": network("wide", "0.0.0.0/1", "128.0.0.0/1"),
        "single": network("single", f"{ELSEWHERE}/32"),
    }
    identity = Identity("alice", frozenset({"press"}), "laptop-7", "eth1")
    for names, expected in (
        (("group", "interface", "wide", "user"), ("user", "wide", "group", "interface")),
        (("interface", "device", "wide"), ("device", "wide", "interface")),
        (("group", "single", "user"), ("single", "user", "group")),
    ):
        policy = snapshot(networks=tuple(stated[name] for name in names))
        assert tuple(policy.membership(ELSEWHERE, identity).networks) == expected
    both = Network("both", (ip_network("0.0.0.0/0"),), users=("alice",))
    assert policy.membership(ELSEWHERE).networks == {"single": 32}
    assert snapshot(networks=(both,)).membership(ELSEWHERE, identity).networks == {"both": 32}


def test_network_that_names_a_client_twice() -> None:
    """A client that is in a network by address and by group is as near to it as by address: the log names that one."""
    wide = network("wide", "198.51.0.0/16")
    near = Network("near", (ip_network("198.51.100.0/24"),), BRUSSELS, groups=("press",))
    policy = snapshot(networks=(wide, near))

    assert tuple(policy.membership(ELSEWHERE, Identity(groups=frozenset({"press"}))).networks) == ("near", "wide")


def test_link_and_person_are_both_known() -> None:
    """Who signs in over a banned interface with a banned device stays under the bans for both."""
    link = Identity(device="00:53:00:00:00:07", interface="eth1")

    assert joined(link, Identity("alice", frozenset({"press"}))) == Identity(
        "alice", frozenset({"press"}), "00:53:00:00:00:07", "eth1"
    )


def test_exemptions_and_strangers() -> None:
    """An address keeps its exemptions; who is named is no unknown client, not even at an address that is none."""
    policy = snapshot(
        ban(networks=("people",)),
        networks=(OFFICE, people(users=("alice",))),
        exemptions=(exemption(clients=(ip_network(f"{ELSEWHERE}/32"),), until=at("2099-01-01T00:00:00Z")),),
    )
    assert verdict(policy, Identity("alice")) is Verdict.ALLOW
    assert verdict(policy, Identity("alice"), "198.51.100.8") is Verdict.BLOCK
    assert verdict(policy, Identity("alice"), "nowhere") is Verdict.BLOCK


def test_what_carriers_have_to_find_out() -> None:
    """Only what the policy names: an address in an inventory is no reason to look for hardware addresses."""
    by_address = Device(None, LAPTOP.addresses, (), None, ())
    assert not snapshot().identifies.links
    assert not snapshot(networks=(people(devices=(by_address,)),)).identifies.hardware
    found = snapshot(networks=(people(devices=(LAPTOP,), groups=("Press",)),)).identifies
    assert (found.users, found.groups, found.hardware, found.interfaces) == (True, frozenset({"press"}), True, False)
    assert snapshot(networks=(people(interfaces=("eth1",)),)).identifies.links


@pytest.mark.parametrize("written", ["00:53:00:AA:bb:cc", "00-53-00-aa-bb-cc", "0053.00aa.bbcc", " 005300aabbcc "])
def test_hardware_address(written: str) -> None:
    assert hardware_address(written) == "00:53:00:aa:bb:cc"


@pytest.mark.parametrize("written", ["", "00:53:00:aa:bb", "00:53:00:aa:bb:cc:dd", "00:53:00:aa:bb:cg", "laptop-7"])
def test_no_hardware_address(written: str) -> None:
    assert hardware_address(written) is None


def test_nothing_found_out_changes_nothing() -> None:
    """Where nothing that matters is known, it is the very same membership, and so the same decision."""
    policy = snapshot(ban(), networks=(OFFICE, people(users=("alice",))))
    by_address = policy.membership("192.0.2.1")
    assert policy.membership("192.0.2.1", Identity()) is policy.membership("192.0.2.1", Identity("bob")) is by_address
    assert decide(policy, "192.0.2.1", NAME, MAY, identity=Identity()) is decide(policy, "192.0.2.1", NAME, MAY)


def test_clients_that_cannot_be_told_apart_share_a_membership() -> None:
    """A hundred thousand devices of one network are remembered once, not each with decisions of its own."""
    devices = tuple(Device(None, (ip_network(f"192.0.2.{n}/32"),), (), None, ()) for n in range(256))
    policy = snapshot(networks=(people(devices=devices),))
    assert len({id(policy.membership(f"192.0.2.{n}")) for n in range(256)}) == 1


def test_which_networks_are_known_by_address_alone() -> None:
    """`tokgate override` can say who is meant only where an address tells it."""
    assert OFFICE.by_address
    assert Network("devices", (), BRUSSELS, devices=(replace(LAPTOP, hardware=()),)).by_address
    for other in (people(users=("alice",)), people(groups=("press",)), people(interfaces=("eth1",))):
        assert not other.by_address
    assert not Network("devices", (), BRUSSELS, devices=(LAPTOP,)).by_address


def test_devices_are_called_by_what_is_known_of_them() -> None:
    """A message about a device without a name still says which one."""
    nameless = replace(LAPTOP, name=None)
    assert [str(each) for each in (LAPTOP, nameless, replace(nameless, hardware=()))] == [
        "Laptop-7",
        "00:53:00:00:00:07",
        "198.51.100.70",
    ]


def test_an_identity_without_anything_in_it() -> None:
    """It is none: carriers need not hand it on."""
    assert not Identity()
    assert all((Identity("alice"), Identity(groups=frozenset({"a"})), Identity(device="a"), Identity(interface="b")))


@pytest.mark.parametrize(
    ("named", "identity", "client", "exempt"),
    [
        ({"users": ("ALice",)}, Identity(user="alicE"), ELSEWHERE, True),
        ({"users": ("alice",), "interfaces": ("eth7",)}, Identity(user="bob", interface="eth7.20"), ELSEWHERE, False),
        ({"users": ("alice",)}, None, ELSEWHERE, False),
        ({"groups": ("press",)}, Identity(user="x", groups=frozenset({"press"})), ELSEWHERE, True),
        ({"interfaces": ("eth7",)}, Identity(interface="eth7"), ELSEWHERE, True),
        ({"devices": ("laptop-7",)}, Identity(device="0053.0000.0007"), ELSEWHERE, True),
        ({"devices": ("laptop-7",)}, None, "198.51.100.70", True),
        ({"devices": ("0053.0000.0008",)}, Identity(device="00:53:00:00:00:08"), ELSEWHERE, True),
        ({"devices": ("laptop-8",)}, Identity(device="00:53:00:00:00:07"), ELSEWHERE, False),
        ({"users": ("alice",), "interfaces": ("eth7",)}, Identity(user="bob", interface="eth7"), ELSEWHERE, True),
    ],
)
def test_exemptions_by_identity(named: dict[str, Any], identity: Identity | None, client: str, exempt: bool) -> None:
    """A journalist who signs in, or brings a known device, is exempt wherever she sits; nobody else is."""
    held = replace(network("office", "198.51.100.0/24"), devices=(LAPTOP,))
    exempting = exemption(clients=(), until=at("2043-01-01T00:00:00Z"), **named)
    policy = snapshot(ban(), networks=(held,), exemptions=(exempting,))
    assert verdict(policy, identity, client) is (Verdict.ALLOW if exempt else Verdict.BLOCK)


def test_an_exemption_by_user_has_carriers_find_out_users() -> None:
    """A gate that never asked who somebody is could exempt nobody."""
    held = exemption(clients=(), users=("alice",), groups=("Press",), interfaces=("eth7",), devices=("00530000ab08",))
    found = snapshot(ban(), exemptions=(held,)).identifies
    assert found == Identifies(users=True, groups=frozenset({"press"}), hardware=True, interfaces=True)


@pytest.mark.parametrize("one", [Identifies(users=True), Identifies(hardware=True), Identifies(interfaces=True)])
def test_what_either_policy_distinguishes(one: Identifies) -> None:
    """What one of two parts needs to know of a client is found out, whichever of them it is."""
    press, staff = (Identifies(groups=frozenset({name})) for name in ("press", "staff"))
    assert one | staff | press == press | staff | one == replace(one, groups=frozenset({"press", "staff"}))
    assert (one | Identifies(), one.links) == (one, not one.users)
