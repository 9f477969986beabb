"""Errors that the user can correct."""


class UserError(Exception):
    """An error in the data, a file or an option; its message tells the user how to correct it."""


class Diverged(UserError):
    """Training diverged: the loss became NaN or infinite."""
