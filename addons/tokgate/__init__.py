"""tokgate: an egress filter that enforces time-limited bans on named services and shows that it did."""
