"""The PAC file for browsers (proxy auto-configuration): what goes through the explicit proxy, and what past it.

It looks nothing up in DNS: a browser would wait for that before each request.
"""

import json
import re
from typing import Final

from tokgate.policy.snapshot import Policy

PATH: Final = b"/proxy.pac"
_REQUEST: Final = re.compile(rb"GET /proxy\.pac(?:\?[!-~]*)? HTTP/1\.[01]\r?\n")
_HOST: Final = re.compile(rb"\r?\nhost:[ \t]*([A-Za-z0-9.:\[\]-]{1,255})[ \t]*\r?\n", re.IGNORECASE)
_TEMPLATE: Final = """\
function FindProxyForURL(url, host) {
  var names = %(names)s, v4 = %(v4)s, v6 = %(v6)s, i;
  host = host.toLowerCase().replace(/^\\[|\\]$/g, "");
  if (isPlainHostName(host) && host.indexOf(":") < 0) return "DIRECT";
  for (i = 0; i < names.length; i++)
    if (host === names[i] || dnsDomainIs(host, "." + names[i])) return "DIRECT";
  if (/^[0-9]+(\\.[0-9]+){3}$/.test(host))
    for (i = 0; i < v4.length; i++)
      if (isInNet(host, v4[i][0], v4[i][1])) return "DIRECT";
  if (host.indexOf(":") >= 0 && typeof isInNetEx === "function")
    for (i = 0; i < v6.length; i++)
      if (isInNetEx(host, v6[i])) return "DIRECT";
  return %(proxy)s;
}
"""
_OWN: Final = ("127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10")


def asked(held: bytes | bytearray) -> bool:
    """Whether a request, whose head has come whole, is for the PAC file; it is in origin form, to the proxy itself."""
    return _REQUEST.match(held) is not None


def host_in(held: bytes | bytearray) -> str | None:
    """The proxy as the client knows it, from the request's Host field; None without a usable one."""
    found = _HOST.search(held)
    return None if found is None else found[1].decode()


def pac_file(policy: Policy, proxy: str) -> str:
    """The file, for a proxy at `HOST:PORT`.

    Past the proxy go names without a dot, the names and prefixes of `settings.pac`, and addresses of this machine, of
    its links and of the policy's networks.
    """
    prefixes = [str(each) for network in policy.networks.values() for each in network.cidrs]
    prefixes += [*_OWN, *map(str, policy.settings.pac.direct_addresses)]
    v4 = [each for each in dict.fromkeys(prefixes) if ":" not in each]
    masks = [[each.partition("/")[0], _mask(int(each.partition("/")[2]))] for each in v4]
    return _TEMPLATE % {
        "names": json.dumps(policy.settings.pac.direct_names),
        "v4": json.dumps(masks),
        "v6": json.dumps([each for each in dict.fromkeys(prefixes) if ":" in each]),
        "proxy": json.dumps(f"PROXY {proxy}"),
    }


def _mask(length: int) -> str:
    bits = (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF
    return ".".join(str(octet) for octet in bits.to_bytes(4))
