"""Writing: the queue, the file, its rotation, retention and pseudonyms."""
