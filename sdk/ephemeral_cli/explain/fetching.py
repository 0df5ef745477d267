"""Which session is meant, and all that is told of it: the ledger by sandboxd, what is believed now by the predictor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from ephemeral import Client, errors, wire
from ephemeral_cli.errors import CommandError

PREDICTOR_SECONDS = 5.0
PAGE = 100
MOST_SESSIONS = 5_000  # that are looked through for the beginning of an id
MOST_EXECUTIONS = 1_000
CHOICES = 5

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,199}")


@dataclass(frozen=True)
class Material:
    """All that is known of one session. ``plans``, ``moments`` and ``executions`` are oldest first.

    ``belief`` is the predictor's own answer, None when it has none; ``belief_missing`` then says why.
    """

    session: wire.Session
    plans: list[wire.PlanRecord]
    moments: list[wire.Moment]
    executions: list[wire.Execution]
    belief: dict[str, Any] | None
    belief_missing: str = ""


def fetch(client: Client, wanted: str | None, predictor: Path) -> Material:
    """The session whose id is, or begins with, ``wanted`` (None: the latest). ``predictor`` is its Unix socket.

    Raises CommandError when no session, or more than one, is meant, and the errors of ephemeral.errors.
    """
    session = find(client, wanted) if wanted is not None else _latest(client)
    belief, missing = _belief(predictor, session.id)
    return Material(
        session=session,
        plans=sorted(client.plans(session.id).items, key=lambda record: record.id),
        moments=client.moments(session.id).items,
        executions=sorted(_executions(client, session.id), key=lambda execution: execution.created_at),
        belief=belief,
        belief_missing=missing,
    )


def find(client: Client, wanted: str) -> wire.Session:
    """The session of this id, else the only one whose id begins so. Raises CommandError."""
    if not _ID.fullmatch(wanted):
        raise CommandError(f"{wanted[:60]!r} is no session id", _choices(client), 2)
    try:
        return client.session(wanted)
    except errors.NotFound:
        pass
    found = [session for session in _sessions(client) if session.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(session.id for session in found[:CHOICES])
        more = f" and {len(found) - CHOICES} more" if len(found) > CHOICES else ""
        raise CommandError(f"{len(found)} sessions begin with {wanted}: {some}{more}", "ephemeral explain with a longer beginning", 2)
    raise CommandError(f"no session is called {wanted}, and none begins so", _choices(client))


def _latest(client: Client) -> wire.Session:
    page = client.sessions(limit=1)
    if not page.items:
        raise CommandError("there is no session yet", "talk to a model through the proxy: ephemeral run -- python app.py")
    return page.items[0]


def _choices(client: Client) -> str:
    latest = client.sessions(limit=CHOICES).items
    if not latest:
        return "there is no session yet: talk to a model through the proxy"
    return "ephemeral explain with one of the latest: " + ", ".join(session.id for session in latest)


def _sessions(client: Client) -> Iterator[wire.Session]:
    before: str | None = None
    for _ in range(MOST_SESSIONS // PAGE):
        page = client.sessions(PAGE, before)
        yield from page.items
        before = page.next
        if before is None:
            return


def _executions(client: Client, session: str) -> Iterator[wire.Execution]:
    before: str | None = None
    for _ in range(MOST_EXECUTIONS // PAGE):
        page = client.executions(session, PAGE, before)
        yield from page.items
        before = page.next
        if before is None:
            return


def _belief(predictor: Path, session: str) -> tuple[dict[str, Any] | None, str]:
    """What the predictor holds of ``session``, and where it holds nothing, why."""
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(predictor)), base_url="http://predictor", timeout=PREDICTOR_SECONDS) as http:
            answer = http.get(f"/v1/sessions/{quote(session)}")
        if answer.status_code == 404:
            return None, "the predictor has forgotten this session (it was idle, or the predictor started later): what follows is what the ledger has kept"
        belief = answer.json() if answer.status_code == 200 else None
        if isinstance(belief, dict) and isinstance(belief.get("evidence"), list):
            return belief, ""
    except httpx.ConnectError:
        return None, "no predictor runs here: what follows is what the ledger has kept"
    except (httpx.HTTPError, ValueError):
        pass
    return None, "the predictor gave no answer that can be read: what follows is what the ledger has kept"
