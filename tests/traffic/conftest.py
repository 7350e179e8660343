"""A log that checks each record against the schema."""

from labs.proxy_fixtures import records

__all__ = ["records"]
