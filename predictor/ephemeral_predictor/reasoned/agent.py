"""When K2 is asked, how long its answer is waited for, and what may come of it. Nothing here can hold up anything else."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ephemeral import names, settings
from ephemeral.tasks import Tasks
from ephemeral.wire import Moment, Plan, Want
from ephemeral_predictor.evidence import Evidence
from ephemeral_predictor.reasoned import inventory, prompt
from ephemeral_predictor.reasoned.answer import Answer, Found
from ephemeral_predictor.reasoned.breaker import Breaker
from ephemeral_predictor.reasoned.budget import LEAST_TOKENS, Budget
from ephemeral_predictor.reasoned.inventory import Inventory
from ephemeral_predictor.reasoned.service import K2, Broken, Garbage, Refused, Service, Usage, estimate
from ephemeral_predictor.redact import redact
from ephemeral_predictor.sandboxd import Sandboxd
from ephemeral_predictor.state import Belief, Decision

log = logging.getLogger(__name__)

_DEBOUNCE_SECONDS = 0.03  # a turn's messages may come as several batches: ask once
_CANDIDATES = 16
_REMEMBERED = 256
_REMEMBERED_SECONDS = 600.0
_MAX_TOKENS = 8192  # of an answer, reasoning included
_AT_ONCE = 8  # questions under way
_RETRIES = 1
_USUAL_SECONDS = 0.5  # what an answer is thought to take, before the first has come
_MISCONFIGURED_SECONDS = 600.0  # a wrong key does not heal by itself; a server may still get the model it lacks
_LONGEST_PAUSE_SECONDS = 3600.0
_DETAIL = 4000  # characters of a moment


@dataclass(frozen=True)
class _Failure:
    """``count`` is one of the Agent's; ``opened`` says that the breaker is open because of it already."""

    count: str
    why: str
    opened: bool = False


@dataclass(frozen=True)
class Verdict:
    """What became of one question: ``outcome`` is one of the Agent's counts."""

    outcome: str
    decision: Decision | None = None
    sandboxes: int | None = None


