"""OpenAI's Responses (``POST /v1/responses``): the same events over server-sent events and over WebSocket."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .answers import CODE, CREATED, Answer, Body, arguments, objects, pieces, plain


def answer_to(body: Body) -> Answer:
    tools = [tool.get("name", "") for tool in objects(body.get("tools"))]
    last = (objects(body.get("input")) or [{}])[-1]
    result = plain(last.get("output")) if str(last.get("type", "")).endswith("_call_output") else None
    return Answer.to(body, tools, result, "summary" in (body.get("reasoning") or {}))


def whole(body: Body) -> Body:
    answer = answer_to(body)
    items = [item(whole=True) for item, _ in _parts(body, answer)]
    return _response(body, answer, "completed", items)


def events(body: Body) -> Iterator[Body | None]:
    """The events of a streamed answer, numbered; None is its middle."""
    number = 0
    for event in _events(body):
        if event is None:
            yield None
        else:
            yield {**event, "sequence_number": number}
            number += 1


def _events(body: Body) -> Iterator[Body | None]:
    answer = answer_to(body)
    begun = _response(body, answer, "in_progress", [])
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    items: list[Body] = []
    for index, (item, deltas) in enumerate(_parts(body, answer)):
        if item(whole=False)["type"].endswith("_call"):
            yield None
        yield {"type": "response.output_item.added", "output_index": index, "item": item(whole=False)}
        for event in deltas:
            yield {**event, "item_id": item(whole=False)["id"], "output_index": index}
        items.append(item(whole=True))
        yield {"type": "response.output_item.done", "output_index": index, "item": items[-1]}
    if not answer.tool:
        yield None
    yield {"type": "response.completed", "response": _response(body, answer, "completed", items)}


def failed(message: str) -> Body:
    """The event of a stream that breaks off."""
    return {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 99}


Item = Callable[..., Body]


def _parts(body: Body, answer: Answer) -> Iterator[tuple[Item, Iterator[Body]]]:
    """The output items of an answer, each with the events between its ``added`` and its ``done``."""
    if answer.reasoning:
        yield lambda whole: _reasoning(answer, whole), _reasoning_events(answer)
    yield lambda whole: _message(answer, whole), _message_events(answer)
    if answer.tool:
        custom = any(tool.get("type") == "custom" for tool in objects(body.get("tools")))
        yield lambda whole: _call(answer, custom, whole), _call_events(custom)


def _reasoning(answer: Answer, whole: bool) -> Body:
    summary = [{"type": "summary_text", "text": answer.reasoning}] if whole else []
    return {"id": f"rs_{answer.mark}", "type": "reasoning", "summary": summary}


def _reasoning_events(answer: Answer) -> Iterator[Body]:
    where = {"summary_index": 0}
    part = {"type": "summary_text", "text": ""}
    yield {"type": "response.reasoning_summary_part.added", **where, "part": part}
    for thought in answer.thoughts:
        yield {"type": "response.reasoning_summary_text.delta", **where, "delta": thought, "obfuscation": "x7"}
    yield {"type": "response.reasoning_summary_text.done", **where, "text": answer.reasoning}
    yield {"type": "response.reasoning_summary_part.done", **where, "part": {**part, "text": answer.reasoning}}


def _message(answer: Answer, whole: bool) -> Body:
    return {
        "id": f"msg_{answer.mark}", "type": "message", "role": "assistant",
        "status": "completed" if whole else "in_progress", "content": [_text(answer.text)] if whole else [],
    }  # fmt: skip


def _text(text: str) -> Body:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message_events(answer: Answer) -> Iterator[Body]:
    where = {"content_index": 0}
    yield {"type": "response.content_part.added", **where, "part": _text("")}
    for word in answer.words:
        yield {"type": "response.output_text.delta", **where, "delta": word, "logprobs": [], "obfuscation": "m2Zp"}
    yield {"type": "response.output_text.done", **where, "text": answer.text, "logprobs": []}
    yield {"type": "response.content_part.done", **where, "part": _text(answer.text)}


def _call(answer: Answer, custom: bool, whole: bool) -> Body:
    said = {"call_id": f"call_{answer.mark}", "name": answer.tool, "status": "completed" if whole else "in_progress"}
    if custom:
        return {"id": f"ctc_{answer.mark}", "type": "custom_tool_call", **said, "input": CODE if whole else ""}
    given = arguments(escaped=False) if whole else ""
    return {"id": f"fc_{answer.mark}", "type": "function_call", **said, "arguments": given}


def _call_events(custom: bool) -> Iterator[Body]:
    kind, field, text = (
        ("custom_tool_call_input", "input", CODE)
        if custom
        else ("function_call_arguments", "arguments", arguments(escaped=False))
    )
    for piece in pieces(text):
        yield {"type": f"response.{kind}.delta", "delta": piece, "obfuscation": "q"}
    yield {"type": f"response.{kind}.done", field: text}


def _response(body: Body, answer: Answer, status: str, items: list[Body]) -> Body:
    done = status == "completed"
    usage = {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answer.tokens,
        "output_tokens_details": {"reasoning_tokens": len(answer.thoughts)},
        "total_tokens": 11 + answer.tokens,
    }
    return {
        "id": f"resp_{answer.mark}", "object": "response", "created_at": CREATED, "status": status, "error": None,
        "incomplete_details": None, "instructions": body.get("instructions"), "metadata": body.get("metadata") or {},
        "model": body.get("model"), "output": items, "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"), "store": body.get("store", True), "temperature": 1.0,
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None}, "text": {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"), "tools": body.get("tools") or [], "top_p": 1.0,
        "truncation": "disabled", "usage": usage if done else None, "user": None,
    }  # fmt: skip
