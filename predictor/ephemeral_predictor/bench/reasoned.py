"""K2 asked about the bench's conversations, by the agent that asks it for the live predictor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ephemeral.tasks import Tasks
from ephemeral_predictor.bench.conversation import Conversation
from ephemeral_predictor.reasoned.agent import Agent
from ephemeral_predictor.reasoned.service import K2
from ephemeral_predictor.sandboxd import Sandboxd
from ephemeral_predictor.state import Decision

AT_ONCE = 8


class Reasoner:
    """A context manager. ``counts`` says what became of the questions."""

    def __init__(self, k2: K2) -> None:
        self.counts: dict[str, int] = {}
        self._k2 = k2
        self._runner = asyncio.Runner()
        self._tasks = Tasks()
        self._asked: dict[str, Conversation] = {}
        self._agent: Agent | None = None

    def __enter__(self) -> Self:
        self._runner.run(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self._runner.run(self._close())
        self._runner.close()

    def decide(self, conversations: Sequence[Conversation]) -> None:
        """Ask about all of ``conversations`` (at most ``AT_ONCE``) and take over what was decided before the deadline."""
        self._runner.run(self._ask(conversations))

    async def _open(self) -> None:
        # A client that was never opened: nothing is known of a host, and nothing is sent to one.
        self._agent = Agent(self._k2, Sandboxd("unix:/nowhere"), self._tasks, lambda session: 0, self._decided)
        await self._agent.open()

    async def _ask(self, conversations: Sequence[Conversation]) -> None:
        assert self._agent
        self._asked = {f"bench-{number}": conversation for number, conversation in enumerate(conversations)}
        for session, conversation in self._asked.items():
            conversation.belief.session = session
            self._agent.consider(conversation.belief, conversation.plan)
        await self._tasks.settle()
        self.counts = dict(self._agent.counts)

    def _decided(self, session: str, decision: Decision, turn: int) -> None:
        self._asked[session].decide(decision)

    async def _close(self) -> None:
        await self._tasks.cancel()
        if self._agent:
            await self._agent.close()
