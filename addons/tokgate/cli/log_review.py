"""What the commands over a whole log share: its files, opening them for review, and errors in the user's words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tokgate.blocklog.reader import Filter
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.log_output import MAX_JUNK_SHOWN, require, tell_of
from tokgate.cli.terminal import Patience
from tokgate.review.sources import LogError, whole_log

if TYPE_CHECKING:
    from tokgate.review.engine import Review


def files_of(named: list[Path], *, rotated: bool) -> list[Path]:
    """The files to read, oldest first. Raises CommandError if there are none."""
    files = whole_log(named, rotated=rotated)
    missing = [path for path in named if not path.exists() and not (rotated and set(files) - set(named))]
    require(missing)
    return [path for path in files if path.exists()]


@contextmanager
def review_of(
    files: Sequence[Path], wanted: Filter | None = None, *, also_write: Sequence[Path] = ()
) -> Iterator["Review"]:
    """A review of files; what goes wrong with the log or the query is told in a line, with exit code 3."""
    from tokgate.review.engine import Review  # brings DuckDB, which `tail` and `verify` need not wait for

    with told_as_command_errors(), Review(files, wanted, also_write=also_write) as review:
        yield review


@contextmanager
def told_as_command_errors() -> Iterator[None]:
    """A log that can't be read or a query that can't be answered is the user's to know."""
    try:
        yield
    except LogError as error:
        raise CommandError(str(error), Exit.FAILURE) from error


def tell_of_lost(review: "Review") -> None:
    """Lines of which an answer could say nothing: after the answer, which knows whether there were any."""
    with Patience("counting unreadable lines") as patience:
        lost = review.lost(progress=patience)
    tell_of((*review.damage, *review.unreadable(lost, MAX_JUNK_SHOWN)), sum(lost.values()) + len(review.damage))
