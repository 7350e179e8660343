"""Networks of networks, and exceptions: a client is in what a reference finds that only reads the statements."""

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from tokgate.gateway.nft_sets import ClientSets
from tokgate.policy.membership import Identity
from tokgate.policy.networks import Composition, Device, Network, hardware_address, linked, with_parts
from tokgate.policy.settings import Settings
from tokgate.policy.snapshot import Policy, compile_policy
from tokgate.policy.values.prefixes import IPNetwork, difference

ADDRESSES: Final = [str(ip_address("192.0.2.0") + n) for n in range(16)] + [
    str(ip_address("2001:db8::") + n) for n in range(4)
]
MACS: Final = ("00:53:00:00:00:01", "00:53:00:00:00:02")


@st.composite
def prefixes(draw: st.DrawFn) -> tuple[IPNetwork, ...]:
    """Prefixes within 16 IPv4 and 4 IPv6 addresses."""
    found: list[IPNetwork] = []
    for _ in range(draw(st.integers(0, 3))):
        address, length = draw(st.sampled_from(ADDRESSES)), draw(st.integers(0, 4))
        longest = ip_address(address).max_prefixlen
        found.append(ip_network((address, longest - length), strict=False))
    return tuple(dict.fromkeys(found))


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Network]:
    """Networks, each of which may be made of earlier ones and except some of them, in any order in the policy."""
    found: list[Network] = []
    for number in range(draw(st.integers(1, 6))):
        earlier = st.lists(st.sampled_from([each.name for each in found]), max_size=3) if found else st.just([])
        macs = draw(st.lists(st.sampled_from(MACS), max_size=1))
        hosts = draw(st.lists(st.sampled_from(ADDRESSES).map(ip_network), max_size=1))
        found.append(
            Network(
                f"n{number}",
                draw(prefixes()),
                users=tuple(draw(st.lists(st.just("Alice"), max_size=1))),
                interfaces=tuple(draw(st.lists(st.sampled_from(["eth1", "eth2"]), max_size=1))),
                groups=tuple(draw(st.lists(st.just("Press"), max_size=1))),
                devices=(Device("Laptop", tuple(hosts), tuple(macs), None, ()),),
                networks=tuple(dict.fromkeys(draw(earlier))),
                except_cidrs=draw(prefixes()),
                except_networks=tuple(dict.fromkeys(draw(earlier))),
            )
        )
    return linked({each.name: each for each in draw(st.permutations(found))})


CLIENTS: Final = st.builds(
    Identity,
    user=st.sampled_from([None, "aLICE", "press"]),
    groups=st.sampled_from([frozenset(), frozenset({"press", "staff"}), frozenset({"alice"})]),
    device=st.sampled_from([None, "0053.0000.0001", MACS[1], "laptop"]),
    interface=st.sampled_from([None, "eth1", "eth2", "eth1.20"]),
)


def holds(networks: Mapping[str, Network], name: str, address: str, who: Identity) -> bool:
    """The reference: the statements, one by one."""
    network, client = networks[name], ip_address(address)
    inside = (
        any(client in prefix for prefix in network.cidrs)
        or (who.user or "").lower() in map(str.lower, network.users)
        or who.interface in network.interfaces
        or not who.groups.isdisjoint(map(str.lower, network.groups))
        or any(who.device == "laptop" or hardware_address(who.device or "") in d.hardware for d in network.devices)
        or any(client in prefix for device in network.devices for prefix in device.addresses)
        or any(holds(networks, each, address, who) for each in network.networks)
    )
    outside = any(client in prefix for prefix in network.except_cidrs) or any(
        holds(networks, each, address, who) for each in network.except_networks
    )
    return inside and not outside


def policy(networks: Mapping[str, Network]) -> Policy:
    """A policy of these networks alone."""
    return Policy(services={}, networks=networks, bans={}, exemptions={}, settings=Settings(), version="")


@given(networks=policies(), address=st.sampled_from(ADDRESSES), who=CLIENTS)
def test_membership_is_that_of_the_reference(networks: dict[str, Network], address: str, who: Identity) -> None:
    """By address alone, and with what else is known about the client."""
    snapshot = compile_policy(policy(networks))
    for identity in (Identity(), who):
        found = snapshot.membership(address, identity or None).networks
        assert set(found) == {name for name in networks if holds(networks, name, address, identity)}
        assert list(found.values()) == sorted(found.values(), reverse=True)


@given(networks=policies())
def test_prefixes_are_the_addresses_that_are_in_it(networks: dict[str, Network]) -> None:
    """What a network says of its addresses is what decides about a client of which nothing else is known."""
    for name, network in networks.items():
        known = {each for each in ADDRESSES if any(ip_address(each) in prefix for prefix in network.prefixes)}
        assert known == {each for each in ADDRESSES if holds(networks, name, each, Identity())}


