"""What a gateway needs of its host besides a table and routes, and what there keeps it from working."""
