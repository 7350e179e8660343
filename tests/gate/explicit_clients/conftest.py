"""A client of an explicit front that nobody runs."""

from labs.front_steps import client
from labs.sign_in import asking

__all__ = ["asking", "client"]
