"""Looks for what keeps tokgate on this machine from doing its work: each finding with what to do."""
