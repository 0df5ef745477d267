"""Anthropic's Messages (``POST /v1/messages``) and its token counter."""

from __future__ import annotations

from collections.abc import Iterator

from .answers import CODE, Answer, Body, arguments, objects, pieces, plain


def answer_to(body: Body) -> Answer:
    tools = [tool.get("name", "") for tool in objects(body.get("tools"))]
    last = (objects(body.get("messages")) or [{}])[-1]
    results = [part for part in objects(last.get("content")) if part.get("type") == "tool_result"]
    result = plain(results[-1].get("content")) if results else None
    return Answer.to(body, tools, result, (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"))


def whole(body: Body) -> Body:
    answer = answer_to(body)
    content = [{**block, **filled} for block, filled, _ in _blocks(answer)]
    return {**_message(body, answer), "content": content, "stop_reason": _reason(answer), "usage": _usage(answer)}


def events(body: Body) -> Iterator[Body | None]:
    """The events of a streamed answer; None is its middle."""
    answer = answer_to(body)
    yield {
        "type": "message_start",
        "message": {**_message(body, answer), "usage": {**_usage(answer), "output_tokens": 1}},
    }
    for index, (block, _, deltas) in enumerate(_blocks(answer)):
        if block["type"] == "tool_use":
            yield None
        yield {"type": "content_block_start", "index": index, "content_block": block}
        if index == 0:
            yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    if not answer.tool:
        yield None
    delta = {"stop_reason": _reason(answer), "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": answer.tokens}}
    yield {"type": "message_stop"}


def failed(message: str) -> Body:
    """The event of a stream that breaks off."""
    return {"type": "error", "error": {"type": "overloaded_error", "message": message}}


def tokens(body: Body) -> Body:
    return {"input_tokens": len(str(body.get("messages"))) // 4}


def _blocks(answer: Answer) -> Iterator[tuple[Body, Body, list[Body]]]:
    """Each content block as it begins, what it holds in the end, and the deltas between."""
    if answer.reasoning:
        signature = f"sig-{answer.mark}"
        deltas: list[Body] = [{"type": "thinking_delta", "thinking": thought} for thought in answer.thoughts]
        deltas.append({"type": "signature_delta", "signature": signature})
        filled: Body = {"thinking": answer.reasoning, "signature": signature}
        yield {"type": "thinking", "thinking": "", "signature": ""}, filled, deltas
    deltas = [{"type": "text_delta", "text": word} for word in answer.words]
    yield {"type": "text", "text": ""}, {"text": answer.text}, deltas
    if answer.tool:
        given = ["", *pieces(arguments(escaped=False))]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in given]
        block = {"type": "tool_use", "id": f"toolu_{answer.mark}", "name": answer.tool, "input": {}}
        yield block, {"input": {"code": CODE}}, deltas


def _message(body: Body, answer: Answer) -> Body:
    return {
        "id": f"msg_{answer.mark}", "type": "message", "role": "assistant", "model": body.get("model"), "content": [],
        "stop_reason": None, "stop_sequence": None,
    }  # fmt: skip


def _reason(answer: Answer) -> str:
    return "tool_use" if answer.tool else "end_turn"


def _usage(answer: Answer) -> Body:
    return {
        "input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "output_tokens": answer.tokens, "service_tier": "standard",
    }  # fmt: skip
