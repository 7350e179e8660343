"""Reads hosts files (hosts(5)): an address and one name or several a line; and lists of bare names, one a line."""

import re
from typing import Final

from tokgate.config.service_lists.entries import EntryKind, ServiceList, numbered
from tokgate.policy.values.hostname import parse_address

_LOCAL: Final = {
    *("localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0"),
    *(f"ip6-{name}" for name in ("localhost", "loopback", "localnet", "mcastprefix")),
    *(f"ip6-{name}" for name in ("allnodes", "allrouters", "allhosts")),
}
"""Names that every hosts file begins with."""
_SAID: Final = re.compile(r"#+\s*(title|homepage|url|licen[cs]e|version|last modified|date|updated)\s*:\s*(\S.*)", re.I)
_KEYS: Final = {
    "title": "title",
    "homepage": "list",
    "url": "list",
    "license": "licence",
    "licence": "licence",
    "version": "revision",
    "last modified": "date",
    "date": "date",
    "updated": "date",
}


def read_hosts(file: str, text: str) -> ServiceList:
    """Read a hosts file. Each name is one host; `*.name` is the name and all below it."""
    found = ServiceList()
    for place, line in numbered(file, text):
        said = _SAID.match(line)
        if said is not None:
            found.said.setdefault(_KEYS[said[1].lower()], said[2].strip())
        words = line.partition("#")[0].split()
        names = words[1:] if words and parse_address(words[0].partition("%")[0]) is not None else words
        if words and not names:
            found.refuse(place, line, "an address without a name")
        elif len(words) > 1 and names is words:
            found.refuse(place, line, f"`{words[0]}` is no address, and a list of bare names has one a line")
        else:
            for name in names:
                if name.lower() in _LOCAL:
                    continue
                wild = name.startswith(("*.", "."))
                found.add(EntryKind.SUFFIX if wild else EntryKind.EXACT, name.removeprefix("*").lstrip("."), place)
    return found
