"""A client of an explicit front that nobody runs."""

from labs.front_steps import client

__all__ = ["client"]
