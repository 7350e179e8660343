"""What a report says of the log's integrity: its chains, verified, and the files with their digests."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokgate.analytics.report.page import ChainStatus, FileDigest, Sentence
from tokgate.blocklog.integrity.chain_state import Chain
from tokgate.blocklog.integrity.trusted_keys import ExternalCheckpoint
from tokgate.cli.log.verify import verifier_of
from tokgate.cli.terminal import Patience


def verified(
    files: Sequence[Path], trusted: Sequence[str] = (), kept: Sequence[ExternalCheckpoint] = (), *, whole: bool = False
) -> ChainStatus:
    """Verify the files of a log as `Verifier` does, and say what was found. Raises OSError."""
    first, count, verifier = None, 0, verifier_of(files, trusted, kept, whole=whole)
    with Patience("verifying") as patience:
        for finding in verifier.run(files, lambda lines: patience(lines, None)):
            first, count = first or finding, count + 1
    chains = tuple(verifier.chains.values())
    if not chains and not trusted:
        return ChainStatus(None, (Sentence("Not verified: the log has no chain."),))
    if first is not None:
        values = {"count": count, "first": first}
        what = Sentence("BROKEN, findings: {count}. The first: {first}.", values)
        return ChainStatus(False, (what,), chains)
    return ChainStatus(True, tuple(_sound(verifier.chains, given=bool(trusted), kept=bool(kept))), chains)


def _sound(chains: dict[str, Chain], *, given: bool, kept: bool) -> Iterator[Sentence]:
    numbers = {"records": sum(chain.records for chain in chains.values()), "chains": len(chains)}
    yield Sentence("Verified: nothing changed, missing or moved (records: {records}, chains: {chains}).", numbers)
    if not all(chain.signed for chain in chains.values()):
        yield Sentence("Not every chain is signed.")
    elif given:
        yield Sentence("Signatures were checked against the key given.")
    else:
        yield Sentence("Signatures were checked against the log's own key only.")
    for name, chain in chains.items():
        if chain.first > 1:
            yield Sentence(
                "Records 1 to {count} of chain {name} are not here.", {"count": chain.first - 1, "name": name}
            )
    if not kept:
        yield Sentence("Not compared with checkpoints kept elsewhere: tokgate log verify --checkpoints does.")


def digests(files: Sequence[Path]) -> list[FileDigest]:
    """The files as they are on the disk: octets and SHA-256. A file that grows is read up to its present end.

    Files of one name have the folder before it.
    """
    found, names = [], Counter(path.name for path in files)
    for path in files:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
            name = path.name if names[path.name] == 1 else str(path)
            found.append(FileDigest(name, stream.tell(), digest.hexdigest()))
    return found
