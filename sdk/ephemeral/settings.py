"""All settings of all rooms, in one table: name, default, help. Each is read from ``EPHEMERAL_<NAME>``.

Standard library only, so that the SDK and every room can import it in well under a millisecond.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Setting:
    """One row. ``default`` is the text an unset variable stands for; ``kind`` is how the text is read."""

    name: str
    kind: type
    default: str
    help: str

    @property
    def variable(self) -> str:
        return f"EPHEMERAL_{self.name.upper()}"


SETTINGS: tuple[Setting, ...] = (
    Setting("state", Path, "", "State directory: database, sockets, learned snapshots. Default: /var/lib/ephemeral for root, else $XDG_STATE_HOME/ephemeral."),
    Setting("store", Path, "", "What setup makes and every daemon can share: runsc, root filesystem, wheels, base environment, first snapshots. Default: STATE/store."),
    Setting("host", str, "", "Address of sandboxd for the other rooms and the SDK (http://… or unix:/path). Default: the Unix socket in STATE."),
    Setting("token", str, "", "Bearer token for sandboxd's API over TCP. Default: the one `ephemeral up` made, read from STATE/token."),
    Setting("proxy_port", int, "8787", "Port of the proxy on 127.0.0.1."),
    Setting("mcp_port", int, "8788", "Port of the MCP server on 127.0.0.1."),
    Setting("sandboxd_port", int, "8789", "Port of sandboxd and the dashboard on 127.0.0.1."),
    Setting("listen", str, "", "Address and port at which sandboxd answers other machines too, over TLS and with client certificates only, for example [::]:8790. Default: none."),
    Setting("upstream", str, "https://api.openai.com", "Provider that the proxy forwards /v1 to (scheme, host, maybe a base path)."),
    Setting("upstreams", str, "", "More providers, each under its name: NAME=URL, separated by spaces. anthropic, gemini, ollama and openrouter are known already."),
    Setting("proxy_ports", str, "", "Providers that also get a port of their own on 127.0.0.1: NAME=PORT, separated by spaces."),
    Setting("intercept_port", int, "8786", "Port of the proxy for programs that only know HTTPS_PROXY; served once `ephemeral certs init` has made an authority."),
    Setting("proxy_workers", int, "0", "Processes that carry the proxy's traffic. 0: one for each core, at most 4."),
    Setting("capture", bool, "0", "Keep conversation text and code in the database and show them on the dashboard."),
    Setting("capture_remote", bool, "0", "Send conversation text to a sandboxd on another machine, which keeps it if it captures."),
    Setting("runtime", str, "auto", "gvisor (runsc directly), docker (engine with the runsc runtime) or auto."),
    Setting("allow_weak_isolation", bool, "0", "Let `docker` run without gVisor. Anything the model writes then shares your kernel."),
    Setting("runsc", Path, "", "The runsc to use. Default: the one `ephemeral setup` chose."),
    Setting("blanks", int, "2", "Sandboxes that stand created, to restore snapshots into (22 MB each)."),
    Setting("oci_runtime", str, "runsc", "The engine's runtime that `docker` uses: runsc, or another that isolates (for example kata)."),
    Setting("cpu_budget", float, "0", "CPUs that all sandboxes may use together. 0: all of the machine's."),
    Setting("disk_budget_bytes", int, str(20 << 30), "Disk that wheels, environments and uv's cache may take; what was used longest ago goes first. 0: no limit."),
    Setting("snapshot_budget_bytes", int, str(4 << 30), "Disk that learned snapshots may take; those restored longest ago go first. 0: no limit."),
    Setting("spares", int, "2", "Sandboxes that stand booted for sessions nobody planned."),
    Setting("memory_budget_bytes", int, "0", "Memory that all sandboxes may hold together. 0: half of the machine's."),
    Setting("sandbox_memory_bytes", int, str(2 << 30), "Memory limit of a sandbox whose plan names none."),
    Setting("sandbox_cpus", float, "1", "CPUs of a sandbox whose plan names none."),
    Setting("sandbox_pids", int, "256", "Processes and threads a sandbox may have on the host."),
    Setting("sandbox_disk_bytes", int, str(512 << 20), "Size of a sandbox's writable scratch (tmpfs, counts as memory)."),
    Setting("timeout_seconds", float, "60", "Time limit of an execution that names none."),
    Setting("output_bytes", int, str(1 << 20), "Output kept of an execution (stdout and stderr together); the rest is counted and dropped."),
    Setting("idle_seconds", float, "300", "A session without a word for this long has ended."),
    Setting("retention_days", float, "30", "Ended sessions are kept so many days in the database. 0: for ever."),
    Setting("ledger_bytes", int, str(2 << 30), "Size of the database; sessions that ended first go first. 0: no limit."),
    Setting("log", str, "info", "Least level that is logged: debug, info, warning, error or critical."),
    Setting("log_format", str, "text", "Logs as lines for people (text) or as one JSON object a line (json)."),
    Setting("egress_connections", int, "32", "Connections that one sandbox may have open, where its session has a network."),
    Setting("egress_bytes", int, str(1 << 30), "Bytes that one sandbox may send, and receive, over its network."),
    Setting("index_url", str, "", "Package index. Default: pip's configured one, else PyPI."),
    Setting("find_links", str, "", "Extra directories or pages of wheels, separated by spaces. Default: pip's."),
    Setting("constraints", str, "", "Constraints for every resolution, separated by spaces (for example torch==2.13.0)."),
    Setting("private_index", str, "", "Index of your own packages (Simple API). Names in private_names come from there and are never looked up elsewhere."),
    Setting("private_names", str, "", "Names and patterns (acme-*) that belong to private_index, separated by spaces."),
    Setting("minimum_age_days", int, "0", "Releases younger than so many days are not taken. 0: any."),
    Setting("debian_mirror", str, "", "Debian mirror for setup on machines whose apt sources are not Debian's. Default: the machine's own."),
    Setting("base", Path, "", "File that lists the base environment's packages, one requirement a line. Default: the list that ships with sandboxd."),
    Setting("allow", str, "", "Package names allowed beyond the popular ones, separated by spaces."),
    Setting("deny", str, "", "Package names never installed, separated by spaces."),
    Setting("predictor", str, "ours", "What the predictor plans: ours, or nothing (none)."),
    Setting("memory_price_ms_per_gib_s", float, "6", "What a GiB held for a second may cost, in milliseconds of waiting that it saves: higher imports less ahead."),
    Setting("cpu_price", float, "0.35", "What a millisecond of CPU spent for nothing costs, in milliseconds of waiting: higher imports less ahead."),
    Setting("sandbox_memory_most_bytes", int, "0", "Memory limit that a prediction may give a sandbox. 0: half the memory budget of all of them."),
    Setting("k2_api_key", str, "", "Key for K2. Unset: no conversation leaves this machine but to your provider."),
    Setting("k2_base_url", str, "https://api.k2think.ai/v1", "OpenAI-compatible endpoint of the reasoning agent."),
    Setting("k2_model", str, "MBZUAI-IFM/K2-Think-v2", "Model of the reasoning agent."),
    Setting("k2_effort", str, "low", "reasoning_effort sent to it: low, medium or high, or off to send none."),
    Setting("k2_deadline_seconds", float, "12", "After this the answer no longer matters and is dropped."),
    Setting("k2_tokens_per_hour", int, "1000000", "Tokens that it may read and write in any hour; it is not asked beyond. 0: no limit."),
    Setting("k2_money_per_day", float, "0", "What it may cost in any day, by the two prices; it is not asked beyond. 0: no limit."),
    Setting("k2_price_read", float, "0", "Price of a million tokens that it reads."),
    Setting("k2_price_written", float, "0", "Price of a million tokens that it writes."),
)

K2_SUCCESSOR = "EPHEMERAL_K2_BASE_URL=https://api.ifm.ai/v1 EPHEMERAL_K2_MODEL=IFM/K2-Horizon-375B-A23B"
"""What to set once the model that is the default is no longer served."""

_BY_NAME = {setting.name: setting for setting in SETTINGS}


class SettingError(ValueError):
    """A variable holds text that cannot be read as its kind. The message names the variable and what it wants."""


def get(name: str):
    """The value of setting ``name``, read from the environment now.

    Raises SettingError when the variable's text is not of its kind, KeyError for a name that is not in the table.
    """
    setting = _BY_NAME[name]
    text = os.environ.get(setting.variable, "") or setting.default
    if setting.kind is bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off", ""):
            return False
        raise SettingError(f"{setting.variable} is {text!r}: write 1 or 0")
    if setting.kind is Path:
        return Path(text).expanduser().absolute() if text else _default_path(name)
    try:
        return setting.kind(text)
    except ValueError:
        raise SettingError(f"{setting.variable} is {text!r}: it wants {setting.kind.__name__}, for example {setting.default}") from None


def _default_path(name: str) -> Path | None:
    if name == "state":
        if os.geteuid() == 0:
            return Path("/var/lib/ephemeral")
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "ephemeral"
    if name == "store":
        return get("state") / "store"
    return None


def sandboxd_socket() -> Path:
    """Unix socket of sandboxd. Root-owned, mode 0600: who can open it needs no token."""
    return get("state") / "sandboxd.sock"


def predictor_socket() -> Path:
    """Unix socket of the predictor."""
    return get("state") / "predictor.sock"


def sandboxd_address() -> str:
    """Where the other rooms find sandboxd: ``unix:/path`` or ``http(s)://host:port``."""
    return get("host") or f"unix:{sandboxd_socket()}"


def remote_directory(address: str) -> Path:
    """Where `ephemeral host join` puts what reaching the sandboxd at ``address`` (``https://host:port``) takes."""
    return get("state") / "hosts" / (urlsplit(address).hostname or "nowhere")


def token() -> str:
    """The bearer token for sandboxd over TCP; empty when there is none to be had."""
    configured = get("token")
    if configured:
        return configured
    address = get("host")
    place = remote_directory(address) if address.startswith("https://") else get("state")
    try:
        return (place / "token").read_text().strip()
    except OSError:
        return ""
