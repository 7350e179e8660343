"""The page that refuses or warns: its text in each language, its form, and the authority that signs for it."""
