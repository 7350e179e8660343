"""Reading the block log as a whole: queries, summaries, exports and the report, by DuckDB over NDJSON and Parquet."""
