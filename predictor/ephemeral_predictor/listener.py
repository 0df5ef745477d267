"""What each event sets off. Takes events as they come and never waits: everything that does runs behind."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol

from ephemeral.costs import PRIORS, Prices
from ephemeral.tasks import Tasks
from ephemeral.wire import Event, Plan
from ephemeral_predictor import planner, sizes
from ephemeral_predictor.costs import CostSource
from ephemeral_predictor.evidence import Evidence
from ephemeral_predictor.following import Follower
from ephemeral_predictor.history import History
from ephemeral_predictor.moments import Moments
from ephemeral_predictor.sandboxd import Plans, Sandboxd
from ephemeral_predictor.state import Belief, Decision
from ephemeral_predictor.turns import Turns

_SESSIONS = 2000
_FIRST, _LATEST = 2, 10  # of the texts of one session that come at once


class Reasoner(Protocol):
    """K2, or a stand-in for it: asked at each user turn, answers whenever it likes with ``Listener.decided``."""

    def consider(self, belief: Belief, plan: Plan | None) -> None: ...

    def forget(self, session: str) -> None: ...


class Listener:
    """All conversations. ``planning`` false: digests are claimed and moments forwarded, but nothing is planned.

    Conversations that said nothing for ``idle_seconds`` are forgotten; so is the one silent longest when there are too many.
    """

    def __init__(
        self, client: Sandboxd, tasks: Tasks, moments: Moments, planning: bool, idle_seconds: float,
        prices: Prices | None = None, bounds: sizes.Bounds | None = None,
    ) -> None:  # fmt: skip
        self.reasoner: Reasoner | None = None
        self.history: History | None = None
        self.follower: Follower | None = None
        self.costs: CostSource | None = None
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
        self._said: dict[str, Turns] = {}
        self._prices = prices or Prices()
        self._bounds = bounds or sizes.Bounds()

    # ---------------------------------------------------------------------------------------------- events

    def claim(self, events: Iterable[Event]) -> None:
        """The one thing that is urgent: whose code it is that comes next. Call it before ``take``."""
        for event in events:
            if event.kind == "code_done" and len(event.digest) == 64:
                self._tasks.start(self._client.claim(event.digest, event.session), "claim")

    def take(self, events: Iterable[Event]) -> None:
        """Learn from ``events``; plan once for each session they changed."""
        changed: dict[str, bool] = {}  # session -> a user spoke
        latest: dict[str, str] = {}  # session -> what its user said last; an app's first request brings all that was said before
        answered: set[str] = set()  # sessions in which code came since then, also such as stands in the answer itself
        events = list(events)
        unread = _middle(events)
        for place, event in enumerate(events):
            self._moments.note(event)
            if self.follower:
                self.follower.met(event.session, event.app)
            if self._planning and place not in unread:
                belief = self._belief(event)
                if event.kind == "user_turn" and event.role != "system":
                    latest[event.session] = event.text
                    answered.discard(event.session)
                if event.kind in ("user_turn", "tool_result"):
                    self._said[event.session].hear(event.text)
                if self._learn(belief, event):
                    changed[event.session] = changed.get(event.session, False) or event.kind == "user_turn"
                    if event.kind not in ("user_turn", "tool_result"):
                        answered.add(event.session)
                elif event.session in self._beliefs and event.session not in self._planned:
                    changed.setdefault(event.session, False)  # also when an earlier plan was lost on the way
        for session, spoke in changed.items():
            if session not in self._beliefs:
                continue  # there were too many
            if session in latest:
                self._said[session].spoke(latest[session], self._beliefs[session].asks)
            if session in answered:
                self._said[session].code_came()
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
            plan = self._sized(planner.plan_for(belief, at, self._planned.get(session), self._terms(belief)))
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
            self._said[event.session] = Turns()
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
        del self._said[session]
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
        said = self._said[session]
        if belief.code_in_turn:
            said.code_came()
        if said.over and not belief.code_begun and planner.stands_for(before):
            self._give_back(belief)
            return
        if self.history and belief.may_need_packages:
            for package, probability in self.history.prior(belief.app).items():
                if package not in belief.rejected:
                    belief.add(Evidence(package, probability, "learned", "history"))
        plan = self._sized(planner.plan_for(belief, time.time(), before, self._terms(belief)))
        if plan and planner.is_material(plan, before):
            self._submit(plan)

    def _give_back(self, belief: Belief) -> None:
        """The conversation has moved on, and nothing ran: what was built on guesses goes, and so do the guesses."""
        belief.decide(Decision("release"))
        self._submit(Plan(session=belief.session, proposer="seen", action="release", needs_code=0.0, app=belief.app, at=time.time()))

    def _terms(self, belief: Belief) -> planner.Terms:
        said = self._said[belief.session]
        return planner.Terms(
            costs=self.costs.costs if self.costs else PRIORS,
            prices=self._prices,
            rate=self.history.needs_code(belief.app) if self.history and belief.app else None,
            asks=said.asks if said.over else 1.0,
        )

    def _sized(self, plan: Plan | None) -> Plan | None:
        """``plan`` with the memory that the packages took before which it imports, and that the data takes which the conversation speaks of."""
        if plan is None:
            return None
        before = self._planned.get(plan.session)
        limit = sizes.memory_bytes(
            asked=plan.memory_bytes,
            known=self.history.memory_bytes(want.package for want in plan.wants if want.decision != "available") if self.history else None,
            data=self._said[plan.session].data_bytes,
            before=before.memory_bytes if before else None,
            stands=planner.stands_for(before),
            default=self._bounds.default,
            most=self._bounds.most or (self.costs.memory_budget_bytes // 2 if self.costs and self.costs.memory_budget_bytes else None),
        )
        return plan if limit == plan.memory_bytes else plan.model_copy(update={"memory_bytes": limit})

    def _submit(self, plan: Plan) -> None:
        self._planned[plan.session] = plan
        self._plans.submit(plan)

    def _lost(self, plan: Plan) -> None:
        """sandboxd did not take ``plan``: the next event of the session plans again."""
        if self._planned.get(plan.session) is plan:
            del self._planned[plan.session]


def _middle(events: Sequence[Event]) -> set[int]:
    """The places of what is not read of a long conversation that comes at once, as when its app was at work before us: all but the first texts and the
    latest. To read one takes up to some twenty milliseconds, for which everybody's code would wait."""
    texts: dict[str, list[int]] = {}
    for place, event in enumerate(events):
        if event.kind in ("user_turn", "tool_result"):
            texts.setdefault(event.session, []).append(place)
    return {place for places in texts.values() for place in places[_FIRST:-_LATEST]}
