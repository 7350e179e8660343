"""How the formats of lists are told apart, and the one reader of all of them."""

import re
from collections import Counter
from typing import Final

from tokgate.config.service_lists import adblock, adguard, domain_list, hosts
from tokgate.config.service_lists.domain_list import Included
from tokgate.config.service_lists.entries import ServiceList
from tokgate.config.service_lists.list_format import ListFormat
from tokgate.policy.values.hostname import parse_address

_LOOKED_AT: Final = 2000
"""Lines by which a format is told."""


def detect(text: str) -> ListFormat | None:
    """The format of a list by what most of its lines are; None where nothing tells."""
    if re.match(r"\s*[\[{]\s*[{\"]", text) or (re.search(r"(?m)^rules:", text) and re.search(r"(?m)^id:", text)):
        return ListFormat.ADGUARD
    votes = Counter(vote for line in text.splitlines()[:_LOOKED_AT] if (vote := _vote(line.strip())) is not None)
    return votes.most_common(1)[0][0] if votes else None


def _vote(line: str) -> ListFormat | None:
    words = line.split()
    if not line or line.startswith("#"):
        return None
    if line.startswith(("||", "@@", "!", "[Adblock", "[AdGuard", "|", "/")) or re.search(r"\^(\$|\Z)", line):
        return ListFormat.ADBLOCK
    if len(words) > 1 and parse_address(words[0].partition("%")[0]) is not None:
        return ListFormat.HOSTS
    if line.startswith(("*.", ".")):
        return ListFormat.HOSTS
    bare = re.match(r"(?:(?:domain|full|keyword|regexp|include):)?\S+(\s+[@&#].*)?\Z", line)
    return ListFormat.DOMAIN_LIST if bare else None


def read_list(chosen: ListFormat, file: str, text: str, part: str, included: Included) -> ServiceList:
    """Read a list. `part` names the service within a file of several. Raises ValueError for a file of another kind."""
    match chosen:
        case ListFormat.DOMAIN_LIST:
            return domain_list.read_domain_list(file, text, included)
        case ListFormat.HOSTS:
            return hosts.read_hosts(file, text)
        case ListFormat.ADBLOCK:
            return adblock.read_adblock(file, text)
        case ListFormat.ADGUARD:
            return adguard.read_adguard(file, text, part)
