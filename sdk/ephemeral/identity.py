"""Whose conversation is it? What the app says, in headers or body, comes first; failing that, the conversation's first turn.

``Identity`` answers for a Chat Completions request; it keeps a bounded memory of hashes, never of text.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

_VALID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,199}")

SESSION_HEADER = "x-ephemeral-session-id"
APP_HEADER = "x-ephemeral-app"

_BEFORE_ANY = (
    SESSION_HEADER, "x-litellm-trace-id", "x-litellm-session-id", "helicone-session-id", "x-portkey-trace-id",
)  # fmt: skip
_ANY_SESSION_ID = re.compile(r"x-.+-session-id")
_AFTER_ANY = ("session-id", "thread-id", "x-session-id")
_BAGGAGE = re.compile(r"(?:^|,)\s*session\.id\s*=\s*([^,;\s]+)")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_USER_ID_WITH_SESSION = re.compile(r"session_([0-9A-Za-z-]{8,64})")  # Claude Code: user_…_account_…_session_UUID


def session_id(text: str) -> str:
    """``text`` as a session id: itself where it is a valid one (wire.SessionId), else a hash of it."""
    return text if _VALID.fullmatch(text) else "h-" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def app_of(headers: Mapping[str, str]) -> str:
    """A short name of the program that talks: ``X-Ephemeral-App``, else the User-Agent's first product without its
    version. Never a credential, at most 60 characters, empty when nothing is said."""
    named = {name.lower(): value for name, value in headers.items() if name.lower() in (APP_HEADER, "user-agent")}
    said = named.get(APP_HEADER) or re.sub(r"/v?\d\S*$", "", (named.get("user-agent", "").split() or [""])[0])
    return re.sub(r"[^A-Za-z0-9._/ -]", "", said).strip()[:60]


class Identity:
    """Finds the session of each request. One instance sees all the requests of its process, in order.

    Without a word from the app, a request that holds no answer yet begins a conversation, even when another began with
    the same words. A request with answers in its history continues the conversation those answers were given in
    (``answered``), else the latest that began with the same turn.
    """

    def __init__(self, conversations: int = 4096) -> None:
        self._limit = conversations
        self._latest: OrderedDict[str, str] = OrderedDict()  # hash of the first turn -> session
        self._answers: OrderedDict[tuple[str, str], str] = OrderedDict()  # (first turn, an answer's mark) -> session
        self._first_turns: OrderedDict[str, str] = OrderedDict()  # session -> hash of its first turn

    def session_of(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[str, str]:
        """The session's id, and what told it: the name of a header, ``body: FIELD`` or ``first turn``."""
        for how, text in (*_from_headers(headers), *_from_body(body)):
            if text:
                return session_id(text), how
        return self._from_first_turn(body.get("messages")), "first turn"

    def answered(self, session: str, calls: list[str], text: str) -> None:
        """Remember what the provider answered in ``session``: its tool calls' ids, and the sha256 (hex) of its text."""
        first = self._first_turns.get(session)
        if first is None:
            return  # the app names its sessions itself
        for mark in (*calls, text):
            _remember(self._answers, (first, mark), session, 8 * self._limit)

    def _from_first_turn(self, messages: object) -> str:
        messages = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
        begun = next((at for at, message in enumerate(messages) if message.get("role") == "assistant"), len(messages))
        first = hashlib.sha256(json.dumps(messages[:begun], sort_keys=True, default=str).encode()).hexdigest()[:12]
        session = None
        if begun < len(messages):
            for mark in _marks(messages[begun:]):
                session = self._answers.get((first, mark))
                if session:
                    break
            else:
                session = self._latest.get(first)
        if session is None:
            session = f"c-{first}-{secrets.token_hex(3)}"
        _remember(self._latest, first, session, self._limit)
        _remember(self._first_turns, session, first, self._limit)
        return session


def _remember(memory: OrderedDict[Any, str], key: object, value: str, limit: int) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > limit:
        memory.popitem(last=False)


def _marks(messages: list[dict[str, Any]]) -> Iterator[str]:
    """What the answers in a history can be recognised by, the latest first."""
    for message in reversed(messages):
        if message.get("role") != "assistant":
            continue
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict) and isinstance(call.get("id"), str):
                yield call["id"]
        content = message.get("content")
        if isinstance(content, str) and content:
            yield hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()


def _from_headers(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    said = {name.lower(): value.strip() for name, value in headers.items()}
    others = sorted(name for name in said if _ANY_SESSION_ID.fullmatch(name))
    for name in (*_BEFORE_ANY, *others, *_AFTER_ANY):
        if name in said:
            yield name, said[name]
    if baggage := _BAGGAGE.search(said.get("baggage", "")):
        yield "baggage", baggage[1]
    if trace := _TRACEPARENT.fullmatch(said.get("traceparent", "")):
        yield "traceparent", trace[1]


def _from_body(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        if isinstance(metadata.get("session_id"), str):
            yield "body: metadata.session_id", metadata["session_id"]
        user = metadata.get("user_id")
        if isinstance(user, str) and (session := _USER_ID_WITH_SESSION.search(user)):
            yield "body: metadata.user_id", session[1]
    conversation = body.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    if isinstance(conversation, str):
        yield "body: conversation", conversation
    if isinstance(body.get("prompt_cache_key"), str):
        yield "body: prompt_cache_key", body["prompt_cache_key"]
