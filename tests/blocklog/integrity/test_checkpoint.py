"""Checkpoints as they are written and read: what has another shape is none, and ends nothing."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tokgate.blocklog.integrity.checkpoint import Tree, checkpoint_of, parse_checkpoints, sign
from tokgate.blocklog.records.chain import Head

AT = "2023-03-10T11:00:00.000000Z"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FULL = sign(KEY, Head("c", 5, "0" * 64), AT, 3, "next", Tree(2, "ab" * 32))


_NO_TREES: list[Any] = [None, [], {}, {"first": 1}, {"root": "ab" * 32}]


def test_they_come_back_as_they_were_written() -> None:
    """With all that they may have, and with nothing but what each has."""
    plain = sign(KEY, Head("c", 5, "0" * 64), AT, 0)
    for made in (FULL, plain):
        assert checkpoint_of("c", made.as_json()) == made
        assert list(parse_checkpoints([made.message()])) == [made]
        assert made.genuine
    assert not {"next_key", "tree"} & set(plain.as_json())


@pytest.mark.parametrize(
    "wrong",
    [
        *({"sequence": value} for value in (None, "5", 5.0, True)),
        *({"epoch": value} for value in (None, "0", False)),
        *({"hash": value} for value in (None, 7, "ab", "AB" * 32)),
        *({name: 7} for name in ("at", "key", "signature")),
        *({name: None} for name in ("at", "key", "signature")),
        {"next_key": 7},
        *({"tree": value} for value in _NO_TREES),
        *({"tree": {"first": first, "root": "ab" * 32}} for first in (None, "1", True)),
        *({"tree": {"first": 1, "root": root}} for root in (None, "ab")),
    ],
    ids=str,
)
def test_another_shape(wrong: dict[str, Any]) -> None:
    """Whatever somebody wrote in a checkpoint's place, verification reports it and goes on."""
    assert checkpoint_of("c", FULL.as_json() | wrong) is None


def test_no_checkpoint_at_all() -> None:
    """Nor is one that belongs to no chain, or a text that only looks like one."""
    assert checkpoint_of(None, FULL.as_json()) is None
    assert checkpoint_of("c", [FULL.as_json()]) is None
    mark = "tokgate-checkpoint "
    assert list(parse_checkpoints([mark, f"{mark}[1]", mark + "[" * 200_000, f"{mark}{{}}", "nothing"])) == []
    said = FULL.message()
    lines = [f"Mar 10 12:00:00 gw tokgate[7]: {said}", json.dumps({"MESSAGE": said, "_PID": "7"}), f"{mark}{{"]
    assert list(parse_checkpoints(lines)) == [FULL, FULL]  # in syslog lines, and in journal output as JSON
