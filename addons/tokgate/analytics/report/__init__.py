"""A report for readers who are no engineers: findings, charts, the page."""
