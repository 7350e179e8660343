"""Block logs in the formats of other tools."""
