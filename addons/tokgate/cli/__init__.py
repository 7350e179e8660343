"""The command line: one file a command, `main` collects them.

Data goes to stdout, narration to stderr. Nothing here decides: commands ask `policy.decide` and show what it says.
"""
