"""Exit codes, the same for every command, and the error that carries one out of a command."""

from enum import IntEnum


class Exit(IntEnum):
    """What the shell sees."""

    DONE = 0
    FINDINGS = 1
    """The work was done and found something: errors in policies, failed tests, unreadable queries."""
    USAGE = 2
    FAILURE = 3
    """An internal error, or an environment that does not let the command work."""
    INTERRUPTED = 130
    """Ctrl-C: 128 + SIGINT, as shells report it."""
    READER_GONE = 141
    """Whoever read stdout stopped: 128 + SIGPIPE, as shells report it."""


class CommandError(Exception):
    """A command cannot go on, for a reason that is the user's to know: one line on stderr, no trace."""

    def __init__(self, message: str, code: Exit = Exit.FAILURE) -> None:
        """`message` is a sentence without the program's name."""
        super().__init__(message)
        self.code = code
