"""What a program that knows no base URL has to be told by its environment: the way over the proxy, and whom to trust."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ephemeral import settings
from ephemeral_cli.errors import CommandError

if TYPE_CHECKING:  # cryptography comes with it, which `ephemeral run` needs for interception alone
    from ephemeral_certs.interception import Interception

LOOPBACK = ("localhost", "127.0.0.1", "::1")

PROXY = ("HTTPS_PROXY", "https_proxy")
"""Some read only the one, some only the other (gRPC and curl's relatives); where both are read, which one wins differs."""
REPLACING = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
"""Name all the roots that there are."""
REPLACING_WHERE_SET = ("NIX_SSL_CERT_FILE", "HTTPLIB2_CA_CERTS")
"""The same, but who does not set them already has nothing that reads them."""
ADDING = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""Name roots beside those that a program brings along."""


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY with loopback in it, and all that the user has there."""
    theirs = [part.strip() for name in ("NO_PROXY", "no_proxy") for part in environment.get(name, "").split(",")]
    value = ",".join(dict.fromkeys([*filter(None, theirs), *LOOPBACK]))
    return {"NO_PROXY": value, "no_proxy": value}


def intercepting(opened: Interception, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables by which programs go over the proxy and trust ``opened``. Raises CommandError where the user's own stand against it."""
    from ephemeral_certs.interception import USER

    port = settings.get("intercept_port")
    _refuse_another_proxy(environment, port)
    _refuse_unknown_roots(environment, opened)
    found = dict.fromkeys(PROXY, f"http://{USER}:{opened.credential}@127.0.0.1:{port}")
    found |= without_proxy(environment)
    found |= dict.fromkeys(REPLACING, str(opened.bundle))
    found |= {name: str(opened.bundle) for name in REPLACING_WHERE_SET if environment.get(name)}
    for name in ADDING:
        theirs = environment.get(name)
        found[name] = str(opened.ca if not theirs or Path(theirs) == opened.ca else opened.bundle)
    found["NODE_USE_ENV_PROXY"] = "1"  # Node's fetch and https read HTTPS_PROXY only when told to, from 22.21 and 24 on
    return found


def shown(found: Mapping[str, str], *, as_json: bool = False) -> str:
    """As lines for a shell, or as JSON."""
    if as_json:
        return json.dumps(found, indent=1)
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items())


def _refuse_another_proxy(environment: Mapping[str, str], port: int) -> None:
    for name in PROXY:
        text = environment.get(name, "")
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            ours = not text or (parts.hostname in LOOPBACK and parts.port == port)
            where = f"{parts.hostname}:{parts.port}"
        except ValueError:
            ours, where = False, "something that is no address"
        if not ours:
            raise CommandError(
                f"{name} names another proxy ({where}), and ours reaches the world without one",
                f"unset {name}, where the world can be reached directly; else use base URLs: ephemeral run -- COMMAND", 2,
            )  # fmt: skip


def _refuse_unknown_roots(environment: Mapping[str, str], opened: Interception) -> None:
    """What a variable of the user's names must be in the bundle that takes its place."""
    from ephemeral_certs import roots
    from ephemeral_certs.interception import NAME

    bundle: set[bytes] | None = None
    for name in roots.NAMED_BY:
        path = Path(environment.get(name) or opened.bundle)
        if path in (opened.bundle, opened.ca):
            continue
        if bundle is None:
            bundle = set(roots.certificates(opened.bundle))
        if any(one not in bundle and NAME.encode() not in one for one in roots.certificates(path)):  # earlier ones of ours are not missed
            raise CommandError(f"{name} names roots that {opened.bundle} does not hold ({path})", "ephemeral certs init")
