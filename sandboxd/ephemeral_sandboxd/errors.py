"""Everything sandboxd refuses or fails at in a way that the caller can do something about.

    SandboxdError
    ├── BadRequest    400  the request cannot be meant like this
    ├── Refused       403  understood, and not allowed
    ├── NotFound      404  no such session, execution, sandbox
    ├── Busy          429  not now; `retry_after_seconds` says when
    └── Unavailable   503  a part that sandboxd needs is not there

The API turns each into `application/problem+json` (wire.Problem). Any other exception is a defect of ours: it becomes a
500 whose id is in the log.
"""

from __future__ import annotations


class SandboxdError(Exception):
    """`title` names the kind of trouble and is the same every time, `detail` says what happened to whom (with ids),
    `hint` says what to type or do next."""

    def __init__(self, title: str, detail: str = "", hint: str = "", status: int = 500) -> None:
        super().__init__(title if not detail else f"{title}: {detail}")
        self.title = title
        self.detail = detail
        self.hint = hint
        self.status = status


class BadRequest(SandboxdError):
    def __init__(self, title: str, detail: str = "", hint: str = "", status: int = 400) -> None:
        super().__init__(title, detail, hint, status)


class Refused(SandboxdError):
    def __init__(self, title: str, detail: str = "", hint: str = "", status: int = 403) -> None:
        super().__init__(title, detail, hint, status)


class NotFound(SandboxdError):
    def __init__(self, title: str, detail: str = "", hint: str = "", status: int = 404) -> None:
        super().__init__(title, detail, hint, status)


class Busy(SandboxdError):
    """`retry_after_seconds` goes out as the Retry-After header."""

    def __init__(
        self, title: str, detail: str = "", hint: str = "", status: int = 429, retry_after_seconds: float = 1.0
    ) -> None:
        super().__init__(title, detail, hint, status)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(SandboxdError):
    def __init__(self, title: str, detail: str = "", hint: str = "", status: int = 503) -> None:
        super().__init__(title, detail, hint, status)
