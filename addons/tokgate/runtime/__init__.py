"""What a running instance does besides traffic: phases, coverage, reminders, status, reload."""