class Agent:
    """Asks K2 at each user turn and hands its decision to ``decided(session, decision, turn)``.

    ``counts`` says what became of the questions: ``answered``, ``kept`` (nothing is to change), ``remembered``, ``late``,
    ``failed``, ``unreadable``, ``refused`` (nothing but packages that nobody may have), ``over_budget``, ``skipped``.
    ``note`` gets a moment for each question; its ``detail`` is conversation, redacted.
    """

    def __init__(
        self,
        k2: K2,
        sandboxd: Sandboxd,
        tasks: Tasks,
        turn_of: Callable[[str], int],
        decided: Callable[[str, Decision, int], None],
        note: Callable[[Moment], None] = lambda moment: None,
        breaker: Breaker | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._k2 = k2
        self._sandboxd = sandboxd
        self._tasks = tasks
        self._turn_of = turn_of
        self._decided = decided
        self._note = note
        self._breaker = breaker or Breaker()
        self._budget = budget or Budget(k2.limits, k2.spending)
        self._service = Service(k2)
        self._asking: dict[str, asyncio.Task[None]] = {}  # session -> its question
        self._flights: dict[str, _Flight] = {}  # key of a question -> it, under way
        self._answers: OrderedDict[str, tuple[float, Verdict]] = OrderedDict()  # key -> until when, what
        self._usual_seconds = _USUAL_SECONDS

    async def open(self) -> None:
        """Get ready to ask; connects to nothing yet."""
        await self._service.__aenter__()

    async def close(self) -> None:
        await self._service.__aexit__(None, None, None)

    def consider(self, belief: Belief, plan: Plan | None) -> None:
        """A user spoke: ask about this conversation, and no longer about what it was before."""
        self.forget(belief.session)
        if len(self._asking) >= _AT_ONCE:
            self.counts["skipped"] += 1
            return
        evidence = sorted(belief.evidence.values(), key=lambda e: (-e.probability, e.package))[:_CANDIDATES]
        question = prompt.Question(
            session=belief.session,
            turn=self._turn_of(belief.session),
            turns=tuple(belief.turns),
            wants=tuple(_want(e) for e in evidence),
            planned=plan if plan and plan.action not in ("nothing", "release") else None,
            matters=lambda: not belief.code_in_turn,
        )
        task = self._tasks.start(self._answer(question), "K2")
        self._asking[belief.session] = task
        task.add_done_callback(lambda done: self._asked(belief.session, done))

    def forget(self, session: str) -> None:
        """Stop asking about ``session``."""
        if task := self._asking.pop(session, None):
            task.cancel()

    def health(self) -> dict[str, object]:
        """Counts, the breaker, and what was spent."""
        limits = self._k2.limits
        return {
            **self.counts,
            "breaker": self._breaker.describe(),
            "tokens_last_hour": self._budget.tokens(),
            "tokens_per_hour": limits.tokens_per_hour,
            "money_last_day": round(self._budget.money(), 6),
            "money_per_day": limits.money_per_day,
        }

    def _asked(self, session: str, task: asyncio.Task[None]) -> None:
        if self._asking.get(session) is task:
            del self._asking[session]

    # ------------------------------------------------------------------------------------------- one question

    async def _answer(self, question: prompt.Question) -> None:
        await asyncio.sleep(_DEBOUNCE_SECONDS)
        conversation = await question.conversation()
        key = prompt.key(conversation, question.wants, question.planned)
        verdict = self._remembered(key)
        if verdict:
            self.counts["remembered"] += 1
        else:
            flight = self._flights.get(key)
            if flight is None or not flight.readers:  # none, or one that is being taken back
                flight = self._flights[key] = _Flight(self._tasks.start(self._ask(question, conversation), "K2's answer"))
                flight.task.add_done_callback(lambda done: self._landed(key, done))
            else:
                self.counts["remembered"] += 1
            verdict = await flight.wait()
        if verdict.decision:
            self._decided(question.session, verdict.decision, question.turn)

    def _remembered(self, key: str) -> Verdict | None:
        until, verdict = self._answers.get(key, (0.0, None))
        return verdict if time.monotonic() < until else None

    def _landed(self, key: str, task: asyncio.Task[Verdict]) -> None:
        if key in self._flights and self._flights[key].task is task:
            del self._flights[key]
        if task.cancelled() or task.exception() or task.result().outcome not in ("answered", "kept"):
            return
        self._answers[key] = (time.monotonic() + _REMEMBERED_SECONDS, task.result())
        self._answers.move_to_end(key)
        while len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)

    async def _ask(self, question: prompt.Question, conversation: str) -> Verdict:
        """Ask K2, within deadline and budget. Raises nothing but CancelledError: K2 must never matter."""
        began = time.monotonic()
        if not self._breaker.allows():
            self.counts["skipped"] += 1
            return Verdict("skipped")
        answer, usage = Answer(), Usage()
        try:
            stock = await inventory.take(self._sandboxd, question.session)
            chat = prompt.messages(question, conversation, stock.lines)
            reservation = self._budget.reserve(sum(estimate(message["content"]) for message in chat), _MAX_TOKENS)
            if reservation is None:
                self._breaker.abandoned()
                self.counts["over_budget"] += 1
                return Verdict("over_budget")
            self._tell_prompt(question, chat)
            try:
                verdict, answer = await self._read(question, chat, reservation.written, stock, began, usage)
            finally:
                self._budget.settle(reservation, usage.read, usage.written)
        except asyncio.CancelledError:
            self._breaker.abandoned()
            raise
        except Exception as problem:
            log.exception("K2 could not be asked")
            self._breaker.failed(type(problem).__name__)
            verdict = Verdict("failed")
        self.counts[verdict.outcome] += 1
        self._tell_answer(question, answer, verdict, usage, began)
        return verdict

    async def _read(
        self, question: prompt.Question, chat: list[dict[str, str]], max_tokens: int, stock: Inventory, began: float, spent: Usage
    ) -> tuple[Verdict, Answer]:
        """The answer and what it is worth; asked once more where that can still be in time. Adds to ``spent``."""
        ends = began + self._k2.deadline_seconds
        answer = Answer()
        for retries_left in range(_RETRIES, -1, -1):
            usage, answer = Usage(), Answer()
            room = max_tokens - spent.read - spent.written  # a second question comes out of what was set aside for the answer
            pause: float | None = None
            try:
                async with asyncio.timeout(ends - time.monotonic()):
                    await self._service.ask(chat, room, answer, usage)
                break
            except TimeoutError:
                failure = _Failure("late", "no answer within the deadline")
            except Refused as refused:
                failure = self._refused(refused)
                pause = refused.retry_after
            except Broken as problem:
                failure = _Failure("failed", str(problem))
                pause = 0.0
            except Garbage as problem:
                failure = _Failure("failed", f"what came is {problem}")
            finally:
                spent.read += usage.read
                spent.written += usage.written
            answer.cut = True
            in_time = pause is not None and time.monotonic() + pause + self._usual_seconds < ends
            affordable = max_tokens - spent.read - spent.written >= LEAST_TOKENS
            if not (retries_left and in_time and affordable and question.matters()):
                return self._without_end(question, answer, stock, failure), answer
            await asyncio.sleep(pause or 0.0)
        verdict = self._judge(question, answer.found(), stock)
        if verdict.outcome == "unreadable":
            self._failed("its answers cannot be read")
        else:
            self._breaker.succeeded()
            self._usual_seconds += 0.2 * (time.monotonic() - began - self._usual_seconds)
        return verdict, answer

    def _without_end(self, question: prompt.Question, answer: Answer, stock: Inventory, failure: _Failure) -> Verdict:
        """K2 failed; the packages that it had named by then still count."""
        if not failure.opened:
            self._failed(failure.why)
        found = answer.found()
        if found.versions:
            verdict = self._judge(question, found, stock)
            return Verdict(failure.count, verdict.decision, verdict.sandboxes)
        return Verdict(failure.count)

    def _failed(self, why: str) -> None:
        self._breaker.failed(why)
        log.warning("K2 gave no answer: %s", why)

    def _refused(self, refused: Refused) -> _Failure:
        """What an error means, in words that say what to set; opens the breaker where asking again is of no use."""
        where = f"EPHEMERAL_K2_MODEL={self._k2.model} at EPHEMERAL_K2_BASE_URL={self._k2.base_url}"
        why = f"status {refused.status}"
        seconds = 0.0
        if refused.is_sunset:
            why = f"{where} is no longer served (status 410); K2's successor: {settings.K2_SUCCESSOR}"
            seconds = math.inf
        elif refused.is_misconfigured:
            if refused.status in (401, 403):
                why += "; check EPHEMERAL_K2_API_KEY"
            else:
                why += f"; is {where} what you mean? `ephemeral doctor` asks what is served there"
            seconds = _MISCONFIGURED_SECONDS
        elif refused.retry_after is not None and refused.retry_after > self._k2.deadline_seconds:
            why += f", asks to wait {refused.retry_after:.0f} s"
            seconds = min(refused.retry_after, _LONGEST_PAUSE_SECONDS)
        if seconds:
            self._breaker.open(why, seconds)
            log.warning("K2 is left alone: %s", why)
        return _Failure("failed", why, opened=seconds > 0)

    # ------------------------------------------------------------------------------------------- what may come of it

    @staticmethod
    def _judge(question: prompt.Question, found: Found, stock: Inventory) -> Verdict:
        """``found`` within what is permitted: names that are known, a size that the host has."""
        action = found.action
        if action is None:
            return Verdict("unreadable")
        if action == "keep":
            return Verdict("kept", sandboxes=found.sandboxes)
        versions = _permitted(found.versions, question.wants)
        modules = tuple(module for module in found.modules if names.package_for(module))
        if action == "provision" and (found.versions or found.modules) and not (versions or modules):
            return Verdict("refused")
        memory, cpus = found.memory_bytes, found.cpus
        if memory and stock.memory_bytes:
            memory = min(memory, stock.memory_bytes)
        if cpus and stock.cpus:
            cpus = min(cpus, stock.cpus)
        return Verdict("answered", Decision(action, versions, modules, memory, cpus), found.sandboxes)

    # ------------------------------------------------------------------------------------------- the transcript

    def _tell_prompt(self, question: prompt.Question, chat: list[dict[str, str]]) -> None:
        text = chat[-1]["content"]  # the instructions before it are always the same
        parts = [text[start : start + _DETAIL] for start in range(0, len(text), _DETAIL)]
        for number, part in enumerate(parts, 1):
            data: dict[str, object] = {"part": number, "parts": len(parts), "model": self._k2.model}
            self._note(Moment(session=question.session, at=time.time(), kind="k2_prompt", detail=part, data=data))

    def _tell_answer(self, question: prompt.Question, answer: Answer, verdict: Verdict, usage: Usage, began: float) -> None:
        decision = verdict.decision
        data: dict[str, object] = {
            "outcome": verdict.outcome,
            "model": self._k2.model,
            "tokens_read": usage.read,
            "tokens_written": usage.written,
        }
        if cost := self._k2.limits.cost(usage.read, usage.written):
            data["cost"] = cost
        if decision:
            data |= {"action": decision.action, "packages": sorted(decision.versions)}
        if verdict.sandboxes is not None:
            data["sandboxes"] = verdict.sandboxes
        duration = (time.monotonic() - began) * 1000
        self._note(Moment(session=question.session, at=time.time(), kind="k2_answer", duration_ms=duration, detail=_transcript(answer), data=data))


