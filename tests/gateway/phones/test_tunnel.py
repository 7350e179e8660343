"""A tunnel and its phones as values, and the texts that are made of them."""

import plistlib
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from whenever import Instant

from tokgate.gateway import GatewayError
from tokgate.gateway.phones.tunnel import (
    Phone,
    Tunnel,
    inventory,
    is_key,
    mobileconfig,
    new_private_key,
    phones_in,
    public_key,
)

TUNNEL = Tunnel(
    interface="wg-tokgate",
    private_key=new_private_key(),
    host="vpn.example.org",
    port=51820,
    prefixes=(ip_network("10.83.0.0/29"), ip_network("fd83::/64")),
    name_servers=(ip_address("192.0.2.53"),),
    masquerade=True,
)
AT = Instant.from_utc(2027, 3, 1)


def phone(number: int, name: str = "one") -> Phone:
    """The phone with the addresses of that number."""
    addresses = ip_address("10.83.0.0") + number, ip_address("fd83::") + number
    return Phone(name, addresses, "alice, of the press", public_key(new_private_key()), AT)


def test_addresses_are_one_phones_for_ever() -> None:
    """A revoked phone's addresses go to nobody, and when none is left that is an error: the log must stay clear."""
    assert TUNNEL.free_addresses(()) == (ip_address("10.83.0.2"), ip_address("fd83::2"))
    assert TUNNEL.free_addresses((phone(2),))[0] == ip_address("10.83.0.3")
    after = replace(TUNNEL, revoked=(replace(phone(5), revoked=AT),))
    assert after.free_addresses((phone(2),))[0] == ip_address("10.83.0.6")
    with pytest.raises(GatewayError, match="no address of 10"):  # 7 is the broadcast address of the prefix
        TUNNEL.free_addresses((phone(6),))


def test_files() -> None:
    """What is written is read again."""
    phones = (phone(2), phone(3, "two"))
    assert phones_in(inventory(phones)) == phones
    tunnel = replace(TUNNEL, revoked=(replace(phone(4), revoked=AT.add(hours=1)),))
    assert Tunnel.decode(tunnel.encode()) == tunnel


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"interface": "x"}'])
def test_no_tunnel(text: str) -> None:
    """A file that holds something else is an error, not an empty tunnel."""
    with pytest.raises(GatewayError, match="this is no tunnel"):
        Tunnel.decode(text)


def test_no_phone() -> None:
    """A row without what a phone has is named by its line."""
    with pytest.raises(GatewayError, match="line 2 is no phone"):
        phones_in("name,address\nlaptop,192.0.2.7\n")


def test_peers() -> None:
    """Each phone may send from its own addresses and from no others."""
    one = phone(2)
    assert TUNNEL.peers((one,)).splitlines() == [
        "[Interface]",
        f"PrivateKey = {TUNNEL.private_key}",
        "ListenPort = 51820",
        "[Peer]",
        f"PublicKey = {one.public_key}",
        "AllowedIPs = 10.83.0.2/32,fd83::2/128",
    ]


def test_configuration() -> None:
    """All goes through the tunnel, IPv6 as well; a phone that made its key itself gets none."""
    one = phone(2)
    text = TUNNEL.configuration(one, None)
    assert "AllowedIPs = 0.0.0.0/0, ::/0\n" in text
    assert f"PublicKey = {public_key(TUNNEL.private_key)}\n" in text
    assert "PrivateKey" not in text
    assert TUNNEL.private_key not in TUNNEL.configuration(one, new_private_key())
    assert replace(TUNNEL, host="2001:db8::1").endpoint == "[2001:db8::1]:51820"


def test_a_known_pair() -> None:
    """The public key is that of RFC 7748 §6.1, in Base64."""
    alice = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
    assert public_key(alice) == "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


@pytest.mark.parametrize("text", ["", "x", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo", "AAAA", "hSDwCYkw p1R0i33c="])
def test_no_keys(text: str) -> None:
    """What is no key is told without its text, which may be most of a secret."""
    assert not is_key(text)
    with pytest.raises(ValueError, match=r"\Ano key\Z"):
        public_key(text)


def test_profile() -> None:
    """It holds the app's configuration, connects by itself, and a newer one of the same phone replaces it."""
    one = phone(2)
    configuration = TUNNEL.configuration(one, None)
    profile = plistlib.loads(mobileconfig(TUNNEL, one, configuration))
    (payload,) = profile["PayloadContent"]
    assert payload["VendorConfig"]["WgQuickConfig"] == configuration
    assert (payload["PayloadType"], payload["VPNSubType"]) == ("com.apple.vpn.managed", "com.wireguard.ios")
    assert payload["VPN"] == payload["VPN"] | {"RemoteAddress": "vpn.example.org:51820", "OnDemandEnabled": 1}
    again = plistlib.loads(mobileconfig(TUNNEL, one, "other"))
    assert again["PayloadUUID"] == profile["PayloadUUID"]
    other = plistlib.loads(mobileconfig(TUNNEL, phone(3, "two"), configuration))
    assert other["PayloadUUID"] != profile["PayloadUUID"]
