"""The review page: the log in a browser, over the same columns as `tokgate log`. It reads, and changes nothing."""
