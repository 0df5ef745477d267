"""Gemini's ``:generateContent`` and ``:streamGenerateContent``, ``:countTokens`` and ``:batchEmbedContents``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .answers import CODE, Answer, Body, objects, pieces


def answer_to(request: Body) -> Answer:
    body = _camel(request)
    tools = [
        declared.get("name", "")
        for tool in objects(body.get("tools"))
        for declared in objects(tool.get("functionDeclarations"))
    ]
    last = (objects(body.get("contents")) or [{}])[-1]
    results = [part["functionResponse"] for part in objects(last.get("parts")) if "functionResponse" in part]
    result = str(results[-1].get("response")) if results else None
    thinking = (body.get("generationConfig") or {}).get("thinkingConfig") or {}
    return Answer.to(request, tools, result, bool(thinking.get("includeThoughts")))


def whole(body: Body, model: str) -> Body:
    answer = answer_to(body)
    parts: list[Body] = [{"text": answer.reasoning, "thought": True}] if answer.reasoning else []
    parts.append({"text": answer.text})
    if answer.tool:
        parts.append(_call(answer))
    return _chunk(answer, model, parts, "STOP")


def events(body: Body, model: str) -> Iterator[Body | None]:
    """The chunks of a streamed answer; None is its middle. A function call comes in one piece, unless the request sets
    ``toolConfig.functionCallingConfig.streamFunctionCallArguments``."""
    answer = answer_to(body)
    for thought in answer.thoughts:
        yield _chunk(answer, model, [{"text": thought, "thought": True}])
    for word in answer.words:
        yield _chunk(answer, model, [{"text": word}])
    yield None
    calling = (_camel(body).get("toolConfig") or {}).get("functionCallingConfig") or {}
    if answer.tool and calling.get("streamFunctionCallArguments"):
        opening = {"name": answer.tool, "id": f"fc-{answer.mark}", "willContinue": True}
        yield _chunk(answer, model, [{"functionCall": opening}])
        for piece in pieces(CODE):
            partial = {"jsonPath": "$.code", "stringValue": piece, "willContinue": True}
            yield _chunk(answer, model, [{"functionCall": {"partialArgs": [partial], "willContinue": True}}])
        last = {"jsonPath": "$.code", "stringValue": ""}
        yield _chunk(answer, model, [{"functionCall": {"partialArgs": [last], "willContinue": True}}])
        yield _chunk(answer, model, [{"functionCall": {}}], "STOP")
    elif answer.tool:
        yield _chunk(answer, model, [_call(answer)], "STOP")
    else:
        yield _chunk(answer, model, [{"text": ""}], "STOP")


def embeddings(body: Body) -> Body:
    return {"embeddings": [{"values": [0.25, -0.5, len(str(one)) / 8]} for one in objects(body.get("requests"))]}


def tokens(body: Body) -> Body:
    return {"totalTokens": len(str(body.get("contents"))) // 4}


def _camel(value: Any) -> Any:
    """The same JSON with its names in camelCase: the API takes either, as protocol buffers do."""
    if isinstance(value, dict):
        return {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): _camel(item) for name, item in value.items()}
    return [_camel(item) for item in value] if isinstance(value, list) else value


def _call(answer: Answer) -> Body:
    return {"functionCall": {"name": answer.tool, "id": f"fc-{answer.mark}", "args": {"code": CODE}}}


def _chunk(answer: Answer, model: str, parts: list[Body], finish: str | None = None) -> Body:
    candidate: Body = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 11, "candidatesTokenCount": answer.tokens, "totalTokenCount": 11 + answer.tokens}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": answer.mark}
