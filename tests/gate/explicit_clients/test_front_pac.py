"""The PAC file, as browsers evaluate it."""

import json
import subprocess
from ipaddress import ip_network

from labs import builders
from labs.requirements import needs
from tokgate.gate.explicit_clients.front import pac_file
from tokgate.policy.settings import PacSettings

PROXY = "PROXY gw1.example.org:8080"
BROWSER = """
var isPlainHostName = h => !h.includes(".");
var dnsDomainIs = (h, d) => h.endsWith(d);
var number = a => a.split(".").reduce((n, o) => n * 256 + Number(o), 0);
var isInNet = (h, net, mask) => ((number(h) & number(mask)) >>> 0) === ((number(net) & number(mask)) >>> 0);
var v6 = {"2001:db8:1::/48": h => h.startsWith("2001:db8:1:"), "::1/128": h => h === "::1", "fe80::/10": h => false};
var isInNetEx = (h, prefix) => v6[prefix](h);
"""


@needs("node")
def test_what_goes_where() -> None:
    """What is banned must not go past the proxy; what is inside need not go through it."""
    settings = PacSettings(direct_names=("intranet.example.org",), direct_addresses=(ip_network("203.0.113.0/24"),))
    file = pac_file(builders.snapshot(builders.ban(), pac=settings).policy, "gw1.example.org:8080")
    expected = {
        "www.example.org": PROXY,
        "notintranet.example.org": PROXY,
        "intranet.example.org": "DIRECT",
        "WIKI.Intranet.Example.Org": "DIRECT",
        "printer": "DIRECT",
        "127.0.0.1": "DIRECT",
        "192.0.2.7": "DIRECT",  # an address of the policy's network
        "203.0.113.7": "DIRECT",
        "198.51.100.7": PROXY,
        "192.0.2.7.example.org": PROXY,
        "2001:db8:1::7": "DIRECT",
        "[::1]": "DIRECT",
        "2001:db8:2::7": PROXY,
    }
    ask = f"console.log(JSON.stringify({json.dumps([*expected])}.map(h => FindProxyForURL('', h))))"
    done = subprocess.run(["node", "-e", BROWSER + file + ask], capture_output=True, text=True, check=True)
    assert dict(zip(expected, json.loads(done.stdout), strict=True)) == expected
