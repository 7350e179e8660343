"""Queries to a ClickHouse server that has the tables of export/clickhouse.py, in the same SQL as to files."""
