"""The policy format: pydantic models, and the parsers of single values."""
