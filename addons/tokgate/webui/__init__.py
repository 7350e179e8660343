"""The review page: the block log in a browser."""
