"""YAML files as nodes with positions, and diagnostics for broken ones."""
