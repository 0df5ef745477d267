"""The words the rooms say to each other: one pydantic model per message.

Every model is the body of an HTTP request or answer of sandboxd (``/v1``) or of the predictor. Times are Unix seconds
(float, UTC) where a name ends in ``_at``, milliseconds where it ends in ``_ms``, bytes where it ends in ``_bytes``.
Unknown fields are ignored on reading, so that an older room understands a newer one.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

SessionId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PackageName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
ModuleName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")]

RootName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")]
Domain = Annotated[str, Field(min_length=1, max_length=260, pattern=r"^[^\s/@?#%]+$")]
"""``api.example.com``, ``*.example.com``, with a port where it is not 80 or 443: ``api.example.com:8443``."""

T = TypeVar("T")
Language = Literal["python", "shell", "javascript"]
Tier = Literal["live", "partial", "snapshot", "environment", "wheels", "cold"]
Proposer = Literal["seen", "learned", "k2"]
Policy = Literal["ours", "none", "cached", "base", "fat-snapshot"]
ExecutionState = Literal["preparing", "running", "done"]
Verdict = Literal["ok", "error", "timeout", "interrupted", "memory", "output", "killed", "crashed", "refused"]
SandboxState = Literal["booting", "spare", "preparing", "ready", "running", "lost", "deleted"]


class Wire(BaseModel):
    """Base of every message: immutable, and lenient about fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


# ------------------------------------------------------------------------------------------------- conversation


class Event(Wire):
    """A piece of a conversation, as teed by the proxy or by ``ephemeral.wrap``; goes to the predictor only.

    ``kind`` says what ``text`` holds:

    - ``turn_started``: a request went to the provider; ``text`` is empty, ``model`` and ``provider`` are set.
    - ``user_turn``: the text of one user or system message (``role``) that was not seen before in this session.
    - ``tool_declared``: a tool the app offers the model; ``name`` is its name.
    - ``assistant_text`` / ``reasoning_text``: the next piece (delta) of the answer.
    - ``tool_call_started``: the model begins to call tool ``name``; ``call`` is the call's id.
    - ``code``: the next piece (delta) of the code argument of call ``call``, already decoded from its JSON string.
    - ``code_done``: that code is complete; ``digest`` is the sha256 of its UTF-8 bytes.
    - ``tool_result``: a tool's answer the app sent back; ``call`` is the call's id.
    - ``turn_ended``: the provider's answer is over; ``text`` is the finish reason, ``cut`` when it broke off, or
      ``error`` for an answer that is none (a status other than 2xx).
    """

    session: SessionId
    at: float
    kind: Literal[
        "turn_started", "user_turn", "tool_declared", "assistant_text", "reasoning_text", "tool_call_started",
        "code", "code_done", "tool_result", "turn_ended",
    ]
    text: str = ""
    call: str = ""
    name: str = ""
    digest: str = ""
    app: str = ""
    model: str = ""
    provider: str = ""
    role: Literal["", "user", "system"] = ""


# ------------------------------------------------------------------------------------------------- prediction


class Want(Wire):
    """One package a plan asks for. ``evidence`` is a kind (``import``, ``mention``, ``file``, ``concept``, ``model``,
    ``pip install``, ``history``, ``k2``), never conversation text."""

    package: PackageName
    version: str | None = Field(default=None, max_length=40, pattern=r"^[0-9][A-Za-z0-9.+!]*$")
    probability: float = Field(ge=0, le=1)
    proposer: Proposer
    evidence: str = Field(default="", max_length=60)
    decision: Literal["import", "available"] | None = None
    """Whether importing it ahead pays: its modules are among the plan's, or it is only made available. None: nobody weighed it."""
    saves_ms: float | None = Field(default=None, ge=0)
    """What an import ahead is expected to save: probability × time of its imports."""
    costs_ms: float | None = Field(default=None, ge=0)
    """What it is expected to cost, in the same milliseconds: memory held until it is used, and CPU spent for nothing."""


