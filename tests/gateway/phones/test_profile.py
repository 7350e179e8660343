"""The profile for Apple's devices."""

import plistlib

from gateway.phones.test_tunnel import TUNNEL, phone
from tokgate.gateway.phones.profile import mobileconfig


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
