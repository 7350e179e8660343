"""Policy files to policy: positions, diagnostics, schema, and reload (all or nothing, the last good policy kept).

Loading never raises for what a file says; what is wrong comes back as diagnostics, all of it at once.
"""
