"""The Merkle tree of RFC 6962: known roots, and a way from each leaf to the root."""

import hashlib

import pytest

from tokgate.blocklog.integrity.checkpoint import audit_path, tree_root

LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
LEAVES.append(bytes(range(0x60, 0x70)))
ROOTS = {  # the test vectors of Certificate Transparency's implementations
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.mark.parametrize(("count", "root"), ROOTS.items())
def test_known_roots(count: int, root: str) -> None:
    """Others who implement the RFC come to the same root."""
    assert tree_root(LEAVES[:count]).hex() == root


@pytest.mark.parametrize("count", range(1, 18))
def test_every_leaf_is_proved(count: int) -> None:
    """The path of each leaf leads to the root, by the rule that the verifier in the docs follows."""
    leaves = [bytes([number]) for number in range(count)]
    for index in range(count):
        at, last, node = index, count - 1, hashlib.sha256(b"\0" + leaves[index]).digest()
        path = audit_path(leaves, index)
        for beside in path:
            if at % 2 or at == last:
                node = hashlib.sha256(b"\1" + beside + node).digest()
                while at % 2 == 0 and at:
                    at, last = at // 2, last // 2
            else:
                node = hashlib.sha256(b"\1" + node + beside).digest()
            at, last = at // 2, last // 2
        assert (node, last) == (tree_root(leaves), 0)
        if count > 1:
            assert audit_path(leaves, (index + 1) % count) != path


def test_a_leaf_that_is_not_there() -> None:
    """An index beyond the tree is an error, not a path to something else."""
    with pytest.raises(IndexError):
        audit_path([b"0"], 1)
