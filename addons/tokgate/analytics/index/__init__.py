"""A DuckDB index over growing log files, for the review page."""
