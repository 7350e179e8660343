"""The proxies on the gateway, each for all of its roads at once, and how each is known to be in the way."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

import yaml
from comparison.namespaces import run
from comparison.peers import SQUID_HELPER
from comparison.processes import Service
from comparison.settings import PROJECT

from compat.lab import BANNED_NAME, ROADS, Lab, Ports, Way
from compat.raw import PROXY_PORT

_HAPROXY: Final = Template("""\
global
  nbthread 2
defaults
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  http-reuse never
frontend http
  mode http
  bind :9201 transparent
  bind :9211
  http-request deny if { req.hdr(host) -m end $name }
  default_backend http_origin
frontend tcp
  mode tcp
  bind :9202 transparent
  bind :9212
  tcp-request inspect-delay 5s
  tcp-request content reject if { req.ssl_sni -m end $name }
  tcp-request content accept if { req.ssl_hello_type 1 }
  default_backend tcp_origin
frontend other
  mode tcp
  bind :9203 transparent
  bind :9213
  default_backend tcp_origin
backend http_origin
  mode http
  option transparent
backend tcp_origin
  mode tcp
  option transparent
""")
_SQUID: Final = Template("""\
http_port $explicit
http_port 9301 tproxy
http_port 9311 intercept
https_port 9302 tproxy ssl-bump generate-host-certificates=off tls-cert=$certificate tls-key=$key
https_port 9312 intercept ssl-bump generate-host-certificates=off tls-cert=$certificate tls-key=$key
acl step1 at_step SslBump1
acl banned ssl::server_name .$name
acl banned_host dstdomain .$name
ssl_bump peek step1
ssl_bump terminate banned
ssl_bump splice all
on_unsupported_protocol tunnel all
http_access deny banned_host
http_access allow all
spoof_client_ip deny all
server_persistent_connections off
cache deny all
access_log none
cache_log $folder/cache.log
pid_filename $folder/squid.pid
coredump_dir $folder
hosts_file $folder/hosts
dns_nameservers 127.0.0.1
dns_timeout 1 seconds
pinger_enable off
shutdown_lifetime 1 seconds
sslcrtd_program $helper -s $folder/certificates -M 4MB
sslcrtd_children 1 startup=0 idle=1
""")


@dataclass(frozen=True, slots=True)
class Place:
    """Where proxies run, what certificates the origin has, and the authority that signed them."""

    lab: Lab
    folder: Path
    certificate: Path
    key: Path
    authority: Path


def _tokgate(place: Place, folder: Path) -> Service:
    tokgate = [road for road in ROADS if road.proxy == "tokgate"]
    plain = [str(road.network) for road in tokgate if road.banned and not road.opened]
    opened = [str(road.network) for road in tokgate if road.opened]
    free = [str(road.network) for road in tokgate if not road.banned]
    ban = {"title": "A ban", "services": ["tiktok"], "starts": "2023-03-10T00:00", "response": "page"}
    policy = {
        "version": 1,
        "services": {
            "tiktok": {"names": {"suffix": ["tiktok.com"]}, "store": {"google-play": ["com.zhiliaoapp.musically"]}}
        },
        "networks": {"plain": {"cidrs": plain}, "opened": {"cidrs": opened}, "free": {"cidrs": free}},
        "bans": {
            "plain": ban | {"networks": ["plain"]},
            "opened": ban | {"networks": ["opened"], "inspect_stores": True},
        },
        "settings": {"egress": {"addresses": "gateway"}},
    }
    (folder / "policies").mkdir()
    (folder / "policies/policy.yaml").write_text(yaml.safe_dump(policy))
    explicit = [f"gate:explicit@{road.gateway}:{PROXY_PORT}" for road in tokgate if road.way is Way.EXPLICIT]
    modes = [word for mode in ("gate:tproxy@9000", "gate@9100-9163", *explicit) for word in ("--mode", mode)]
    command = [sys.executable, "-m", "tokgate", "run", *modes, "--user", "root", "--confdir", str(folder / "keys")]
    command += ["--policies", str(folder / "policies"), "--log", str(folder / "block.ndjson")]
    path = os.pathsep.join(filter(None, (str(PROJECT / "addons"), os.environ.get("PYTHONPATH"))))
    return _started(place, folder, command, 9000, {"PYTHONPATH": path, "SSL_CERT_FILE": str(place.authority)})


def _haproxy(place: Place, folder: Path) -> Service:
    configuration = folder / "haproxy.cfg"
    configuration.write_text(_HAPROXY.substitute(name=BANNED_NAME))
    return _started(place, folder, ["haproxy", "-db", "-f", str(configuration)], 9203)


def _squid(place: Place, folder: Path) -> Service:
    (explicit,) = [
        f"{road.gateway}:{PROXY_PORT}" for road in ROADS if road.proxy == "squid" and road.way is Way.EXPLICIT
    ]
    configuration = folder / "squid.conf"
    values = {"name": BANNED_NAME, "folder": folder, "helper": SQUID_HELPER, "explicit": explicit}
    configuration.write_text(_SQUID.substitute(**values, certificate=place.certificate, key=place.key))
    names = {road.name: road.address for road in ROADS} | {BANNED_NAME: ROADS[0].banned_address}
    (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names.items()))
    run(SQUID_HELPER, "-c", "-s", str(folder / "certificates"), "-M", "4MB")
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "proxy", "proxy")
    return _started(place, folder, ["squid", "-N", "-n", f"compat{os.getpid()}", "-f", str(configuration)], 9312)


def _started(place: Place, folder: Path, command: list[str], port: int, env: dict[str, str] | None = None) -> Service:
    command = ["setpriv", "--pdeathsig", "KILL", *place.lab.gateway.command(*command)]
    service = Service(command, folder / "output", env)
    try:
        service.await_listening(port)
    except BaseException:
        service.end()
        raise
    return service


@dataclass(frozen=True, slots=True)
class Proxy:
    """A kind of proxy: the program and package that it needs, how it is started, and where it listens by which way."""

    program: str
    package: str
    start: Callable[[Place, Path], Service]
    ports: dict[Way, Ports]


PROXIES: Final = {
    "tokgate": Proxy(
        sys.executable, "", _tokgate, {Way.TPROXY: Ports(9000, 9000, 9000), Way.REDIRECT: Ports(9100, 9100, 9100, 64)}
    ),
    "haproxy": Proxy(
        "haproxy", "haproxy", _haproxy, {Way.TPROXY: Ports(9201, 9202, 9203), Way.REDIRECT: Ports(9211, 9212, 9213)}
    ),
    "squid": Proxy(
        SQUID_HELPER,
        "squid-openssl",
        _squid,
        {Way.TPROXY: Ports(9301, 9302, 9302), Way.REDIRECT: Ports(9311, 9312, 9312)},
    ),
}


@contextmanager
def running(place: Place) -> Iterator[list[str]]:
    """All proxies that are installed, with the rules that bring clients to them; what is missing, with its package."""
    missing: list[str] = []
    ports: dict[tuple[str, Way], Ports] = {}
    with ExitStack() as stack:
        for name, proxy in PROXIES.items():
            if shutil.which(proxy.program) is None:
                missing.append(f"{name} (apt-get install {proxy.package})")
                continue
            folder = place.folder / name
            folder.mkdir()
            folder.chmod(0o755)
            stack.callback(proxy.start(place, folder).end)
            ports |= {(name, way): where for way, where in proxy.ports.items()}
        place.lab.intercept(ports)
        yield missing
