"""Processes: the supervisor, gates, openers and the collector, and what they share."""
