"""The servers behind the gateway: nginx with certificates of its own, and packet counters that say what arrived."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from labs.netns import Lab, Namespace
from labs.waiting import until as wait_until

ALLOWED = "allowed.example.org"
LOOKALIKE = "www.aaatiktok.com"
BANNED = "www.tiktok.com"
LARGE = 32 << 20

OTHER_TLS = (853, 4433, 8443)
OTHER_HTTP = (3128, 8080)
OTHER_QUIC = (8443, 8853)
"""Ports on which each name is served besides 80 and 443."""

# Each name has its own address, so that one packet too many shows even while other names are in use.
ADDRESSES = {
    ALLOWED: Lab.ALLOWED,
    LOOKALIKE: Lab.ALLOWED,
    BANNED: Lab.BANNED,
    "example.org": Lab.MORE[0],
    "example.net": Lab.MORE[1],
}

_SERVER = """
  server {{
    listen {v4}:443 ssl; listen [{v6}]:443 ssl; listen {v4}:80; listen [{v6}]:80;
    listen {v4}:443 quic; listen [{v6}]:443 quic; {elsewhere}
    http2 on;
    server_name {name};
    ssl_certificate {folder}/{name}.pem; ssl_certificate_key {folder}/{name}.key;
    location / {{ default_type text/plain; return 200 "origin of $host over $server_protocol\\n"; }}
    location = /advertised {{
      default_type text/html; add_header Alt-Svc 'h3=":443"; ma=3600'; return 200 "origin over $server_protocol\n";
    }}
    location = /who {{ default_type text/plain; return 200 "$remote_addr\n"; }}
    location = /large {{ alias {folder}/large; }}
    location = /paced {{ alias {folder}/large; limit_rate 4m; }}
  }}
"""
_NGINX = """
daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {servers}
}}
"""


def _elsewhere(addresses: Mapping[int, str]) -> str:
    """nginx's directives for the other ports."""
    kinds = ((OTHER_TLS, "ssl"), (OTHER_HTTP, ""), (OTHER_QUIC, "quic"))
    places = [(f"{addresses[4]}:{port}", kind) for ports, kind in kinds for port in ports]
    places += [(f"[{addresses[6]}]:{port}", kind) for ports, kind in kinds for port in ports]
    return " ".join(f"listen {place} {kind};" for place, kind in places)


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate's DER bytes, of the first certificate where PEM text is given."""
    if b"-----BEGIN CERTIFICATE-----" in certificate:
        return x509.load_pem_x509_certificates(certificate)[0].fingerprint(hashes.SHA256()).hex()
    return x509.load_der_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def _pin(chain: bytes) -> str:
    """Base64 of the SHA-256 of a certificate's public key, as `--ignore-certificate-errors-spki-list` takes it."""
    key = x509.load_pem_x509_certificates(chain)[0].public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


class Origin:
    """nginx in the origin's namespace: HTTP/1.1, HTTP/2, HTTP/3 and plain HTTP for each name."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace = namespace
        self.folder = folder
        self.authority = folder / "authority.pem"
        self.fingerprints: dict[str, str] = {}
        self.pins: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._issue()
        self._count()
        (self.folder / "large").write_bytes(bytes(range(256)) * (LARGE // 256))
        servers = "".join(
            _SERVER.format(
                name=name, folder=self.folder, v4=addresses[4], v6=addresses[6], elsewhere=_elsewhere(addresses)
            )
            for name, addresses in ADDRESSES.items()
        )
        config = self.folder / "nginx.conf"
        config.write_text(_NGINX.format(folder=self.folder, servers=servers))
        self._process = self.namespace.start("nginx", "-c", config, output=self.folder / "nginx.log")
        try:
            wait_until("nginx answers", self._listens)
        except AssertionError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(10)

    def _listens(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError((self.folder / "nginx.log").read_text())
        return 443 in self.namespace.listening()

    def _issue(self) -> None:
        authority = trustme.CA(organization_name="Origin authority")
        authority.cert_pem.write_to_path(self.authority)
        for name in ADDRESSES:
            issued = authority.issue_cert(name)
            chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
            (self.folder / f"{name}.pem").write_bytes(chain)
            issued.private_key_pem.write_to_path(self.folder / f"{name}.key")
            self.fingerprints[name] = fingerprint(chain)
            self.pins[name] = _pin(chain)

    def _count(self) -> None:
        """Count every packet by the address and port it came for.

        Neighbour discovery isn't traffic, nor are errors in return for what nginx itself sent: it says goodbye to a
        QUIC client of a test long over.
        """
        rules = [
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept",
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded } accept",
            "icmp type { destination-unreachable, time-exceeded } accept",
        ]
        counters = []
        for role, addresses in (("allowed", Lab.ALLOWED), ("banned", Lab.BANNED)):
            for label, match in (
                ("tcp443", "tcp dport 443"),
                ("tcp80", "tcp dport 80"),
                ("udp443", "udp dport 443"),
                ("other", ""),
            ):
                counters.append(f"counter {role}-{label} {{ }}")
                for family, address in (("ip", addresses[4]), ("ip6", addresses[6])):
                    rules.append(f"{family} daddr {address} {match} counter name {role}-{label} accept")
        chain = "chain arrivals { type filter hook prerouting priority raw; " + "; ".join(rules) + "; }"
        table = "table inet arrivals {\n" + "\n".join([*counters, chain]) + "\n}\n"
        self.namespace.run("nft", "-f", "-", given=table)

    def arrived(self) -> Counter[str]:
        """Packets so far, by role and port: `banned-tcp443`."""
        listed = json.loads(self.namespace.run("nft", "-j", "list", "counters").stdout)["nftables"]
        return Counter(
            {entry["counter"]["name"]: entry["counter"]["packets"] for entry in listed if "counter" in entry}
        )

    def connected(self, *names: str) -> str:
        """The connections to these names over TCP that have not ended yet, as `ss` lists them."""
        addresses = [address for name in names for address in ADDRESSES[name].values()]
        at = " or ".join(f"src [{address}]" if ":" in address else f"src {address}" for address in addresses)
        return self.namespace.run("ss", "-Htn", at).stdout

    @contextmanager
    def watch(self, *names: str) -> Iterator[Counter[str]]:
        """Count what arrives during the block; the counter is filled when the block ends.

        The block begins when nobody is connected to these names, by default the banned one: the end of a connection
        that was there before is no arrival.
        """
        names = names or (BANNED,)
        wait_until(f"nobody is connected to {', '.join(names)}", lambda: not self.connected(*names))
        seen: Counter[str] = Counter()
        before = self.arrived()
        yield seen
        seen.update(+(self.arrived() - before))


def to_banned(seen: Counter[str]) -> int:
    """How many packets reached the banned service, on whatever port."""
    return sum(packets for name, packets in seen.items() if name.startswith("banned-"))
