"""Records: what a line of the block log holds."""
