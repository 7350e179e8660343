"""Reading log files in order, also while they grow."""
