"""`tokgate phone list`: the phones, and when each was last there."""

import json
import sys
from typing import Final

from whenever import Instant

from tokgate.cli.exits import Exit
from tokgate.cli.phone.files import PhoneFiles
from tokgate.cli.tables import show_rows
from tokgate.cli.terminal import narrate
from tokgate.gateway.phones.interface import Interface
from tokgate.gateway.phones.tunnel import Phone
from tokgate.policy.values.text import utc

_HEADINGS: Final = ("name", "owner", "addresses", "added", "last seen", "revoked")


def show(files: PhoneFiles, *, everything: bool, as_json: bool) -> Exit:
    """Print the phones in the order in which they were added."""
    tunnel = files.need_tunnel()
    phones = files.phones() + (tunnel.revoked if everything else ())
    interface = Interface(tunnel.interface)
    is_up = interface.is_up
    seen = interface.seen() if is_up else {}
    if as_json:
        listed = [_document(each, seen.get(each.public_key)) for each in phones]
        document = {"interface": tunnel.interface, "up": is_up, "endpoint": tunnel.endpoint, "phones": listed}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    elif phones:
        rows = [_row(each, seen.get(each.public_key)) for each in phones]
        show_rows(_HEADINGS, rows, [True, False, False, True, True, True])
    else:
        narrate("no phones")
    if not is_up:
        narrate(f"tokgate: {tunnel.interface} is not up: tokgate phone up")
    return Exit.DONE


def _document(phone: Phone, seen: Instant | None) -> dict[str, object]:
    return {
        "name": phone.name,
        "owner": phone.owner or None,
        "addresses": [str(each) for each in phone.addresses],
        "public_key": phone.public_key,
        "added": utc(phone.added),
        "seen": None if seen is None else utc(seen),
        "revoked": None if phone.revoked is None else utc(phone.revoked),
    }


def _row(phone: Phone, seen: Instant | None) -> tuple[str, ...]:
    return (
        phone.name,
        phone.owner,
        ", ".join(map(str, phone.addresses)),
        utc(phone.added),
        "" if seen is None else utc(seen),
        "" if phone.revoked is None else utc(phone.revoked),
    )
