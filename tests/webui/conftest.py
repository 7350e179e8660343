"""A review page over a small log, as a browser on the same machine sees it."""

from labs.review_page import _eager, open_page, page, users

__all__ = ["_eager", "open_page", "page", "users"]
