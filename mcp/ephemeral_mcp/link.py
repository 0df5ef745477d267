"""The line to sandboxd: connections that stay open, and failures in words an agent can act on."""

from __future__ import annotations

from types import TracebackType

import aiohttp
from pydantic import ValidationError

from ephemeral import remote, settings, wire
from ephemeral.errors import EphemeralError


class LinkError(Exception):
    """sandboxd refused or could not be asked. The message says what happened and what to do next."""


class Link:
    """`async with Link() as link: execution = await link.execute(request)`"""

    def __init__(self, address: str | None = None, token: str | None = None) -> None:
        """`address`: `unix:/path` or `http(s)://host:port`; default: settings. `token`: for TCP; default: settings."""
        self._address = address or settings.sandboxd_address()
        self._token = token if token is not None else settings.token()
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Link:
        """Raises LinkError when sandboxd is on another machine and this one has no certificate for it."""
        connector: aiohttp.BaseConnector
        if self._address.startswith("unix:"):
            base, headers = "http://sandboxd", {}
            connector = aiohttp.UnixConnector(self._address.removeprefix("unix:"), limit=0, keepalive_timeout=600)
        else:
            base, headers = self._address, {"Authorization": f"Bearer {self._token}"}
            try:
                tls = remote.context(self._address) if remote.is_remote(self._address) else True
            except EphemeralError as problem:
                raise LinkError(f"{problem} {problem.hint}") from None
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600, ssl=tls)
        self._http = aiohttp.ClientSession(
            base,
            connector=connector,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),  # executions end by sandboxd's own limits
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()

    async def execute(self, request: wire.ExecutionRequest) -> wire.Execution:
        """Run the code; returns when it is done. Raises LinkError."""
        assert self._http is not None, "enter the link first"
        body = request.model_dump_json(exclude_unset=True).encode()
        try:
            async with self._http.post("/v1/executions", data=body) as response:
                status, answer = response.status, await response.read()
        except (aiohttp.ClientConnectorError, ConnectionRefusedError, FileNotFoundError) as problem:
            if explained := remote.explain(self._address, problem) if remote.is_remote(self._address) else None:
                raise LinkError(f"{explained} {explained.hint}") from None
            raise LinkError(
                "The sandbox service (sandboxd) is not running, so the code was not run. Tell the user to start it by typing: "
                "ephemeral up. Then call this tool again."
            ) from None
        except aiohttp.ClientError as problem:
            raise LinkError(
                f"The sandbox service (sandboxd) went away while it was running the code ({type(problem).__name__}); the code "
                "may or may not have run. Call this tool again; if that fails too, tell the user to type: ephemeral doctor"
            ) from None
        if status >= 400:
            raise LinkError(_explain(status, answer))
        return wire.Execution.model_validate_json(answer)


def _explain(status: int, answer: bytes) -> str:
    try:
        problem = wire.Problem.model_validate_json(answer)
    except ValidationError:
        return f"The sandbox service answered HTTP {status}. Tell the user to type: ephemeral doctor"
    words = [f"{problem.title}: {problem.detail}" if problem.detail else f"{problem.title}.", problem.hint]
    return " ".join(word for word in words if word)
