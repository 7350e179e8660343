"""Public lists of names: readers of their formats, what of them becomes a service, and the file made of it."""
