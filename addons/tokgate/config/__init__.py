"""Reads policy files: positions, diagnostics, schema, and reload, which replaces the policy whole or not at all.

Loading never raises for the content of a file. All errors are returned as diagnostics at once.
"""
