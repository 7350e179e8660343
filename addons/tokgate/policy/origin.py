"""Where in the policy files a thing was said. The core carries it and never looks inside."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """A position in a policy file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"
