"""Positions in policy files. `policy/` passes them on and never reads them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """A position in a policy file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"
