"""A small policy folder."""

from labs.command_line_fixtures import policies

__all__ = ["policies"]
