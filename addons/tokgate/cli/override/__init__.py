"""`tokgate override`: time-limited exemptions, written as YAML."""
