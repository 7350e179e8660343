"""A tunnel and its phones, as values; their files and texts are made from them and read into them. No I/O.

Keys are Curve25519 key pairs, each 32 octets in Base64 (wg(8)).
"""

import base64
import binascii
import csv
import io
import json
import plistlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from whenever import Instant

from tokgate.gateway import GatewayError
from tokgate.policy.values.prefixes import IPNetwork

DEFAULT_PORT: Final = 51820
"""As most configurations of WireGuard have it; IANA has assigned none."""
COLUMNS: Final = ("name", "address", "owner", "public_key", "made_at")
"""Of the inventory; the first three are those of docs/policy.md, "Device inventories"."""
_OCTETS: Final = 32
_SPACE: Final = uuid.UUID("0a9f6b5e-6c3c-5f5e-9d0b-5a1f0c1d7a46")
"""The namespace of our UUIDs (RFC 9562 §5.5): a new profile of the same phone replaces the older one."""

type Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Phone:
    """A peer. `addresses` are its own, one of each prefix of the tunnel."""

    name: str
    addresses: tuple[Address, ...]
    owner: str
    public_key: str
    added: Instant
    revoked: Instant | None = None

    @property
    def allowed(self) -> str:
        """The addresses from which WireGuard takes its packets, and no others (wg(8): AllowedIPs)."""
        return ",".join(f"{each}/{each.max_prefixlen}" for each in self.addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """The gateway's side. `private_key` is a secret; `revoked` are former phones, whose addresses stay unused."""

    interface: str
    private_key: str
    host: str
    port: int
    prefixes: tuple[IPNetwork, ...]
    name_servers: tuple[Address, ...]
    masquerade: bool
    revoked: tuple[Phone, ...] = ()

    @property
    def own(self) -> tuple[IPv4Interface | IPv6Interface, ...]:
        """The gateway's addresses in the tunnel, the first of each prefix."""
        return tuple(ip_interface((each[1], each.prefixlen)) for each in self.prefixes)

    @property
    def endpoint(self) -> str:
        """Where phones send to: host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def free_addresses(self, phones: Iterable[Phone]) -> tuple[Address, ...]:
        """Addresses that no phone has or had, so that an address in the log is one phone's for ever.

        Raises GatewayError where there are none left.
        """
        first = self.prefixes[0]
        taken = [int(each.addresses[0]) for each in (*phones, *self.revoked)]
        number = max((each - int(first[0]) for each in taken), default=1) + 1
        if any(number >= each.num_addresses - (each.version == 4) for each in self.prefixes):  # noqa: PLR2004
            raise GatewayError(f"no address of {first} is left: make a tunnel with a wider --prefix")
        return tuple(each[number] for each in self.prefixes)

    def peers(self, phones: Iterable[Phone]) -> str:
        """What the interface is set to, for `wg syncconf` (wg(8)). Holds the private key."""
        lines = ["[Interface]", f"PrivateKey = {self.private_key}", f"ListenPort = {self.port}"]
        for phone in phones:
            lines += ["[Peer]", f"PublicKey = {phone.public_key}", f"AllowedIPs = {phone.allowed}"]
        return "\n".join(lines) + "\n"

    def configuration(self, phone: Phone, private_key: str | None) -> str:
        """What the phone's app reads (wg-quick(8)). `private_key` None: the phone has made its own, and puts it in."""
        own = "" if private_key is None else f"PrivateKey = {private_key}\n"
        addresses = ", ".join(f"{each}/{each.max_prefixlen}" for each in phone.addresses)
        return (
            f"[Interface]\n{own}Address = {addresses}\nDNS = {', '.join(map(str, self.name_servers))}\n\n"
            f"[Peer]\nPublicKey = {public_key(self.private_key)}\n"
            "AllowedIPs = 0.0.0.0/0, ::/0\n"  # also where there is no IPv6: nothing may bypass the tunnel
            f"Endpoint = {self.endpoint}\nPersistentKeepalive = 25\n"
        )

    def encode(self) -> str:
        """The text of its file."""
        return json.dumps(
            {
                "interface": self.interface,
                "private_key": self.private_key,
                "host": self.host,
                "port": self.port,
                "prefixes": [str(each) for each in self.prefixes],
                "name_servers": [str(each) for each in self.name_servers],
                "masquerade": self.masquerade,
                "revoked": [{**_row(each), "revoked": str(each.revoked)} for each in self.revoked],
            },
            indent=1,
        )

    @classmethod
    def decode(cls, text: str) -> Self:
        """The tunnel in the text of its file. Raises GatewayError if there is none in it."""
        try:
            kept: dict[str, Any] = json.loads(text)
            return cls(
                interface=str(kept["interface"]),
                private_key=str(kept["private_key"]),
                host=str(kept["host"]),
                port=int(kept["port"]),
                prefixes=tuple(ip_network(each) for each in kept["prefixes"]),
                name_servers=tuple(ip_address(each) for each in kept["name_servers"]),
                masquerade=bool(kept["masquerade"]),
                revoked=tuple(_phone(each) for each in kept["revoked"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise GatewayError(f"this is no tunnel of `tokgate phone up`: {error}") from error


def inventory(phones: Iterable[Phone]) -> str:
    """The phones as an inventory of devices for policies: CSV, with their public keys."""
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    rows.writeheader()
    rows.writerows(_row(each) for each in phones)
    return text.getvalue()


def phones_in(text: str) -> tuple[Phone, ...]:
    """The phones of such an inventory. Raises GatewayError where a row is none."""
    found = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        try:
            found.append(_phone(row))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GatewayError(f"line {number} is no phone of `tokgate phone add`: {error}") from error
    return tuple(found)


def _row(phone: Phone) -> dict[str, str]:
    addresses = ", ".join(map(str, phone.addresses))
    return dict(zip(COLUMNS, (phone.name, addresses, phone.owner, phone.public_key, str(phone.added)), strict=True))


def _phone(row: dict[str, str]) -> Phone:
    addresses = tuple(ip_address(each.strip()) for each in row["address"].split(","))
    revoked = row.get("revoked")
    ended = None if revoked is None else Instant.parse_iso(revoked)
    return Phone(row["name"], addresses, row["owner"], row["public_key"], Instant.parse_iso(row["made_at"]), ended)


def new_private_key() -> str:
    """A private key from the system's random numbers."""
    return base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode()


def public_key(private_key: str) -> str:
    """The public key that belongs to a private one. Raises ValueError if that is no key."""
    if not is_key(private_key):
        raise ValueError("no key")  # not the text: it may be a secret with a typing error
    made = X25519PrivateKey.from_private_bytes(base64.b64decode(private_key)).public_key()
    return base64.b64encode(made.public_bytes_raw()).decode()


def is_key(text: str) -> bool:
    """Whether a text is a key, as WireGuard writes it."""
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(octets) == _OCTETS and base64.b64encode(octets).decode() == text


def mobileconfig(tunnel: Tunnel, phone: Phone, configuration: str) -> bytes:
    """A configuration profile with which Apple's devices take a tunnel, and use it always: an XML property list.

    Holds what `configuration` holds, the phone's private key if it has one.
    https://github.com/WireGuard/wireguard-apple/blob/master/MOBILECONFIG.md
    """
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
