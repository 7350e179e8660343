"""Checks of well-formed policies: references, times, inventories."""
