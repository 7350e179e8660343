"""Values as arguments of commands: those of the policy format, and numbers."""

import argparse
from collections.abc import Callable
from typing import Any


def argument_of[T](read: Callable[[Any], T]) -> Callable[[str], T]:
    """A parser of policy values as argparse's `type=`."""

    def convert(text: str) -> T:
        from pydantic_core import PydanticCustomError  # most commands do without

        try:
            return read(text)
        except PydanticCustomError as error:
            raise argparse.ArgumentTypeError(error.message()) from error

    return convert


def whole_number(what: str, first: int = 0, last: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from `first` to `last`, as argparse's `type=`; errors call the value `what`."""

    def convert(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if number < first or (last is not None and number > last):
            raise argparse.ArgumentTypeError(
                f"{text!r} is no {what}" + ("" if last is None else f": {first} to {last}")
            )
        return number

    return convert
