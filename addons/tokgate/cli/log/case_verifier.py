"""Checks a case that tokgate wrote: python3 verify.py FINGERPRINT… in its folder. Needs Python and cryptography only.

docs/proof.md of tokgate says in prose what is hashed and signed. Take the fingerprint of the log's key (SHA-256 over
the 32 octets of the public key) from whoever kept that when the log began, not from the case.
"""

import hashlib
import json
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FOLDER = Path(__file__).parent


def canonical(value: Any) -> bytes:
    """JSON by RFC 8785, for such values."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def signed(key: str, signature: str, octets: bytes) -> bool:
    """Whether a signature, in base64 as the key, is genuine."""
    try:
        Ed25519PublicKey.from_public_bytes(b64decode(key)).verify(b64decode(signature), octets)
    except (InvalidSignature, ValueError):
        return False
    return True


def wrong_with(proof: dict[str, Any]) -> Optional[str]:  # noqa: UP045  (for Python 3.9)
    """What a proof of one record lacks; None if it is whole."""
    record, tree, checkpoint = json.loads(json.dumps(proof["record"])), proof["tree"], dict(proof["checkpoint"])
    stated, number = record["event"].pop("hash"), record["event"]["sequence"]
    digest = hashlib.sha256(bytes.fromhex(proof["previous"]) + canonical(record)).digest()
    if digest.hex() != stated or record["tokgate"]["chain"] != checkpoint["chain"]:
        return "the record was changed"
    at, last, node = tree["index"], tree["size"] - 1, hashlib.sha256(b"\0" + digest).digest()
    first = checkpoint["tree"]["first"]
    if not 0 <= at <= last or at != number - first or last != checkpoint["sequence"] - first:
        return "the record has another place"
    for step in map(bytes.fromhex, tree["path"]):  # RFC 9162 section 2.1.3.2
        node = hashlib.sha256(b"\1" + (step + node if at & 1 or at == last else node + step)).digest()
        while at == last and not at & 1 and at:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    if last != 0 or node.hex() != checkpoint["tree"]["root"]:
        return "the record isn't in the tree"
    signature = checkpoint.pop("signature")
    checkpoint["purpose"] = "tokgate block log checkpoint, version 1"
    return None if signed(checkpoint["key"], signature, canonical(checkpoint)) else "the checkpoint is not genuine"


def faults(fingerprints: list[str]) -> Iterator[str]:
    """All that is wrong with the case if only these keys are believed; prints each record that is proved."""
    octets = (FOLDER / "manifest.json").read_bytes()
    manifest = json.loads(octets)
    keys = {manifest["key"]} if manifest["key"] else set()
    if not keys or not signed(manifest["key"], (FOLDER / "manifest.sig").read_text(), octets):
        yield "the manifest is not signed"
    for name, said in manifest["files"].items():
        path = FOLDER / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != said["sha256"]:
            yield f"{name} is gone, or another than the manifest says"
    lines = [json.loads(line) for line in (FOLDER / "records.ndjson").read_text("utf-8").splitlines()]
    for record in lines:
        path = FOLDER / "proofs" / f"{record['event']['id']}.json"
        if not path.is_file():
            yield f"{record['event']['id']} has no proof"
            continue
        proof = json.loads(path.read_text("utf-8"))
        keys.add(proof["checkpoint"]["key"])
        wrong = "another record is proved" if proof["record"] != record else wrong_with(proof)
        if wrong:
            yield f"{record['event']['id']}: {wrong}"
        else:
            signed_by = proof["checkpoint"]["at"]
            sys.stdout.write(f"record {record['event']['sequence']}, signed by {signed_by}: {record['message']}\n")
    for key in keys:
        if hashlib.sha256(b64decode(key)).hexdigest() not in map(str.lower, fingerprints):
            yield f"another key signed: {key}"


if __name__ == "__main__":
    found = list(faults(sys.argv[1:]))
    sys.stderr.write("\n".join(found or ["all records are proved, and nothing was changed"]) + "\n")
    sys.exit(bool(found))
