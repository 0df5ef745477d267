"""What the API asks of the daemon behind it. The pool is the real one; the API knows nothing else of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

from ephemeral import wire


class Daemon(Protocol):
    """All methods are called on the event loop; the plain ones return at once. Errors are `errors.SandboxdError`s."""

    def open_session(self, request: wire.SessionRequest) -> wire.Session:
        """The session `request.id`, opened when it is new (or a new one, when no id is given)."""
        ...

    async def end_session(self, session_id: str) -> wire.Session:
        """End it and give its sandbox back. Raises NotFound."""
        ...

    async def put_plan(self, plan: wire.Plan) -> wire.PlanRecord:
        """Replace the session's plan; returns before anything is built. Opens the session when it is new."""
        ...

    def claim_digest(self, digest: str, session_id: str) -> None:
        """Code with this sha256 belongs to that session."""
        ...

    def add_moments(self, moments: list[wire.Moment]) -> None:
        """Marks on a session's timeline, from the predictor."""
        ...

    async def grant_network(self, session_id: str, grant: wire.NetworkGrant) -> wire.Session:
        """What the session's code may reach from now on. Raises NotFound, BadRequest for what is no domain."""
        ...

    async def execute(
        self, request: wire.ExecutionRequest, arrived: float, tell: Callable[[wire.Piece], None] | None = None
    ) -> wire.Execution:
        """Run the code and return when it is done; `tell` hears everything as it happens. `arrived`: `time.perf_counter()`
        when the request's head was read."""
        ...

    async def interrupt(self, execution_id: str) -> None:
        """Stop the code where it is. Raises NotFound when nothing of that id runs."""
        ...

    def feed(self, execution_id: str, feed: wire.Feed) -> None:
        """More standard input. Raises NotFound, BadRequest for an execution that is not interactive."""
        ...

    @property
    def files(self) -> Files: ...

    def sandboxes(self) -> list[wire.Sandbox]: ...

    async def delete_sandbox(self, sandbox_id: str) -> None:
        """Kill it now. Raises NotFound."""
        ...

    def environments(self) -> list[wire.Environment]: ...

    async def make_environment(self, request: wire.EnvironmentRequest) -> wire.Environment:
        """Resolve and fetch. Raises Refused, Unavailable, or what the resolver says."""
        ...

    async def drop_environment(self, environment_id: str) -> None:
        """Raises NotFound; Refused while something has it mounted."""
        ...

    async def pin_environment(self, environment_id: str, pinned: bool) -> wire.Environment:
        """A pinned one is never dropped for the disk budget. Raises NotFound."""
        ...

    def roots(self) -> list[wire.RootFilesystem]: ...

    def snapshots(self) -> list[wire.Snapshot]: ...

    def host(self) -> wire.Host: ...

    def ready(self) -> str | None:
        """None when executions can be served, else one sentence that says what is missing."""
        ...


class Files(Protocol):
    """Files inside a session's sandbox; relative paths are below /scratch. Raise NotFound, Refused, BadRequest, Unavailable."""

    async def list(self, session_id: str, path: str) -> list[wire.File]: ...

    def read(self, session_id: str, path: str) -> AsyncGenerator[bytes, None]: ...

    async def write(self, session_id: str, path: str, pieces: AsyncIterator[bytes]) -> wire.File: ...

    async def delete(self, session_id: str, path: str) -> None: ...
