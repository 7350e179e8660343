"""`tokgate doctor`: what may be wrong with a machine. The result of one of its checks is here."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """What was looked at, and what was seen. `remedy`: what to do about it; None if all is well."""

    subject: str
    said: str
    remedy: str | None = None
