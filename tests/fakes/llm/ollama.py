"""Ollama's ``/api/chat`` and ``/api/generate``: lines of JSON while ``stream`` is not false, and ``/api/tags``."""

from __future__ import annotations

from collections.abc import Iterator

from .answers import CODE, Answer, Body, objects

AT = "2026-09-21T13:33:20.123456789Z"


def answer_to(body: Body) -> Answer:
    tools = [tool.get("function", {}).get("name", "") for tool in objects(body.get("tools"))]
    last = (objects(body.get("messages")) or [{}])[-1]
    result = last.get("content", "") if last.get("role") == "tool" else None
    return Answer.to(body, tools, result, bool(body.get("think")))


def whole(body: Body) -> Body:
    answer = answer_to(body)
    message: Body = {"role": "assistant", "content": answer.text}
    if answer.reasoning:
        message["thinking"] = answer.reasoning
    if answer.tool:
        message["tool_calls"] = _calls(answer)
    return {**_line(body, message), **_done(answer)}


def events(body: Body) -> Iterator[Body | None]:
    """The lines of a streamed answer; None is its middle. A tool call comes in one piece."""
    answer = answer_to(body)
    for thought in answer.thoughts:
        yield _line(body, {"role": "assistant", "content": "", "thinking": thought})
    for word in answer.words:
        yield _line(body, {"role": "assistant", "content": word})
    yield None
    if answer.tool:
        yield _line(body, {"role": "assistant", "content": "", "tool_calls": _calls(answer)})
    yield {**_line(body, {"role": "assistant", "content": ""}), **_done(answer)}


def whole_generated(body: Body) -> Body:
    answer = Answer.to(body, [], None)
    return {
        "model": body.get("model"),
        "created_at": AT,
        "response": answer.text,
        **_done(answer),
        "context": [1, 2, 3],
    }


def generated_events(body: Body) -> Iterator[Body | None]:
    answer = Answer.to(body, [], None)
    for word in answer.words:
        yield {"model": body.get("model"), "created_at": AT, "response": word, "done": False}
    yield None
    yield {"model": body.get("model"), "created_at": AT, "response": "", **_done(answer), "context": [1, 2, 3]}


def tags() -> Body:
    details = {"parent_model": "", "format": "gguf", "family": "fake", "families": ["fake"], "parameter_size": "1B"}
    model = {"name": "fake:latest", "model": "fake:latest", "modified_at": AT, "size": 123, "digest": "ab" * 32}
    return {"models": [{**model, "details": {**details, "quantization_level": "Q4_0"}}]}


def embeddings(body: Body) -> Body:
    given = body.get("input")
    vectors = [[0.25, -0.5, len(text) / 8] for text in (given if isinstance(given, list) else [given or ""])]
    return {"model": body.get("model"), "embeddings": vectors, "total_duration": 5, "prompt_eval_count": 3}


def _calls(answer: Answer) -> list[Body]:
    return [{"id": f"call_{answer.mark}", "function": {"index": 0, "name": answer.tool, "arguments": {"code": CODE}}}]


def _line(body: Body, message: Body) -> Body:
    return {"model": body.get("model"), "created_at": AT, "message": message, "done": False}


def _done(answer: Answer) -> Body:
    return {
        "done": True, "done_reason": "stop", "total_duration": 900, "load_duration": 100, "prompt_eval_count": 11,
        "prompt_eval_duration": 200, "eval_count": answer.tokens, "eval_duration": 600,
    }  # fmt: skip
