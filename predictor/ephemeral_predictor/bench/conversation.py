"""One record through the real path: its messages as a request and its code as a streamed answer, read by the readers that the proxy uses, into
belief and plan by the code that the live predictor runs.

No tool is ever declared, so that the figures hold for apps that only chat. The code comes as the arguments of a call of ``execute_code`` in
pieces of about four tokens.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ephemeral.streams import chat_completions
from ephemeral.streams.turn import Reported
from ephemeral.wire import Event, Plan, Want
from ephemeral_predictor import planner
from ephemeral_predictor.evidence import Evidence
from ephemeral_predictor.listener import Listener
from ephemeral_predictor.state import Belief, Decision

FRACTIONS = (0.25, 0.5, 1.0)
_PIECE = 16  # characters of code in one delta
_PIECES = 2000  # of one record; longer code comes in larger ones
_TOOL = "execute_code"

Step = Literal["seen", "learned", "reasoned"]
_PROPOSER = {"seen": "seen", "learned": "learned", "reasoned": "k2"}


@dataclass(frozen=True)
class Prediction:
    """What is planned at one moment. ``candidates``: every package that was weighed -> its probability."""

    packages: frozenset[str]
    candidates: dict[str, float]


class _Recording(Belief):
    """A belief that also remembers each step's own evidence: beside a surer step's, it would be lost."""

    def __init__(self, session: str) -> None:
        super().__init__(session)
        self.by_step: dict[str, dict[str, Evidence]] = {}

    def add(self, evidence: Evidence) -> None:
        own = self.by_step.setdefault(evidence.proposer, {})
        if evidence.package not in own or own[evidence.package].probability < evidence.probability:
            own[evidence.package] = evidence
        super().add(evidence)


class Conversation:
    """The record's conversation; ``messages`` are those of a Chat Completions request. ``prompt`` comes first, then perhaps ``decide``, then ``code``."""

    def __init__(self, messages: Sequence[dict[str, Any]]) -> None:
        self.belief = _Recording("bench")
        self.plan: Plan | None = None
        self._messages = list(messages)
        self._reported = Reported(1)

    def prompt(self) -> float:
        """All that is said before code is written: the milliseconds from the last request's events to the plan."""
        spent = 0.0
        for number, message in enumerate(self._messages):
            if message["role"] == "assistant":
                spent = self._request(number)
                self._answer(message)
        return spent if self._messages[-1]["role"] == "assistant" else self._request(len(self._messages))

    def decide(self, decision: Decision) -> None:
        """K2's answer to the prompt."""
        self.belief.decide(decision)
        self.plan = None if decision.action in ("release", "nothing") else planner.plan_for(self.belief, 0.0, self.plan)

    def code(self, code: str) -> Iterator[tuple[float, list[float]]]:
        """The answer's code streams by. At each of ``FRACTIONS``: the fraction, and the milliseconds that each piece since the one before took."""
        answer = chat_completions.Answer(streamed=True)
        spent: list[float] = []
        self._take(answer.feed(_delta({"index": 0, "id": "call", "type": "function", "function": {"name": _TOOL, "arguments": '{"code": "'}})))
        place, length = 0, max(_PIECE, len(code) // _PIECES)
        for fraction in FRACTIONS:
            end = round(len(code) * fraction)
            while place < end:
                piece = code[place : min(place + length, end)]
                place += len(piece)
                spent.append(self._take(answer.feed(_delta({"index": 0, "function": {"arguments": json.dumps(piece)[1:-1]}}))))
            if fraction == 1.0:
                self._take(answer.feed(_delta({"index": 0, "function": {"arguments": '"}'}})) + answer.feed(_delta(None, "tool_calls")) + answer.close())
            yield fraction, spent
            spent = []

    def prediction(self, step: Step | None = None) -> Prediction:
        """What is planned now; with ``step``, what would be if only its evidence counted. Whether code is expected is decided by all."""
        belief: Belief = self.belief
        plan = self.plan
        if step:
            belief = copy.copy(belief)
            belief.evidence = self.belief.by_step.get(_PROPOSER[step], {})
            plan = planner.plan_for(belief, 0.0)
        candidates = {e.package: e.probability for e in belief.evidence.values() if e.package not in belief.rejected}
        return Prediction(frozenset(want.package for want in plan.wants) if plan else frozenset(), candidates)

    def _request(self, length: int) -> float:
        """A request with the first ``length`` messages: milliseconds to the plan."""
        turn = chat_completions.turn({"messages": self._messages[:length]})
        return self._take(self._reported.events("bench", turn))

    def _answer(self, message: dict[str, Any]) -> None:
        """An answer of the model's that the history holds: it streamed by before."""
        answer = chat_completions.Answer(streamed=False)
        body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}, default=str).encode()
        self._take(answer.feed(body) + answer.close())

    def _take(self, events: Sequence[dict[str, Any]]) -> float:
        """What the listener does with ``events`` of one batch: milliseconds."""
        batch = [Event.model_validate({"session": "bench", "at": 0.0, **event}) for event in events]
        started = time.perf_counter()
        changed = False
        for event in batch:
            changed |= Listener._learn(self.belief, event)
        if changed:
            plan = planner.plan_for(self.belief, 0.0, self.plan)
            if plan and planner.is_material(plan, self.plan):
                self.plan = plan
        return (time.perf_counter() - started) * 1000


def predict(messages: Sequence[dict[str, Any]]) -> list[Want]:
    """What would be planned once ``messages`` (``role``, ``content``) were said, before any code exists."""
    conversation = Conversation(messages)
    conversation.prompt()
    return conversation.plan.wants if conversation.plan else []


def _delta(call: dict[str, Any] | None, finish: str | None = None) -> bytes:
    """One event of the stream."""
    delta = {"tool_calls": [call]} if call else {}
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"
