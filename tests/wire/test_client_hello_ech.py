"""Outer hellos told from GREASE."""

from __future__ import annotations

import pytest

from labs import hello_builder as build
from tokgate.wire.client_hello import PUBLIC_NAMES, is_ech_outer
from tokgate.wire.hello_reader import read_client_hello


def outer(*extensions: build.Extension, names: frozenset[str] = PUBLIC_NAMES) -> bool:
    """Whether a hello with these extensions counts as outer."""
    seen = read_client_hello(build.records(build.hello(*extensions)))
    assert seen is not None
    return is_ech_outer(seen, names)


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_public_name_and_extension(name: str) -> None:
    """Every known public name counts together with the extension, and not without it."""
    assert outer(build.server_name(name.encode()), build.ech())
    assert not outer(build.server_name(name.encode()))


@pytest.mark.parametrize("name", ["Cloudflare-ECH.com", "cloudflare-ech.com."])
def test_spelling(name: str) -> None:
    """Case and a trailing dot don't hide a public name."""
    assert outer(build.server_name(name.encode()), build.ech())


@pytest.mark.parametrize("name", ["www.example.org", "www.cloudflare-ech.com", "notcloudflare-ech.com"])
def test_grease(name: str) -> None:
    """The extension beside any other name is what every browser sends: no sign of a hidden name."""
    assert not outer(build.server_name(name.encode()), build.ech())


def test_no_name() -> None:
    """Without a usable name there is nothing to recognise."""
    assert not outer(build.ech())
    assert not outer(build.server_name(b"cloudflare-ech.com", b"cloudflare-ech.com"), build.ech())


def test_own_list() -> None:
    """A caller may know other public names."""
    hello = (build.server_name(b"ech.example.org"), build.ech())
    assert not outer(*hello)
    assert outer(*hello, names=frozenset({"ech.example.org"}))


def test_list_is_normalised() -> None:
    """The list is compared in lower case without a trailing dot, so it must be written so."""
    assert all(name == name.lower() and not name.endswith(".") for name in PUBLIC_NAMES)