class Plan(Wire):
    """What the predictor wants for a session now. It replaces the session's plan before it.

    ``action`` ``provision`` prepares a sandbox with ``wants`` mounted and ``modules`` imported; ``resize`` changes only
    the size; ``release`` gives the session's sandbox back; ``nothing`` says that no code is expected.
    """

    session: SessionId
    proposer: Proposer
    action: Literal["provision", "resize", "release", "nothing"] = "provision"
    wants: list[Want] = Field(default_factory=list, max_length=64)
    modules: list[ModuleName] = Field(default_factory=list, max_length=64)
    memory_bytes: int | None = Field(default=None, ge=64 << 20, le=1 << 40)
    cpus: float | None = Field(default=None, gt=0, le=256)
    disk_bytes: int | None = Field(default=None, ge=1 << 20, le=1 << 40)
    """Size of each of the sandbox's writable places; they are memory. Fixed once the sandbox has started."""
    timeout_seconds: float | None = Field(default=None, gt=0, le=86_400)
    """Time limit of the session's executions that name none."""
    root: RootName | None = None
    """Root filesystem, and with it the Python. Fixed once something ran in the session."""
    needs_code: float = Field(default=1.0, ge=0, le=1)
    app: str = Field(default="", max_length=100)
    at: float = 0.0


class PlanRecord(Wire):
    """A plan as recorded, with what became of it."""

    id: int
    session: str
    plan: Plan
    accepted: list[str] = []
    refused: dict[str, str] = {}
    """Package -> the rule that refused it."""
    outcome: Literal["building", "ready", "unchanged", "superseded", "failed", "declined", "released", "nothing"] = "building"
    """``declined``: what it would have saved was worth less than the memory it would have taken from others."""
    ready_at: float | None = None
    error: str = ""


class DigestClaim(Wire):
    """Ties code that the proxy saw streaming by to its session, before the code arrives."""

    session: SessionId


# ------------------------------------------------------------------------------------------------- sessions


class SessionRequest(Wire):
    id: SessionId | None = None
    app: str = Field(default="", max_length=100)
    policy: Policy = "ours"
    root: RootName = "default"
    """Root filesystem of its sandboxes: `GET /v1/roots` lists them."""
    network: list[Domain] = Field(default_factory=list, max_length=100)
    """Domains that its code may reach over HTTP and HTTPS. Empty: no network at all."""


class NetworkGrant(Wire):
    """What a session's code may reach from now on; replaces the grant before it."""

    allow: list[Domain] = Field(default_factory=list, max_length=100)


class Session(Wire):
    """One conversation. ``state`` becomes ``ended`` on an explicit close or after the idle time (setting)."""

    id: str
    app: str = ""
    policy: Policy = "ours"
    state: Literal["active", "ended"] = "active"
    root: str = "default"
    network: list[str] = []
    started_at: float
    last_at: float
    ended_at: float | None = None
    sandbox: str | None = None
    executions: int = 0
    builds: int = 0
    wasted: int = 0
    memory_seconds: float = 0.0
    """Memory of the session's sandboxes (bytes, PSS) integrated over their life, in GiB-seconds."""


class Moment(Wire):
    """One mark on a session's timeline. Carries no conversation text unless capture is on.

    ``kind`` of the conversation: an Event's kind, ``k2_prompt``, ``k2_answer``. Of ours: ``plan``, ``build``, ``snapshot``, ``boot``, ``restore``,
    ``mount``, ``preload``, ``ready``, ``frozen``, ``code_arrived``, ``repair``, ``execution``, ``released``, ``ended``.
    """

    session: SessionId
    at: float
    kind: str = Field(max_length=40)
    duration_ms: float | None = None
    detail: str = Field(default="", max_length=4000)
    data: dict[str, object] = {}


# ------------------------------------------------------------------------------------------------- executions


class ExecutionRequest(Wire):
    """Run ``code``. The session is found by, in this order: ``session``, the digest of ``code``, ``sandbox``; failing
    all three the code gets a session of its own.

    ``one_shot`` code neither sees nor changes the session's variables. ``stdin`` is all that it can read; ``interactive`` code waits for what
    ``POST /v1/executions/{id}/stdin`` feeds it. JavaScript needs a root filesystem with Node, and keeps nothing between executions.

    ``elapsed_ms`` is what passed between the code's arrival at the caller (the MCP server) and this request.
    """

    code: str = Field(max_length=2_000_000)
    language: Language = "python"
    session: SessionId | None = None
    sandbox: str | None = Field(default=None, max_length=80)
    packages: list[PackageName] = Field(default_factory=list, max_length=64)
    timeout_seconds: float | None = Field(default=None, gt=0, le=86_400)
    stdin: str | None = Field(default=None, max_length=1_000_000)
    interactive: bool = False
    one_shot: bool = False
    elapsed_ms: float = Field(default=0.0, ge=0, le=3_600_000)
    source: Literal["api", "mcp", "sdk"] = "api"


