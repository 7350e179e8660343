"""The hash chain, its signed checkpoints, and their verification."""
