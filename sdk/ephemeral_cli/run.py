"""``ephemeral run -- COMMAND``: a program that talks to its providers through the proxy, with nothing set outside of it.

Its environment is all that is given to it; then we become it, so that its terminal, its signals and its exit code are its own.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

from ephemeral import providers, settings
from ephemeral.providers import Provider, ProviderError
from ephemeral_cli.certs import variables
from ephemeral_cli.errors import CommandError

PATIENCE_SECONDS = 5.0

READ = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "anthropic": ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL", "ANTHROPIC_API_BASE"),
    "gemini": ("GOOGLE_GEMINI_BASE_URL",),
    "ollama": ("OLLAMA_HOST", "OLLAMA_API_BASE"),
    "openrouter": ("OPENROUTER_API_BASE",),
}
"""Which variables say where a provider is. The official clients read the first of each, LangChain and LiteLLM the others as well, and before it."""
WITH_V1 = ("openai", "openrouter")
"""Their clients want the ``/v1`` in the base URL; those of the others bring it along."""
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def prepare(*, intercept: bool, dry_run: bool = False) -> dict[str, str]:
    """The variables that the program needs. Raises CommandError where they, or the proxy that they name (unless it is a dry run), are not to be had."""
    try:
        if intercept:
            return _intercepting(dry_run)
        found = base_urls(os.environ)
        if not dry_run:
            _check_providers(_health())
    except ProviderError as problem:
        raise CommandError(str(problem), exit_code=2) from None
    return found


def base_urls(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables by which official clients find the proxy. Raises CommandError where the user's own name another place than ours
    would be, ProviderError for settings that cannot be read."""
    known, own_ports, port = providers.configured(), providers.ports(), settings.get("proxy_port")
    found: dict[str, str] = {}
    for name, read in READ.items():
        for variable in read:
            _refuse_elsewhere(variable, environment.get(variable, "").strip(), known[name], {port, *own_ports.values()})
            found[variable] = _address(name, port, own_ports)
    if any(environment.get(name) for name in PROXIES):
        found |= variables.without_proxy(environment)  # else they would ask that proxy for 127.0.0.1
    return found


def become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by ``command``, looked up in the PATH of ``environment``. Raises CommandError (126, 127) as a shell would."""
    program = command[0]
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these for itself, and what is ignored stays so over an exec; a program expects them as they are.
    before = {one: signal.signal(one, signal.SIG_DFL) for one in (signal.SIGPIPE, signal.SIGXFSZ)}
    try:
        os.execvpe(program, list(command), dict(environment))  # noqa: S606 (what was typed is what runs: no shell wanted)
    except (FileNotFoundError, NotADirectoryError):
        if shutil.which(program, path=environment.get("PATH")):
            raise CommandError(f"{program} cannot be executed: the interpreter that it names is not there", exit_code=126) from None
        raise CommandError(f"there is no command {program!r}", "check its name, or write its path", 127) from None
    except OSError as problem:
        raise CommandError(f"{program} cannot be executed: {problem.strerror}", exit_code=126) from None
    finally:  # we are still here
        for one, handler in before.items():
            signal.signal(one, handler)


def _address(name: str, port: int, own_ports: Mapping[str, int]) -> str:
    if name == "ollama" and name in own_ports:
        return f"http://127.0.0.1:{own_ports[name]}"  # older versions of its command line know no path
    path = "" if name == "openai" else f"/{name}"
    return f"http://127.0.0.1:{port}{path}{'/v1' if name in WITH_V1 else ''}"


def _refuse_elsewhere(variable: str, text: str, provider: Provider, ours: set[int]) -> None:
    """Whoever set ``variable`` meant that place: their conversations and keys must not go to another company because we came between."""
    if not text:
        return
    name = provider.name
    try:
        theirs = Provider.parse(name, _whole(text) if name == "ollama" else text)
    except ProviderError:
        raise CommandError(f"{variable} holds what the proxy cannot forward to", f"unset {variable}, or make it scheme, host and path only", 2) from None
    if _place(theirs) == _place(provider) or (_host(theirs) == "127.0.0.1" and theirs.port in ours):
        return
    setting = f"EPHEMERAL_UPSTREAM={text}" if name == providers.OPENAI else f'EPHEMERAL_UPSTREAMS="{name}={_whole(text)}"'
    raise CommandError(
        f"{variable} points to {theirs.authority}, and the proxy would take that traffic to {provider.authority}",
        f"{setting} for `ephemeral up` and for this command; or unset {variable}", 2,
    )  # fmt: skip


def _place(one: Provider) -> tuple[str, str, int, str]:
    return one.scheme, _host(one), one.port, one.base.removesuffix("/v1")


def _host(one: Provider) -> str:
    """Loopback by one name. 0.0.0.0 is what Ollama's server is told to listen on: its clients take it for this machine."""
    return "127.0.0.1" if one.host in ("localhost", "::1", "0.0.0.0") else one.host.rstrip(".")


def _whole(text: str) -> str:
    """OLLAMA_HOST may leave out scheme, host and port."""
    if "://" in text:
        return text
    whole = f"http://{text if not text.startswith(':') else '127.0.0.1' + text}"
    try:
        return whole if urlsplit(whole).port else f"{whole.rstrip('/')}:11434"
    except ValueError:
        return whole


def _intercepting(dry_run: bool) -> dict[str, str]:
    from ephemeral_certs.interception import Interception
    from ephemeral_cli.certs import making

    opened = Interception.open(making.directory())
    found = variables.intercepting(opened)
    if not dry_run:
        _check_interception(_health(), opened.hosts)
    return found


def _check_providers(health: Mapping[str, Any]) -> None:
    """Raises CommandError where the proxy that runs was given other providers than the settings here name."""
    theirs, ours = health["providers"], providers.configured()
    for name in READ:
        if theirs.get(name) != ours[name].url:
            variable = "EPHEMERAL_UPSTREAM" if name == providers.OPENAI else "EPHEMERAL_UPSTREAMS"
            raise CommandError(
                f"the proxy that runs forwards {name} to {theirs.get(name, 'nowhere')}, and by the settings here it is {ours[name].url}",
                f"give `ephemeral up` and this command the same {variable}", 2,
            )  # fmt: skip


def _check_interception(health: Mapping[str, Any], hosts: frozenset[str]) -> None:
    """Raises CommandError where the proxy that runs does not intercept, or by another authority than the one that programs would be told of."""
    again = "start `ephemeral up` again: it opens the authority when it begins"
    served, port = health["intercepts"], settings.get("intercept_port")
    if not served:
        raise CommandError("the proxy runs, but does not intercept", again)
    if set(served) != hosts:
        raise CommandError("the proxy still uses the authority before, which vouches for other hosts", again)
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS).close()
    except OSError:
        raise CommandError(f"the proxy intercepts, but not on port {port}", "give `ephemeral up` and this command the same EPHEMERAL_INTERCEPT_PORT") from None


def _health() -> dict[str, Any]:
    """What the proxy says of itself. Raises CommandError where it does not answer."""
    port = settings.get("proxy_port")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        health = json.loads(answer.read(1 << 16))
        if answer.status == 200 and isinstance(health["providers"], dict) and isinstance(health["intercepts"], list):
            return dict(health)
    except ConnectionRefusedError:
        raise CommandError(f"the proxy does not run: nothing answers on port {port}", "ephemeral up") from None
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError):
        pass
    finally:
        connection.close()
    raise CommandError(f"what answers on port {port} is not the proxy, or it is not well", "ephemeral up, with another EPHEMERAL_PROXY_PORT where that one is taken")
