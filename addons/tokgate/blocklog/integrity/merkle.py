"""The Merkle tree of RFC 6962 §2.1 over hashes of records: one can be proved without showing the others. No I/O."""

import hashlib
from collections.abc import Sequence


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """The Merkle Tree Hash of at least one leaf."""
    return _root([hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves])


def audit_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes beside the way from a leaf to the root, from the leaf on (§2.1.1). Raises IndexError."""
    level, path = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves], []
    if not 0 <= index < len(level):
        raise IndexError(index)
    while len(level) > 1:
        if (beside := index ^ 1) < len(level):
            path.append(level[beside])
        level, index = _above(level), index // 2
    return path


def _root(level: list[bytes]) -> bytes:
    while len(level) > 1:
        level = _above(level)
    return level[0]


def _above(level: list[bytes]) -> list[bytes]:
    """The next level; a last node without a neighbour moves up, which gives the tree of §2.1."""
    pairs = [hashlib.sha256(b"\1" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
    return [*pairs, level[-1]] if len(level) % 2 else pairs
