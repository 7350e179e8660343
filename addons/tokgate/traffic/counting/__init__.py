"""Counters of decisions and events: of one process, and shared between processes."""
