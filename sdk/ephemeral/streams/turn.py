"""What a request to a model says, whatever protocol it came in.

Each protocol's module makes a ``Turn`` of a request's body; whose conversation it is (``ephemeral.identity``) and what of it
was not said before (``Reported``) are then found the same way for all.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ephemeral.streams.json_string import Surrogates

Event = dict[str, Any]

_MESSAGES_PER_SESSION = 4096


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a history. ``call`` is the id of the call that a ``tool`` message answers. ``marks`` tell an
    ``assistant`` message apart: the ids of its calls, and ``mark_of`` its text (see ``AnswerReader.marks``)."""

    role: Literal["user", "system", "assistant", "tool"]
    text: str = ""
    call: str = ""
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One request. ``previous`` is the id of the answer that it continues, where the provider keeps the history."""

    model: str = ""
    tools: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    previous: str = ""


class Reported:
    """Remembers, for the last ``sessions`` sessions, which messages and tools were reported, by hash only."""

    def __init__(self, sessions: int = 1024) -> None:
        self._limit = sessions
        self._sessions: OrderedDict[str, Counter[int]] = OrderedDict()

    def events(self, session: str, turn: Turn) -> list[Event]:
        """``turn_started``, then the tools and the user's, system's and tools' messages that are new in ``session``.

        A message that says the same as an earlier one is new again when the history holds it more often than before, or
        when it follows another answer (``turn.previous``: the provider keeps the history, and only what is new is sent).
        """
        events: list[Event] = [{"kind": "turn_started", "model": turn.model}]
        reported = self._sessions.pop(session, Counter())
        here: Counter[int] = Counter()
        for event in _events(turn):
            after = "" if event["kind"] == "tool_declared" or event.get("role") == "system" else turn.previous
            mark = hash(
                (event["kind"], event.get("role"), event.get("name"), event.get("call"), event.get("text"), after)
            )
            here[mark] += 1
            if here[mark] > reported[mark]:
                events.append(event)
        merged = here | reported
        self._sessions[session] = merged if len(merged) <= _MESSAGES_PER_SESSION else here
        while len(self._sessions) > self._limit:
            self._sessions.popitem(last=False)
        return events


def _events(turn: Turn) -> Iterator[Event]:
    for name in turn.tools:
        yield {"kind": "tool_declared", "name": name}
    for message in turn.messages:
        if message.role in ("user", "system"):
            if message.text:
                yield {"kind": "user_turn", "role": message.role, "text": message.text}
        elif message.role == "tool":
            yield {"kind": "tool_result", "call": message.call, "text": message.text}


# ------------------------------------------------------------------------- for the protocols: reading a stranger's JSON


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of a list; nothing for what is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def string(value: object) -> str:
    """A string that can be encoded as UTF-8; empty for what is no string."""
    return encodable(value) if isinstance(value, str) else ""


def encodable(text: str) -> str:
    halves = Surrogates()
    return halves.feed(text) + halves.close()


def joined(pieces: Iterable[str]) -> str:
    """The texts of a message's parts as one, for reading."""
    return encodable("\n".join(piece for piece in pieces if piece))


def mark_of(text: str) -> str:
    """What an answer's text is recognised by in later requests: its sha256, whitespace around it left out (apps strip it)."""
    return hashlib.sha256(text.strip().encode("utf-8", "replace")).hexdigest()


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() else value


def mark_of_call(name: object, arguments: object) -> str:
    """What a call without an id is recognised by: its name and arguments, in whatever order their keys come, and whether
    they say 1 or 1.0 (which JavaScript does not tell apart)."""
    plain = json.loads(json.dumps([name, arguments], default=str), parse_float=_number)
    said = json.dumps(plain, sort_keys=True)
    return "call-" + hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:32]
