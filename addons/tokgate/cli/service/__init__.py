"""Commands that run tokgate or ask a running one."""
