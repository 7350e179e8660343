"""A configuration profile with which Apple's devices take a tunnel, and use it always.

https://github.com/WireGuard/wireguard-apple/blob/master/MOBILECONFIG.md
"""

import plistlib
import uuid
from typing import Final

from tokgate.gateway.phones.tunnel import Phone, Tunnel

_SPACE: Final = uuid.UUID("0a9f6b5e-6c3c-5f5e-9d0b-5a1f0c1d7a46")
"""The namespace of our UUIDs (RFC 9562 §5.5): a new profile of the same phone replaces the older one."""


def mobileconfig(tunnel: Tunnel, phone: Phone, configuration: str) -> bytes:
    """The profile, an XML property list. Holds what `configuration` holds, the phone's private key if it has one."""
    name = f"tokgate {tunnel.host}"
    identifier = f"org.tokgate.phone.{uuid.uuid5(_SPACE, f'{tunnel.endpoint} {phone.name}')}"
    payload = {
        "PayloadDisplayName": name,
        "PayloadType": "com.apple.vpn.managed",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{identifier}.vpn",
        "PayloadUUID": str(uuid.uuid5(_SPACE, f"{identifier}.vpn")).upper(),
        "UserDefinedName": name,
        "VPNType": "VPN",
        "VPNSubType": "com.wireguard.ios",
        "VendorConfig": {"WgQuickConfig": configuration},
        "VPN": {
            "RemoteAddress": tunnel.endpoint,
            "AuthenticationMethod": "Password",
            "OnDemandEnabled": 1,
            "OnDemandRules": [{"Action": "Connect"}],
        },
    }
    return plistlib.dumps(
        {
            "PayloadDisplayName": f"{name}: {phone.name}",
            "PayloadType": "Configuration",
            "PayloadVersion": 1,
            "PayloadIdentifier": identifier,
            "PayloadUUID": str(uuid.uuid5(_SPACE, identifier)).upper(),
            "PayloadContent": [payload],
        }
    )
