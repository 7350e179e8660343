"""Exit codes, the same for every command, and the exception that carries one."""

from enum import IntEnum

from tokgate.config.extras import Extra, missing_extra


class Exit(IntEnum):
    """The exit codes of all commands. 130 is that of a shell for SIGINT."""

    DONE = 0
    FINDINGS = 1
    """The work was done and found something: errors in policies, failed tests, unreadable queries."""
    USAGE = 2
    FAILURE = 3
    """An internal error, or an environment that does not let the command work."""
    INTERRUPTED = 130
    """Ctrl-C: 128 + SIGINT, as shells report it."""
    READER_GONE = 141
    """The reader of stdout has closed it: 128 + SIGPIPE, as shells report it."""


class CommandError(Exception):
    """Ends a command with one line on stderr, without a traceback: the cause is the user's to resolve."""

    def __init__(self, message: str, code: Exit = Exit.FAILURE) -> None:
        """`message` is a sentence without the program's name."""
        super().__init__(message)
        self.code = code


def need(extra: Extra) -> None:
    """End the command, before it does anything, where an extra isn't installed: exit code 3, and how to install it."""
    missing = missing_extra(extra)
    if missing is not None:
        raise CommandError(missing)
