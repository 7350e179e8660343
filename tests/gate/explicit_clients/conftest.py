"""Users who sign in."""

from labs.sign_in import asking

__all__ = ["asking"]
