"""The error that is the user's to mend."""


class UserError(Exception):
    """Something the person at the keyboard can put right; its text says how."""


class Diverged(UserError):
    """The loss is no number any more."""
