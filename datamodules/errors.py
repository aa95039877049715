"""Errors that a user can cause.

Conventions: the message is one line that says what was wrong, what was found and what to do, in
that order. The command line prints it without a traceback and ends with exit code 2; every other
exception is a bug and keeps its traceback.
"""


class UserError(Exception):
    """Something that the user can put right: a name, a path, a file, a full disk."""
