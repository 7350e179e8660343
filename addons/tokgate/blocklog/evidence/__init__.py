"""Evidence for others: proofs of single records, and timestamps of checkpoints by a third party."""
