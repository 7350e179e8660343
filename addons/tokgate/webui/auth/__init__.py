"""Who may open the review page, and the record of who looked at what."""