class Feed(Wire):
    """More standard input for an interactive execution. ``close``: this is all."""

    text: str = Field(default="", max_length=1_000_000)
    close: bool = False


class Output(Wire):
    """A rich result (a plot, a table). ``data`` is base64 for binary types, text otherwise."""

    mime: str
    data: str


class Stages(Wire):
    """Milliseconds of every stage of one execution's wait, and of its run. ``total_ms`` = ``wait_ms`` + ``run_ms``."""

    transport_ms: float = 0.0
    find_session_ms: float = 0.0
    queue_ms: float = 0.0
    resolve_ms: float = 0.0
    download_ms: float = 0.0
    compose_ms: float = 0.0
    boot_ms: float = 0.0
    restore_ms: float = 0.0
    preload_ms: float = 0.0
    thaw_ms: float = 0.0
    dispatch_ms: float = 0.0
    import_ms: float = 0.0


class Execution(Wire):
    """One run of code and all that was measured about it."""

    id: str
    session: str
    sandbox: str | None = None
    source: str = "api"
    language: str = "python"
    state: ExecutionState = "preparing"
    verdict: Verdict | None = None
    tier: Tier | None = None
    found_by: Literal["session", "digest", "sandbox", "none"] = "none"
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    wait_ms: float | None = None
    run_ms: float | None = None
    lead_ms: float | None = None
    stages: Stages = Stages()
    predicted: list[str] = []
    """Packages the session's plan held when the code arrived, sorted."""
    needed: list[str] = []
    """Packages the code imported (third-party only), sorted."""
    missing: list[str] = []
    """Needed, and neither mounted nor in the base environment when the code arrived."""
    late_imports: list[str] = []
    """Modules that were imported while the code ran."""
    stdout: str = ""
    stderr: str = ""
    result: str | None = None
    """repr of the last expression, if the code ends in one that is not None."""
    traceback: str | None = None
    outputs: list[Output] = []
    truncated_bytes: int = 0
    error: str | None = None
    """Why the execution died or was refused, and what to do: one sentence. None for ``ok`` and ``error`` verdicts."""
    notice: str | None = None
    """What the caller should know although the code ran: that its session's sandbox was lost before, for example."""
    peak_memory_bytes: int | None = None
    cpu_ms: float | None = None
    code_sha256: str = ""
    code: str | None = None
    """Only when capture is on."""


class Piece(Wire):
    """One server-sent event of a streamed execution (``POST /v1/executions`` with ``Accept: text/event-stream``).

    ``accepted`` (``execution`` is its record so far: its id can be interrupted and fed), ``preparing`` (``text`` says what is waited for,
    ``done`` and ``total`` how far it is, where that is known), ``started``, ``stdout`` and ``stderr`` (``text``), ``output``, and at
    last ``done`` (``execution`` is the whole record).
    """

    kind: Literal["accepted", "preparing", "started", "stdout", "stderr", "output", "done"]
    text: str = ""
    done: int | None = None
    total: int | None = None
    output: Output | None = None
    execution: Execution | None = None


class File(Wire):
    """A file, directory or link inside a sandbox."""

    path: str
    kind: Literal["file", "directory", "link", "other"]
    size_bytes: int
    modified_at: float


# ------------------------------------------------------------------------------------------------- what stands ready


class EnvironmentRequest(Wire):
    """Have these packages (``name`` or ``name==version``) ready to be mounted."""

    packages: list[Annotated[str, Field(min_length=1, max_length=150)]] = Field(min_length=1, max_length=64)
    root: RootName = "default"


class RootFilesystem(Wire):
    """What sandboxes are made of: a Python, libraries, command-line tools."""

    name: str
    id: str
    python: str
    glibc: str
    tools: list[str] = []
    node: bool = False
    size_bytes: int = 0
    origin: str = ""
    created_at: float = 0.0


class Environment(Wire):
    """An immutable, resolved set of wheels for one Python, named by its lock's hash."""

    id: str
    python: str
    requested: list[str]
    packages: dict[str, str]
    """Name -> version of everything in the lock."""
    size_bytes: int = 0
    compiled: bool = False
    base: bool = False
    pinned: bool = False
    created_at: float
    last_used_at: float | None = None


