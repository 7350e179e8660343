"""How the records of one chain follow each other, and what a checkpoint says of them. No I/O."""

from collections.abc import Iterator

from tokgate.blocklog.integrity.branches import Branches, Node
from tokgate.blocklog.integrity.chain_state import Chain, Misfit
from tokgate.blocklog.integrity.checkpoint import Checkpoint
from tokgate.blocklog.integrity.external_checkpoints import LinePosition
from tokgate.blocklog.integrity.findings import Finding, FindingCode
from tokgate.blocklog.integrity.merkle import tree_root
from tokgate.blocklog.integrity.trusted_keys import SigningState
from tokgate.blocklog.records.chain import Head, is_hash, proper_hash
from tokgate.blocklog.records.record import Record, text_at, value_at


def new_chain(place: LinePosition, record: Record, head: Head) -> Chain:
    """The state of a chain after its first record in these files."""
    follows = text_at(record, "tokgate", "continues", "file")
    return Chain(
        head.sequence, head, place, Branches(Node(head, place)), place, SigningState(head.sequence - 1), follows
    )


def signs_another(chain: Chain, checkpoint: Checkpoint, before: str | None) -> str | None:
    """What a genuine checkpoint signs, in words, if that isn't the records before it."""
    among = f"some of the records {chain.seal.reach + 1} to {chain.head.sequence - 1} were written anew"
    if checkpoint.head.sequence != chain.head.sequence - 1 or (before and checkpoint.head.hash != before):
        return f"this checkpoint signs another record than the one before it: {among}"
    if checkpoint.tree is not None:
        leaves = chain.recent.hashes(checkpoint.tree.first)
        if leaves and tree_root(leaves).hex() != checkpoint.tree.root:
            return f"this checkpoint's tree is of other records than those before it: {among}"
    return None


def foreign(chain: Chain) -> Iterator[Finding]:
    """Findings for records that the present one doesn't continue, and forget those before it."""
    for node in chain.recent.settle():
        what = f"this is not record {node.head.sequence} of the chain that goes on: it was put in"
        yield Finding(*node.place, FindingCode.FOREIGN, f"{what}, with a number and a hash that fit")


def misfit(chain: Chain, place: LinePosition, record: Record, head: Head) -> Iterator[Finding]:
    """A finding for a record that does not fit the one before it, if it shows itself which of the two was changed."""
    stated = continues(record, head)
    if stated is not None and proper_hash(stated, record) == head.hash:
        what = f"record {head.sequence - 1} is not the one with which the next file goes on: it was written anew"
        yield Finding(*chain.place, FindingCode.CHANGED, f"{what}, with a hash that fits, and maybe others before it")
    else:
        chain.misfits.append(Misfit(head.sequence, place, chain.place))


def signs_these(chain: Chain, checkpoint: Checkpoint) -> bool | None:
    """Whether a checkpoint that signs the record before it signs all since the last one; None if that is unknown."""
    known = checkpoint.tree is not None and chain.recent.hashes(checkpoint.tree.first)
    return True if known else None


def changed(chain: Chain, *, signed: bool | None) -> Iterator[Finding]:
    """Findings for records that do not fit, and forget them.

    `signed`: a checkpoint signs the hashes that the records state; False: it signs others; None: unknown.
    """
    for each in chain.misfits:
        what = f"the content of record {each.number} does not give its hash"
        if signed or each.place == each.before:
            yield Finding(*each.place, FindingCode.CHANGED, what)
        elif signed is False and len(chain.misfits) == 1:
            what = f"record {each.number - 1} is not the one that the next record follows: it was written anew"
            yield Finding(
                *each.before, FindingCode.CHANGED, f"{what}, with a hash that fits, and maybe others before it"
            )
        else:
            yield Finding(*each.place, FindingCode.CHANGED, f"{what}, or the record before it was written anew")
    chain.misfits.clear()


def follow(chain: Chain, place: LinePosition, record: Record, head: Head) -> tuple[str | None, Finding | None]:
    """The hash that must precede a record, if it is known, and a finding if its number is wrong."""
    last, number = chain.head, head.sequence
    if number == last.sequence + 1:
        return last.hash, None
    if number > last.sequence:
        gap = (
            f"record {number - 1} is"
            if number == last.sequence + 2
            else f"records {last.sequence + 1} to {number - 1} are"
        )
        what, file = f"{gap} missing before record {number}", text_at(record, "tokgate", "continues", "file")
        return continues(record, head), Finding(
            *place, FindingCode.MISSING, what if file is None else f"{what}; the last of them were in {file}"
        )
    consecutive = proper_hash(last.hash, record) == head.hash  # if so, the previous record's number was changed
    what = f"record {number} stands after record {last.sequence}: moved, copied or renumbered"
    return last.hash if consecutive else None, Finding(*place, FindingCode.ORDER, what)


def continues(record: Record, head: Head) -> str | None:
    """The last hash of the previous file, as this file's first record states it; None if it states none."""
    continues = value_at(record, "tokgate", "continues")
    if value_at(continues, "sequence") != head.sequence - 1:
        return None
    stated = value_at(continues, "hash")
    return str(stated) if is_hash(stated) else None
