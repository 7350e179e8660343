"""Share of public lists that the catalogue takes in, and what its entries rest on: the tables of docs/services.md.

    deploy/catalogue_recall.py domain-list-community=v2fly/data AdGuard=servicelist.go NextDNS=nextdns/services

A list is a folder with a file a service, or the Go file of AdGuard's blocked services; one given twice is both. Lists
are not part of this repository, and nothing is fetched. A name is taken in if any rule of its service matches it.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.config.catalogue import catalogue_folder
from tokgate.config.loader import load
from tokgate.policy.services import ServiceIndex

CORPUS: Final = {"tiktok", "tiktok-ads", "bytedance-shared", "bytedance-other", "encrypted-dns"}
"""Services with evidence of their own kind, and other figures."""
OTHER_NAMES: Final = {
    "chatgpt": "openai",
    "claude": "anthropic",
    "gemini": "google-gemini",
    "grok": "xai",
    "kakaotalk": "kakao",
    "mail-ru": "mailru-group",
    "max-messenger": "max",
    "moomoo": "futu",
    "odnoklassniki": "ok",
    "pubg-mobile": "pubg",
    "rednote": "xiaohongshu",
    "snapchat": "snap",
    "tiger-brokers": "itiger",
    "weibo": "sina",
    "x": "twitter",
}
"""What lists call a service by, beside its own name."""
FAMILY: Final = dict.fromkeys(["AdGuard", "allow-domains", "ios_rule_script"], "domain-list-community")
LISTS: Final = {
    *FAMILY,
    "domain-list-community",
    "NextDNS",
    "Disconnect",
    "nDPI",
    "Tracker Radar",
    "Privacy Badger",
} | {*("WhoTracks.me", "SukkaW", "no-google", "jmdugan", "Block List Project", "Facebook Container")}
"""What else a comment names is the owner's word, or code that uses the name."""


def named(list_path: Path, service: str) -> set[str]:
    """The names that a list has for a service; none if it doesn't know the service."""
    ids = [service, service.replace("-", "_"), *filter(None, [OTHER_NAMES.get(service)])]
    if list_path.suffix == ".go":
        blocks = re.split(r"\tID:\s+", list_path.read_text(encoding="utf-8"))
        text = "".join(block for block in blocks if block.startswith(tuple(f'"{each}"' for each in ids)))
        return set(re.findall(r'"\|\|([a-z0-9.-]+)\^"', text))
    files = [list_path / f"{each}{suffix}" for each in ids for suffix in ("", ".txt", ".list")]
    return {name for file in files if file.is_file() for name in _names(file)}


def _names(file: Path) -> Iterator[str]:
    for line in file.read_text(encoding="utf-8").splitlines():
        match line.partition("#")[0].partition("@")[0].split():
            case [word] if word.startswith("include:"):
                yield from _names(file.parent / word.removeprefix("include:"))
            case [word] | ["0.0.0.0" | "127.0.0.1", word]:
                name = re.sub(r"^(full:|domain:|\|\||\+?\.)", "", word).rstrip("^.").lower()
                if re.fullmatch(r"[a-z0-9_-]+([.][a-z0-9_-]+)+", name):
                    yield name


def recall(lists: dict[str, list[Path]]) -> Iterator[str]:
    """A line of a Markdown table for each service that a list knows: of how many names what share is taken in."""
    policy = load(catalogue_folder(), Instant.now()).policy
    assert policy is not None  # noqa: S101  (tests/policies loads it)
    yield f"| service | {' | '.join(lists)} |"
    yield "|---" * (len(lists) + 1) + "|"
    total: dict[str, list[int]] = {name: [0, 0] for name in lists}
    for service in sorted(policy.services):
        index = ServiceIndex([policy.services[service]])
        cells = []
        for name, paths in lists.items():
            asked = set[str]().union(*(named(path, service) for path in paths))
            taken = sum(bool(index.match(each).hits) for each in asked)
            total[name] = [total[name][0] + taken, total[name][1] + len(asked)]
            cells.append(_share(taken, len(asked)))
        if any(cells):
            yield f"| `{service}` | {' | '.join(cells)} |"
    yield f"| all | {' | '.join(_share(*each) for each in total.values())} |"


def _share(taken: int, asked: int) -> str:
    return f"{100 * taken // asked} % ({asked:,})" if asked else ""


def rests(file: Path) -> tuple[int, int, int]:
    """How many entries of a service's file rest on one list, how many on one family of lists, of how many."""
    names = file.read_text(encoding="utf-8").partition("    names:\n")[2].partition("    store:\n")[0]
    found = re.findall(r"^ {8}- [^\s\"'^]+ +# (.+)$", names, re.MULTILINE)
    said = [{each.strip() for each in evidence.partition(";")[0].split(",")} for evidence in found]
    of_lists = [lists for lists in said if lists <= LISTS]
    families = [{FAMILY.get(each, each) for each in lists} for lists in of_lists]
    return sum(len(each) == 1 for each in of_lists), sum(len(each) == 1 for each in families), len(said)


def witnesses() -> Iterator[str]:
    """The same of all services without a corpus."""
    each = [rests(file) for file in catalogue_folder().glob("*.yaml") if file.stem not in CORPUS]
    one, family, entries = (sum(column) for column in zip(*each, strict=True))
    yield f"{one} of {entries:,} entries rest on one list: {100 * one / entries:.0f} %"
    yield f"{family} of {entries:,} entries rest on one family of lists: {100 * family / entries:.0f} %"


def main(words: list[str]) -> None:
    """Print both."""
    lists: dict[str, list[Path]] = defaultdict(list)
    for word in words:
        name, _, path = word.partition("=")
        lists[name].append(Path(path))
    print("\n".join([*recall(lists), "", *witnesses()]))


if __name__ == "__main__":
    main(sys.argv[1:])
