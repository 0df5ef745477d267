"""What each event sets off. Takes events as they come and never waits: everything that does runs behind."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Protocol

from ephemeral.tasks import Tasks
from ephemeral.wire import Event, Plan
from ephemeral_predictor import planner
from ephemeral_predictor.evidence import Evidence
from ephemeral_predictor.following import Follower
from ephemeral_predictor.history import History
from ephemeral_predictor.moments import Moments
from ephemeral_predictor.sandboxd import Plans, Sandboxd
from ephemeral_predictor.state import Belief, Decision

_SESSIONS = 2000


class Reasoner(Protocol):
    """K2, or a stand-in for it: asked at each user turn, answers whenever it likes with ``Listener.decided``."""

    def consider(self, belief: Belief, plan: Plan | None) -> None: ...

    def forget(self, session: str) -> None: ...


class Listener:
    """All conversations. ``planning`` false: digests are claimed and moments forwarded, but nothing is planned.

    Conversations that said nothing for ``idle_seconds`` are forgotten; so is the one silent longest when there are too many.
    """

    def __init__(self, client: Sandboxd, tasks: Tasks, moments: Moments, planning: bool, idle_seconds: float) -> None:
        self.reasoner: Reasoner | None = None
        self.history: History | None = None
        self.follower: Follower | None = None
        self._client = client
        self._tasks = tasks
        self._moments = moments
        self._planning = planning
        self._idle_seconds = idle_seconds
        self._plans = Plans(client, tasks, self._lost)
        self._beliefs: OrderedDict[str, Belief] = OrderedDict()  # silent longest first
        self._last: dict[str, float] = {}  # session -> when it last said something, monotonic
        self._planned: dict[str, Plan] = {}
        self._turns: dict[str, int] = {}

    # ---------------------------------------------------------------------------------------------- events

    def claim(self, events: Iterable[Event]) -> None:
        """The one thing that is urgent: whose code it is that comes next. Call it before ``take``."""
        for event in events:
            if event.kind == "code_done" and len(event.digest) == 64:
                self._tasks.start(self._client.claim(event.digest, event.session), "claim")

    def take(self, events: Iterable[Event]) -> None:
        """Learn from ``events``; plan once for each session they changed."""
        changed: dict[str, bool] = {}  # session -> a user spoke
        for event in events:
            self._moments.note(event)
            if self.follower:
                self.follower.met(event.session, event.app)
            if self._planning:
                belief = self._belief(event)
                if self._learn(belief, event):
                    changed[event.session] = changed.get(event.session, False) or event.kind == "user_turn"
                elif event.session in self._beliefs and event.session not in self._planned:
                    changed.setdefault(event.session, False)  # also when an earlier plan was lost on the way
        for session, spoke in changed.items():
            self._plan(session)
            if spoke:
                self._turns[session] = self._turns.get(session, 0) + 1
                if self.reasoner:
                    self.reasoner.consider(self._beliefs[session], self._planned.get(session))

    def decided(self, session: str, decision: Decision, turn: int) -> None:
        """K2's answer to the question of ``turn``. One that comes too late counts for nothing."""
        belief = self._beliefs.get(session)
        if belief is None or self._turns.get(session) != turn:
            return
        gives_back = decision.action in ("release", "nothing")
        if gives_back and belief.code_in_turn:
            return  # meanwhile the model writes code
        belief.decide(decision)
        at = time.time()
        if gives_back:
            stands = session in self._planned
            plan: Plan | None = Plan(
                session=session,
                proposer="k2",
                action="release" if stands else "nothing",
                needs_code=0.0,
                app=belief.app,
                at=at,
            )
        else:
            plan = planner.plan_for(belief, at, self._planned.get(session))
        if plan is None:
            return
        if decision.action == "resize":
            plan = plan.model_copy(update={"action": "resize"})
        self._submit(plan.model_copy(update={"proposer": "k2"}))

    def turn_of(self, session: str) -> int:
        """The number of the session's current user turn."""
        return self._turns.get(session, 0)

    # ---------------------------------------------------------------------------------------------- beliefs

    def belief(self, session: str) -> Belief | None:
        return self._beliefs.get(session)

    def plan_of(self, session: str) -> Plan | None:
        """The session's latest plan."""
        return self._planned.get(session)

    def __len__(self) -> int:
        return len(self._beliefs)

    def _belief(self, event: Event) -> Belief:
        now = time.monotonic()
        belief = self._beliefs.get(event.session)
        if belief is None:
            belief = self._beliefs[event.session] = Belief(event.session)
        self._beliefs.move_to_end(event.session)
        self._last[event.session] = now
        belief.app = event.app[:100] or belief.app
        while len(self._beliefs) > _SESSIONS or self._last[next(iter(self._beliefs))] < now - self._idle_seconds:
            self._forget(next(iter(self._beliefs)))
        return belief

    def _forget(self, session: str) -> None:
        del self._beliefs[session]
        del self._last[session]
        self._planned.pop(session, None)
        self._turns.pop(session, None)
        if self.reasoner:
            self.reasoner.forget(session)

    @staticmethod
    def _learn(belief: Belief, event: Event) -> bool:
        """Hand ``event`` to the belief; whether a plan may have changed."""
        match event.kind:
            case "user_turn":
                return belief.user_turn(event.text)
            case "tool_result":
                return belief.tool_result(event.text)
            case "tool_declared":
                return belief.tool_declared(event.name)
            case "turn_started":
                return belief.turn_started()
            case "assistant_text":
                return belief.assistant_text(event.text)
            case "tool_call_started":
                return belief.call_started(event.name)
            case "code":
                return belief.code(event.call, event.text)
            case "code_done":
                return belief.code_done(event.call)
            case "turn_ended":
                return belief.turn_ended()
            case "reasoning_text":
                return False

    # ------------------------------------------------------------------------------------------------ plans

    def _plan(self, session: str) -> None:
        before = self._planned.get(session)
        belief = self._beliefs[session]
        if self.history and belief.may_need_packages:
            for package, probability in self.history.prior(belief.app).items():
                if package not in belief.rejected:
                    belief.add(Evidence(package, probability, "learned", "history"))
        plan = planner.plan_for(belief, time.time(), before)
        if plan and planner.is_material(plan, before):
            self._submit(plan)

    def _submit(self, plan: Plan) -> None:
        self._planned[plan.session] = plan
        self._plans.submit(plan)

    def _lost(self, plan: Plan) -> None:
        """sandboxd did not take ``plan``: the next event of the session plans again."""
        if self._planned.get(plan.session) is plan:
            del self._planned[plan.session]
