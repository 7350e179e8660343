"""Keeps the kernel's part of a gateway in step with the policy, for the supervisor."""
