"""Who looked into the log: the file that says so, and its comparison with what the log says of it."""