_CONDITION: Final = re.compile(
    r"(ip6?|ether) saddr (!= )?(@\w+|{[^}]*})|iifname (!= )?(@\w+|{[^}]*})|meta nfproto (ipv\d)"
)


def elements(sets: Mapping[str, list[str]], said: str) -> list[str]:
    """The elements of a set, named or in place."""
    return (
        sets.get(said.removeprefix("@"), [])
        if said.startswith("@")
        else [w.strip() for w in said.strip("{}").split(",")]
    )


def matches(sets: Mapping[str, list[str]], rule: str, address: str, who: Identity) -> bool:
    """Whether the kernel would find that a packet meets all conditions of a rule."""
    client, found = ip_address(address), list(_CONDITION.finditer(rule))
    assert " ".join(each[0] for each in found) == rule
    for each in found:
        family, negated, listed, no_interface, interfaces, version = each.groups()
        if version is not None:
            met = version == f"ipv{client.version}"
        elif interfaces is not None:
            met = (f'"{who.interface}"' in elements(sets, interfaces)) != bool(no_interface)
        elif family == "ether":
            met = (who.device in elements(sets, listed)) != bool(negated)
        elif client.version != (4 if family == "ip" else 6):
            met = False
        else:
            met = any(client in ip_network(prefix) for prefix in elements(sets, listed)) != bool(negated)
        if not met:
            return False
    return True


def nested_exceptions(network: Network) -> bool:
    """Whether it excepts a network that has exceptions or parts, by link: rules except all of that one's links."""
    return any(
        part.except_cidrs or part.except_networks
        for each in network.parts
        for out in each.excluded
        for part in out.parts
    )


@given(networks=policies(), address=st.sampled_from(ADDRESSES), who=CLIENTS)
def test_the_kernel_takes_the_same_clients(networks: dict[str, Network], address: str, who: Identity) -> None:
    """The sets and conditions of nftables hold whom the policy holds; users are known to no kernel."""
    seen = Identity(device=hardware_address(who.device or ""), interface=who.interface)
    for name, network in networks.items():
        people = (out for part in network.parts for out in part.excluded if out.users or out.groups)
        if nested_exceptions(network) or any(people):
            continue
        rules = ClientSets("c", "Clients.", (network,), loopback=True)
        text = "\n".join(rules.declared())
        sets = {
            found[1]: [word.strip() for word in found[2].split(",") if word.strip()]
            for found in re.finditer(r"set (\w+) {[^}]*?elements = {([^}]*)}", text)
        }
        taken = any(matches(sets, rule, address, seen) for rule in rules.matches())
        assert taken == holds(networks, name, address, seen)


@given(inside=prefixes(), outside=prefixes())
def test_difference_of_prefixes(inside: tuple[IPNetwork, ...], outside: tuple[IPNetwork, ...]) -> None:
    """Each address of the one and not of the other is in exactly one prefix, and no other is in any."""
    found = list(difference(inside, outside))
    for address in map(ip_address, ADDRESSES):
        expected = any(address in each for each in inside) and not any(address in each for each in outside)
        assert [address in each for each in found].count(True) == expected


def test_many_levels() -> None:
    """Hundreds of networks, each made of the one before, are linked and asked without recursion."""
    chain = {f"n{n}": Network(f"n{n}", (), networks=(f"n{n - 1}",)) for n in range(1, 300)}
    chain["n0"] = Network("n0", (ip_network("192.0.2.0/24"),))
    networks = linked(dict(reversed(chain.items())))
    assert list(networks["n299"].prefixes) == [ip_network("192.0.2.0/24")]
    assert Composition(networks.values()).complete({"n0": 24})["n299"] == 24
    assert with_parts(["n2"], networks) == {"n0", "n1", "n2"}


def test_networks_that_share_their_parts() -> None:
    """However often a network is named on the ways to it, it is looked at once."""
    levels = [(f"a{n}", f"b{n}") for n in range(40)]
    networks = {"c": Network("c", ())}
    for pair, below in zip(levels, [("c",), *levels], strict=False):
        networks |= {name: Network(name, (), networks=below) for name in pair}
    assert with_parts(["a39"], networks) == set(networks) - {"b39"}


def test_a_network_is_what_it_states() -> None:
    """One whose parts have changed is itself the same: a change is told of once, where it was made."""
    first, second = ip_network("192.0.2.0/24"), ip_network("198.51.100.0/24")
    whole = Network("whole", (), networks=("part",), except_networks=("out",))
    one, other = (
        linked({each.name: each for each in (part, out, whole)})["whole"]
        for part, out in (
            (Network("part", (first,)), Network("out", (second,))),
            (Network("part", (), interfaces=("eth1",)), Network("out", (first,))),
        )
    )
    assert list(one.prefixes) != list(other.prefixes)
    assert (one, repr(one)) == (other, repr(other))
