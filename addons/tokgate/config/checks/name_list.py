"""What a file of names holds."""

import hashlib
from dataclasses import dataclass

from tokgate.config.yaml.source import Source, TextSpan


@dataclass(frozen=True, slots=True)
class NameList:
    """The patterns of one kind in a file, with their places in it."""

    source: Source
    patterns: tuple[tuple[str, TextSpan], ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the patterns, whatever their order and what else stands in the file."""
        return hashlib.sha256("\n".join(sorted({value for value, _ in self.patterns})).encode()).hexdigest()
