"""What the API asks of the daemon behind it. The pool is the real one; the API knows nothing else of it."""

from __future__ import annotations

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

    async def execute(self, request: wire.ExecutionRequest, arrived: float) -> wire.Execution:
        """Run the code and return when it is done. `arrived`: `time.perf_counter()` when the request's head was read."""
        ...

    def sandboxes(self) -> list[wire.Sandbox]: ...

    async def delete_sandbox(self, sandbox_id: str) -> None:
        """Kill it now. Raises NotFound."""
        ...

    def environments(self) -> list[wire.Environment]: ...

    def snapshots(self) -> list[wire.Snapshot]: ...

    def host(self) -> wire.Host: ...

    def ready(self) -> str | None:
        """None when executions can be served, else one sentence that says what is missing."""
        ...
