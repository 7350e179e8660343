"""Encrypted ClientHello: telling a hello whose true name is hidden from one that only pretends (GREASE)."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from tokgate.wire.client_hello import ClientHello

PUBLIC_NAMES: Final = frozenset(
    {
        # Every Cloudflare zone: https://developers.cloudflare.com/ssl/edge-certificates/ech/
        "cloudflare-ech.com",
        # Meta's, in the ECHConfig that its servers hand out on a retry (not yet in DNS):
        # https://github.com/XTLS/BBS/issues/13
        "ech-public.atmeta.com",
        # Two public test beds: https://tls-ech.dev, and https://defo.ie as used in curl's docs/ECH.md.
        "public.tls-ech.dev",
        "cover.defo.ie",
    }
)
"""Names that providers publish as `public_name` in their ECHConfigs (RFC 9849 §4): they serve no site of their own."""


def is_ech_outer(hello: ClientHello, public_names: AbstractSet[str] = PUBLIC_NAMES) -> bool:
    """Whether this is an outer hello, so that its name says which provider is meant and not which site.

    A client that uses ECH puts the provider's public name into server_name (RFC 9849 §6.1) and always adds
    encrypted_client_hello. A client that doesn't adds the same extension with random content beside the *real* name
    (GREASE, §6.2), as all big browsers do: the extension alone proves nothing. A public name that is missing from the
    list goes unnoticed: the hello then counts as one for that name.
    """
    name = hello.name
    return name is not None and name.lower().removesuffix(".") in public_names and hello.ech
