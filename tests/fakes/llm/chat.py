"""OpenAI's Chat Completions (``POST /v1/chat/completions``) and the legacy completions before it (``POST /v1/completions``)."""

from __future__ import annotations

from collections.abc import Iterator

from .answers import CODE, CREATED, Answer, Body, arguments, objects, pieces, plain


def answer_to(body: Body) -> Answer:
    tools = [tool.get(tool.get("type", ""), {}).get("name", "") for tool in objects(body.get("tools"))]
    last = (objects(body.get("messages")) or [{}])[-1]
    result = plain(last.get("content")) if last.get("role") == "tool" else None
    return Answer.to(body, tools, result, "reasoning_effort" in body)


def whole(body: Body) -> Body:
    answer = answer_to(body)
    message: Body = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool:
        kind, said = (
            ("custom", {"input": CODE}) if _custom(body) else ("function", {"arguments": arguments(escaped=True)})
        )
        message["tool_calls"] = [{"id": f"call_{answer.mark}", "type": kind, kind: {"name": answer.tool, **said}}]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
    return {**_head(body, answer, "chat.completion"), "choices": [choice], "usage": _usage(answer)}


def events(body: Body) -> Iterator[Body | None]:
    """The chunks of a streamed answer; None is its middle."""
    answer = answer_to(body)
    options = body.get("stream_options") or {}

    def chunk(delta: Body, finish: str | None = None) -> Body:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        event: Body = {**_head(body, answer, "chat.completion.chunk"), "choices": [choice]}
        if options.get("include_usage"):
            event["usage"] = None
        if options.get("include_obfuscation", True):
            event["obfuscation"] = "kQ3x"[: 1 + len(str(delta)) % 4]
        return event

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for thought in answer.thoughts:
        yield chunk({"reasoning_content": thought})
    for word in answer.words:
        yield chunk({"content": word})
    yield None
    if answer.tool:
        custom = _custom(body)
        kind, field, text = ("custom", "input", CODE) if custom else ("function", "arguments", arguments(escaped=True))
        opening = {"index": 0, "id": f"call_{answer.mark}", "type": kind, kind: {"name": answer.tool, field: ""}}
        yield chunk({"tool_calls": [opening]})
        for piece in pieces(text):
            yield chunk({"tool_calls": [{"index": 0, kind: {field: piece}}]})
    yield chunk({}, _finish(answer))
    if options.get("include_usage"):
        yield {**_head(body, answer, "chat.completion.chunk"), "choices": [], "usage": _usage(answer)}


def whole_completion(body: Body) -> Body:
    answer = Answer.to(body, [], None)
    choice = {"index": 0, "text": answer.text, "logprobs": None, "finish_reason": "stop"}
    return {**_head(body, answer, "text_completion"), "choices": [choice], "usage": _usage(answer)}


def completion_events(body: Body) -> Iterator[Body | None]:
    answer = Answer.to(body, [], None)
    for word in answer.words:
        choice = {"index": 0, "text": word, "logprobs": None, "finish_reason": None}
        yield {**_head(body, answer, "text_completion"), "choices": [choice]}
    yield None
    choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
    yield {**_head(body, answer, "text_completion"), "choices": [choice]}


def _custom(body: Body) -> bool:
    return any(tool.get("type") == "custom" for tool in objects(body.get("tools")))


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.tool else "stop"


def _head(body: Body, answer: Answer, kind: str) -> Body:
    return {
        "id": f"chatcmpl-{answer.mark}", "object": kind, "created": CREATED, "model": body.get("model"),
        "service_tier": "default", "system_fingerprint": "fp_fake",
    }  # fmt: skip


def _usage(answer: Answer) -> Body:
    return {
        "prompt_tokens": 11,
        "completion_tokens": answer.tokens,
        "total_tokens": 11 + answer.tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": len(answer.thoughts), "audio_tokens": 0},
    }
