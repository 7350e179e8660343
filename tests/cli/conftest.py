"""A small policy folder, and gates for commands that need one."""

from labs.command_line_fixtures import policies
from labs.gate_fixtures import monotonic, start_gate

__all__ = ["monotonic", "policies", "start_gate"]
