"""Analyses of a policy beside decisions: timeline, differences, reminders."""
