"""Questions to block logs, answered by DuckDB. Reads logs only."""
