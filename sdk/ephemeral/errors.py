"""What can go wrong when talking to sandboxd.

    EphemeralError
    ├── NotRunning      nothing answers at the address: `ephemeral up`
    ├── Unauthorized    no token, or a wrong one
    ├── Refused         understood, and not allowed (a package that policy refuses, say)
    ├── NotFound        no such session, execution, sandbox
    ├── BadRequest      the request cannot be meant like this
    ├── Busy            not now; `retry_after_seconds` says when
    └── ServerError     sandboxd failed; `problem.id` finds it in its log

Code that fails is none of these: `run` returns an Execution, whose `verdict` and `traceback` say what happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ephemeral.wire import Problem


class EphemeralError(Exception):
    """Base of all. `problem` is what sandboxd answered, None when it did not; `hint` is what to do next."""

    def __init__(self, message: str, *, hint: str = "", problem: Problem | None = None) -> None:
        super().__init__(f"{message} {hint}".strip())
        self.hint = hint
        self.problem = problem


class NotRunning(EphemeralError):
    pass


class Unauthorized(EphemeralError):
    pass


class Refused(EphemeralError):
    pass


class NotFound(EphemeralError):
    pass


class BadRequest(EphemeralError):
    pass


class Busy(EphemeralError):
    def __init__(
        self, message: str, *, hint: str = "", problem: Problem | None = None, retry_after_seconds: float = 1.0
    ) -> None:
        super().__init__(message, hint=hint, problem=problem)
        self.retry_after_seconds = retry_after_seconds


class ServerError(EphemeralError):
    pass