class Snapshot(Wire):
    id: str
    environments: list[str]
    modules: list[str]
    size_bytes: int
    root: str = "default"
    import_ms: float
    """How long the imports took that a restore saves."""
    created_at: float
    restores: int = 0
    failures: int = 0


class Sandbox(Wire):
    id: str
    session: str | None = None
    runtime: Literal["gvisor", "docker"] = "gvisor"
    isolation: str = "gVisor (runsc, systrap)"
    state: SandboxState
    frozen: bool = False
    root: str = "default"
    started_from: str = "boot"
    """``boot`` or the id of the snapshot."""
    start_ms: float | None = None
    """How long that took, until it answered."""
    environments: list[str] = []
    modules: list[str] = []
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    cpus: float = 1.0
    disk_bytes: int = 0
    executions: int = 0
    created_at: float


class Host(Wire):
    """This host: its parts, budgets and what is used of them."""

    version: str
    runtime: str
    isolation: str
    platform: str
    cores: int
    memory_bytes: int
    memory_budget_bytes: int
    memory_used_bytes: int
    sandboxes: int
    spares: int
    sessions: int
    base: str | None = None
    base_packages: list[str] = []
    python: str = ""
    capture: bool = False
    snapshots: int = 0
    cpu_budget: float = 0.0
    disk_bytes: int = 0
    """What the store and the snapshots take."""
    disk_budget_bytes: int = 0
    frozen: int = 0
    waiting: int = 0
    """Sessions that wait for a sandbox."""
    refused: int = 0
    """Requests answered 429 since the start."""
    facts: dict[str, str] = {}


class Figure(Wire):
    """A median of ``n`` observations of this host; ``prior`` (``n`` is 0) where there was none yet, and it is what other machines showed."""

    value: float = Field(ge=0, le=1e15)
    n: int = Field(default=0, ge=0)
    source: Literal["measured", "prior"] = "prior"


class ModuleCosts(Wire):
    """What it costs to have a module imported, beyond those that it brings along: the time of its import and first use, the memory it adds."""

    import_ms: Figure
    memory_bytes: Figure


class Costs(Wire):
    """What things cost on this host, lately."""

    boot_ms: Figure
    """A sandbox with nothing imported, until it answers."""
    restore_ms: Figure
    import_ms: Figure
    """A module that was never timed here: as long as those that were."""
    memory_bytes: Figure
    """What such a module adds."""
    fetch_ms: Figure
    """Packages outside the base environment: resolved, downloaded and composed."""
    until_used_seconds: Figure
    """How long a sandbox stands ready until code comes, when some does."""
    until_ended_seconds: Figure
    """How long it stands when none does, until its session ends or it is given back."""
    modules: dict[str, ModuleCosts] = {}
    """By top-level module: those that were timed on this host."""


class PruneRequest(Wire):
    """``older_than_days`` defaults to EPHEMERAL_RETENTION_DAYS; 0 forgets every session that has ended. ``dry_run`` only counts.
    ``vacuum`` rewrites the whole file afterwards, which takes as much disk again while it lasts."""

    older_than_days: float | None = Field(default=None, ge=0, le=36_500)
    dry_run: bool = False
    vacuum: bool = False


class Pruned(Wire):
    """What was deleted, or, of a dry run, what would be."""

    rows: dict[str, int]
    """Table -> rows."""
    freed_bytes: int
    """By how much the file has become smaller; of a dry run, an estimate."""
    size_bytes: int
    """The database after it."""
    dry_run: bool = False


class Problem(Wire):
    """RFC 9457 problem details. ``detail`` says what happened and where, ``hint`` what to type or do next."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    hint: str = ""
    id: str | None = None


class Page(Wire, Generic[T]):
    """A list, newest first. ``next`` is the ``before`` value of the following page, None at the end."""

    items: list[T]
    next: str | None = None


class Live(Wire):
    """One server-sent event of ``GET /v1/stream``: exactly one field beside ``kind`` is set, named as ``kind``."""

    kind: Literal["moment", "session", "plan", "execution", "sandbox", "host"]
    moment: Moment | None = None
    session: Session | None = None
    plan: PlanRecord | None = None
    execution: Execution | None = None
    sandbox: Sandbox | None = None
    host: Host | None = None