class _Flight:
    """A question under way, for all conversations that ask the same. It is taken back when none waits any longer."""

    def __init__(self, task: asyncio.Task[Verdict]) -> None:
        self.readers = 0
        self.task = task

    async def wait(self) -> Verdict:
        self.readers += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self.readers -= 1
            if not self.readers:
                self.task.cancel()


def _transcript(answer: Answer) -> str:
    """Reasoning and answer, redacted; the end of them where both are long: there stands what was decided."""
    text = f"{answer.reasoning}\n</think>\n{answer.content}" if answer.reasoning else answer.content
    shown = redact(text[-_DETAIL * 3 // 2 :])  # more than is shown: half a key is no key's shape
    return shown if len(text) <= _DETAIL else f"[…] {shown[-_DETAIL + 4 :]}"


def _permitted(versions: dict[str, str | None], wants: tuple[Want, ...]) -> dict[str, str | None]:
    """Those that are known without the conversation, or were evident before K2 was asked: what an answer makes up, or was
    made to say, is not even passed on. sandboxd's own policy stands behind this."""
    evident = {want.package for want in wants}
    allowed = {names.normalize(name) for name in settings.get("allow").split()}
    patterns = [names.normalize(pattern) for pattern in settings.get("private_names").split()]
    return {
        name: version
        for name, version in versions.items()
        if names.rank(name) is not None or name in evident or name in allowed or any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _want(evidence: Evidence) -> Want:
    return Want(
        package=evidence.package,
        version=evidence.version,
        probability=evidence.probability,
        proposer=evidence.proposer,
        evidence=evidence.kind,
    )
