"""What each `--json` prints, as types, of which `tokgate schema` makes JSON Schemas."""
