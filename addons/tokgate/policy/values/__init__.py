"""Values without policy: host names, prefixes, times, positions in policy files."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """A position in a policy file, which `policy/` passes on; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"
