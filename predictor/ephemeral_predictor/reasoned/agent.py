"""When K2 is asked, how long its answer is waited for, and when it is left alone. Nothing here can hold up anything else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai

from ephemeral.tasks import Tasks
from ephemeral.wire import Plan, Want
from ephemeral_predictor.evidence import Evidence
from ephemeral_predictor.reasoned import prompt
from ephemeral_predictor.reasoned.answer import Answer
from ephemeral_predictor.reasoned.breaker import Breaker
from ephemeral_predictor.sandboxd import Sandboxd
from ephemeral_predictor.state import Belief, Decision

log = logging.getLogger(__name__)

_DEBOUNCE_SECONDS = 0.03  # a turn's messages may come as several batches: ask once
_INVENTORY_SECONDS = 0.2
_RETRIED = (429, 529)
_RETRY_SECONDS = 0.5  # when the service names no other
_CANDIDATES = 16
_REMEMBERED = 256
_MAX_TOKENS = 8192  # reasoning included
_AT_ONCE = 8  # questions under way


@dataclass(frozen=True)
class K2:
    """Where K2 is and how it is asked. ``deadline_seconds`` counts from the question, retry included."""

    api_key: str
    base_url: str
    model: str
    effort: str
    deadline_seconds: float


class Agent:
    """Asks K2 at each user turn and hands its decision to ``decided(session, decision, turn)``.

    ``counts`` says what became of the questions: ``answered``, ``remembered``, ``late``, ``failed``, ``unreadable``,
    ``skipped``.
    """

    def __init__(
        self,
        k2: K2,
        sandboxd: Sandboxd,
        tasks: Tasks,
        turn_of: Callable[[str], int],
        decided: Callable[[str, Decision, int], None],
        breaker: Breaker | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._k2 = k2
        self._sandboxd = sandboxd
        self._tasks = tasks
        self._turn_of = turn_of
        self._decided = decided
        self._breaker = breaker or Breaker()
        self._client = openai.AsyncOpenAI(
            api_key=k2.api_key, base_url=k2.base_url, max_retries=0, timeout=k2.deadline_seconds
        )
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._answers: OrderedDict[str, Decision] = OrderedDict()

    async def close(self) -> None:
        await self._client.close()

    def consider(self, belief: Belief, plan: Plan | None) -> None:
        """A user spoke: ask about this conversation, and no longer about what it was before."""
        self.forget(belief.session)
        if self._breaker.is_open or len(self._asking) >= _AT_ONCE:
            self.counts["skipped"] += 1
            return
        evidence = sorted(belief.evidence.values(), key=lambda e: -e.probability)[:_CANDIDATES]
        question = prompt.Question(
            session=belief.session,
            turn=self._turn_of(belief.session),
            turns=tuple(belief.turns),
            wants=tuple(_want(e) for e in evidence),
            planned=plan if plan and plan.action not in ("nothing", "release") else None,
        )
        task = self._tasks.start(self._answer(question), "K2")
        self._asking[belief.session] = task
        task.add_done_callback(lambda done: self._asked(belief.session, done))

    def forget(self, session: str) -> None:
        """Stop asking about ``session``."""
        if task := self._asking.pop(session, None):
            task.cancel()

    def _asked(self, session: str, task: asyncio.Task[None]) -> None:
        if self._asking.get(session) is task:
            del self._asking[session]

    # ------------------------------------------------------------------------------------------- one question

    async def _answer(self, question: prompt.Question) -> None:
        await asyncio.sleep(_DEBOUNCE_SECONDS)
        conversation = question.conversation()
        key = prompt.key(conversation, question.planned)
        decision = self._answers.get(key)
        if decision:
            self.counts["remembered"] += 1
        else:
            decision = await self._ask(question, conversation)
            if decision is None:
                return
            self._answers[key] = decision
            while len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
        self._decided(question.session, decision, question.turn)

    async def _ask(self, question: prompt.Question, conversation: str) -> Decision | None:
        """K2's decision; None when none came in time. Every failure counts for the breaker."""
        ends = time.monotonic() + self._k2.deadline_seconds
        try:
            async with asyncio.timeout(self._k2.deadline_seconds):
                chat = prompt.messages(question, conversation, await self._inventory())
                answer = await self._read_with_retry(chat, ends)
        except TimeoutError:
            self._failed("late", "no answer within the deadline")
            return None
        except openai.APIStatusError as error:
            hint = ""
            if error.status_code in (400, 404, 410):
                hint = f"; is EPHEMERAL_K2_MODEL={self._k2.model} still served at EPHEMERAL_K2_BASE_URL={self._k2.base_url}?"
            elif error.status_code in (401, 403):
                hint = "; check EPHEMERAL_K2_API_KEY"
            self._failed("failed", f"status {error.status_code}{hint}")
            return None
        except Exception as error:  # a broken stream raises what the transport raises; K2 must never matter
            self._failed("failed", type(error).__name__)
            return None
        self._breaker.succeeded()
        decision = answer.decision()
        self.counts["answered" if decision else "unreadable"] += 1
        return decision

    def _failed(self, count: str, why: str) -> None:
        self.counts[count] += 1
        self._breaker.failed()
        log.warning("K2 gave no answer: %s", why)

    async def _read_with_retry(self, chat: list[dict[str, str]], ends: float) -> Answer:
        """Ask, and once more if K2 was overloaded or the connection broke, as long as time is left."""
        try:
            return await self._read(chat)
        except openai.APIStatusError as error:
            if error.status_code not in _RETRIED:
                raise
            pause = _retry_after(error)
            if time.monotonic() + pause >= ends:
                raise
        except openai.APITimeoutError:
            raise
        except openai.APIConnectionError:
            pause = 0.0
        except openai.OpenAIError:
            raise
        except Exception:  # the transport's own error, raised in the middle of a stream
            pause = 0.0
        await asyncio.sleep(pause)
        return await self._read(chat)

    async def _read(self, chat: list[dict[str, str]]) -> Answer:
        answer = Answer()
        body: Any = chat
        stream = await self._client.chat.completions.create(
            model=self._k2.model,
            messages=body,
            stream=True,
            temperature=1.0,
            top_p=1.0,
            max_tokens=_MAX_TOKENS,
            extra_body={"reasoning_effort": self._k2.effort},
        )
        async with stream:  # leaving it early closes the connection: the rest is neither read nor paid for
            async for chunk in stream:
                for choice in chunk.choices[:1]:
                    delta = choice.delta
                    extra = delta.model_extra or {}
                    reasoning = extra.get("reasoning") or extra.get("reasoning_content") or ""
                    answer.feed(delta.content or "", reasoning if isinstance(reasoning, str) else "")
                if answer.complete:
                    break
        return answer

    async def _inventory(self) -> list[str]:
        """A few lines on what stands ready and what the host can afford; what does not come quickly is left out."""
        host, snapshots, sandboxes = await asyncio.gather(
            self._sandboxd.get("/v1/host", _INVENTORY_SECONDS),
            self._sandboxd.get("/v1/snapshots", _INVENTORY_SECONDS),
            self._sandboxd.get("/v1/sandboxes", _INVENTORY_SECONDS),
        )
        lines = []
        if isinstance(host, dict):
            free = _number(host, "memory_budget_bytes") - _number(host, "memory_used_bytes")
            lines.append(f"Host: {_number(host, 'cores'):.0f} cores, {free / (1 << 30):.1f} GiB free for sandboxes")
            base = host.get("base_packages")
            if isinstance(base, list):
                lines.append("Importable without a download: " + ", ".join(str(name) for name in base[:100]))
        warm = sorted({" ".join(map(str, item.get("modules") or ())) for item in _items(snapshots)} - {""})
        if warm:
            lines.append("Snapshots with these modules imported: " + "; ".join(warm[:40]))
        if sandboxes is not None:
            lines.append(f"Sandboxes now: {len(_items(sandboxes))}")
        return lines


def _want(evidence: Evidence) -> Want:
    return Want(
        package=evidence.package,
        version=evidence.version,
        probability=evidence.probability,
        proposer=evidence.proposer,
        evidence=evidence.kind,
    )


def _items(page: Any) -> list[dict[str, Any]]:
    items = page.get("items") if isinstance(page, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _number(record: dict[str, Any], name: str) -> float:
    value = record.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _retry_after(error: openai.APIStatusError) -> float:
    """Seconds the service asks to wait."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", _RETRY_SECONDS)))
    except ValueError:
        return _RETRY_SECONDS
