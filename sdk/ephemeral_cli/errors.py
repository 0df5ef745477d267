"""The one error of the command line: what happened, and what to type next. It never reaches the user as a traceback."""

from __future__ import annotations


class CommandError(Exception):
    """``message`` says what happened and where; ``hint`` is what to type or set next (may be empty).

    ``exit_code`` is 1 for what went wrong on the way, 2 for what was asked for in a way that cannot work.
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = 1):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
