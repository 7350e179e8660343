"""Gates for commands that need one."""

from labs.gate_fixtures import monotonic, start_gate

__all__ = ["monotonic", "start_gate"]
