"""A fleet's days in the shipped tables."""

from labs.siem import clickhouse, days

__all__ = ["clickhouse", "days"]
