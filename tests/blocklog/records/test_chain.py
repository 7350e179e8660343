"""Octets that are hashed and signed, as docs/proof.md says in prose and another's library makes them."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from labs.appending import AppenderRuns, append
from labs.builders import at
from labs.logs import refusal, repeats, unreadable
from labs.samples import stamp
from tokgate.blocklog.records.chain import canonical
from tokgate.blocklog.records.log_state import clock_set_back, clock_set_forward

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.characters(max_codepoint=0x7F))
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.integers(1, 10**9).map(lambda number: number + 0.125)
SCALARS = TEXT | NUMBERS | st.booleans() | st.none()


VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_the_octets_are_those_of_rfc_8785(record: dict[str, Any]) -> None:
    """Whatever a record may hold, others' libraries make the same octets of it."""
    assert canonical(record) == rfc8785.dumps(record)


def test_a_log_checked_by_the_prose_alone(tmp_path: Path) -> None:
    """Each record's hash, each checkpoint's signature and tree, without anything of tokgate's: steps 1 to 4."""
    runs = AppenderRuns(tmp_path / "block.ndjson")
    run = runs.begin()
    moment = "2023-03-10T11:00:00Z"
    append(run, refusal(), repeats(3, moment, moment), unreadable())
    append(
        run,
        clock_set_back(stamp(), at("2023-03-10T12:00:00.123456Z")),
        clock_set_forward(stamp(), at("2023-03-10T10:00Z")),
    )
    for _ in range(2):
        runs.write(run, 5, attest=True)
    before, hashes, signed = bytes(32), [b""], 0
    for line in runs.path.read_bytes().splitlines():
        record = json.loads(line)
        stated = bytes.fromhex(record["event"].pop("hash"))
        assert hashlib.sha256(before + rfc8785.dumps(record)).digest() == stated
        before = stated
        if said := record["tokgate"].get("checkpoint"):
            signature, number, tree = base64.b64decode(said.pop("signature")), said["sequence"], said["tree"]
            assert bytes.fromhex(said["hash"]) == hashes[number]
            said |= {"chain": record["tokgate"]["chain"], "purpose": "tokgate block log checkpoint, version 1"}
            Ed25519PublicKey.from_public_bytes(base64.b64decode(said["key"])).verify(signature, rfc8785.dumps(said))
            level = [hashlib.sha256(b"\0" + each).digest() for each in hashes[tree["first"] : number + 1]]
            assert _root(level).hex() == tree["root"]
            signed += 1
        hashes.append(stated)
    assert signed == 2


def _root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word: the larger power of two goes to the left."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _root(leaves[:half]) + _root(leaves[half:])).digest()
