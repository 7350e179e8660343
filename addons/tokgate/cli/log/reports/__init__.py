"""The commands that write pages about the log: reports and case files."""
