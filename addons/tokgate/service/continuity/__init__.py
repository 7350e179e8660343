"""How a run goes on: processes that hang are found, systemd is told, and a new program takes over."""
