"""The command line: a module for each command; `main` finds them.

Data goes to stdout, messages to stderr. Nothing here decides: commands call `policy.decide` and show its result.
"""
