"""Values without policy: host names, prefixes, times, positions in a source."""
