"""`tokgate service list`, `show` and `test`."""

import argparse
import json
import sys
from dataclasses import replace
from typing import Any, Final

from tokgate.cli.exits import Exit
from tokgate.cli.services.held import Held, all_services, find, opened
from tokgate.cli.tables import show_rows
from tokgate.cli.terminal import shown
from tokgate.config.service_lists.selection import source_keys
from tokgate.policy.services import Match, PatternKind, ServiceIndex

_COLUMNS: Final = ("service", "title", "names", "addresses", "apps", "bans", "from")


def show_all(options: argparse.Namespace) -> int:
    """List the policy's services and the catalogue's."""
    held = all_services(opened(options.policies)).values()
    if options.json:
        sys.stdout.write(json.dumps({"services": [_summary(each) for each in held]}, ensure_ascii=False) + "\n")
        return Exit.DONE
    rows = [
        (
            each.service.name,
            shown(each.service.title),
            str(len(each.service.patterns)),
            str(len(each.service.addresses) or ""),
            str(len(each.service.stores) or ""),
            ", ".join(each.bans),
            "catalogue" if each.from_catalogue else each.where,
        )
        for each in held
    ]
    whole, right = (True, False, True, True, True, False, True), (False, False, True, True, True, False, False)
    show_rows(_COLUMNS, rows, whole, right=right)
    return Exit.DONE


def show_one(options: argparse.Namespace) -> int:
    """Print a service's title, names, addresses, apps and bans."""
    held = find(opened(options.policies), options.name)
    if options.json:
        sys.stdout.write(json.dumps(_document(held), ensure_ascii=False) + "\n")
        return Exit.DONE
    service = held.service
    lines = [f"{service.name}: {shown(service.title)}", f"  defined in {held.where}"]
    lines.append(f"  banned by {', '.join(held.bans)}" if held.bans else "  no ban names it")
    if service.source is not None:
        said = {key: value for key, value in source_keys(service.source).items() if value}
        lines += [f"  imported: {key} {shown(_plain(value))}" for key, value in said.items()]
    for kind in PatternKind:
        lines += [f"  {kind} {shown(each.value)}" for each in service.patterns if each.kind is kind]
    lines += [f"  address {prefix}" for prefix in service.addresses]
    lines += [f"  store {each.store} {shown(each.identifier)}" for each in service.stores]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return Exit.DONE


def test(options: argparse.Namespace) -> int:
    """Say of each name whether it belongs to the service, by which rule, and to which others it belongs."""
    policy = opened(options.policies)
    own = ServiceIndex([replace(find(policy, options.name).service, origin=None)])
    all_others = ServiceIndex(each.service for name, each in all_services(policy).items() if name != options.name)
    rows = [_tested(host, own, all_others) for host in options.hosts]
    if options.json:
        sys.stdout.write(json.dumps({"service": options.name, "results": rows}, ensure_ascii=False) + "\n")
    else:
        sys.stdout.writelines(f"{_verdict(options.name, row)}\n" for row in rows)
    return Exit.DONE if all(row["belongs"] for row in rows) else Exit.FINDINGS


def _tested(host: str, own: ServiceIndex, others: ServiceIndex) -> dict[str, Any]:
    mine, theirs = _match(own, host), _match(others, host)
    rule = next((hit.rule for hit in mine.hits if not hit.front), None)
    also = {hit.service: hit.rule for hit in theirs.hits if not hit.front}
    return {
        "host": host,
        "belongs": rule is not None,
        "rule": rule,
        "others": also,
        "problem": mine.problem,
    }


def _match(index: ServiceIndex, host: str) -> Match:
    return index.match_url(host) if "://" in host else index.match(host)


def _verdict(name: str, row: dict[str, Any]) -> str:
    host, others = shown(row["host"]), "; also " + ", ".join(row["others"]) if row["others"] else ""
    if row["belongs"]:
        return f"{host} belongs to {name}: {row['rule']}{others}"
    if row["problem"]:
        return f"{host} is no host name: {row['problem']}"
    instead = ", ".join(f"{service} ({rule})" for service, rule in row["others"].items())
    return f"{host} does not belong to {name}" + (f"; it belongs to {instead}" if instead else "")


def _summary(held: Held) -> dict[str, Any]:
    service = held.service
    return {
        "name": service.name,
        "title": service.title,
        "names": len(service.patterns),
        "addresses": len(service.addresses),
        "store": len(service.stores),
        "bans": list(held.bans),
        "catalogue": held.from_catalogue,
        "origin": held.where,
    }


def _document(held: Held) -> dict[str, Any]:
    service = held.service
    names: dict[str, list[str]] = {kind.value: [] for kind in PatternKind}
    for each in service.patterns:
        names[each.kind].append(each.value)
    stores: dict[str, list[str]] = {}
    for listing in service.stores:
        stores.setdefault(listing.store, []).append(listing.identifier)
    return {
        "name": service.name,
        "title": service.title,
        "bans": list(held.bans),
        "catalogue": held.from_catalogue,
        "origin": held.where,
        "source": None if service.source is None else source_keys(service.source),
        "content": {"names": names, "addresses": [str(prefix) for prefix in service.addresses], "store": stores},
    }


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "yes" if value is True else str(value)
