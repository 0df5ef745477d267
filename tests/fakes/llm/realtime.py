"""OpenAI's Realtime (WebSocket ``/v1/realtime``): one ``Conversation`` a connection, text only."""

from __future__ import annotations

from collections.abc import Iterator

from .answers import Answer, Body, arguments, objects, pieces


class Conversation:
    """Takes the client's events and says the server's. Ids count up within the connection; its own follows from the model."""

    def __init__(self, model: str) -> None:
        self._session: Body = {
            "type": "realtime", "object": "realtime.session", "id": f"sess_{model}", "model": model,
            "output_modalities": ["text"], "instructions": "", "tools": [], "tool_choice": "auto",
        }  # fmt: skip
        self._items: list[Body] = []
        self._count = 0

    def begin(self) -> Iterator[Body]:
        yield self._event("session.created", session=self._session)

    def take(self, event: Body) -> Iterator[Body]:
        match event.get("type"):
            case "session.update":
                self._session = {**self._session, **event["session"]}
                yield self._event("session.updated", session=self._session)
            case "conversation.item.create":
                yield from self._add({"id": f"item_{len(self._items)}", **event["item"], "status": "completed"})
            case "response.create":
                yield from self._respond(event.get("response") or {})
            case other:
                error = {
                    "type": "invalid_request_error", "code": "invalid_value", "param": "type",
                    "message": f"There is no client event {other!r}.", "event_id": event.get("event_id"),
                }  # fmt: skip
                yield self._event("error", error=error)

    def _respond(self, asked: Body) -> Iterator[Body]:
        tools = [tool["name"] for tool in objects(asked.get("tools") or self._session["tools"])]
        last = (self._items or [{}])[-1]
        result = last["output"] if last.get("type") == "function_call_output" else None
        answer = Answer.to({"items": self._items, **asked}, tools, result)
        response: Body = {
            "object": "realtime.response", "id": f"resp_{answer.mark}", "status": "in_progress", "status_details": None,
            "output": [], "conversation_id": "conv_fake", "output_modalities": ["text"], "usage": None,
        }  # fmt: skip
        yield self._event("response.created", response=response)
        output = [*self._plan(answer)]
        for index, (item, deltas) in enumerate(output):
            emptied: Body = {"content": []} if "content" in item else {"arguments": ""}
            begun = {**item, "status": "in_progress", **emptied}
            where = {"response_id": response["id"], "output_index": index}
            yield self._event("response.output_item.added", **where, item=begun)
            yield from self._add(begun, kept=item)
            for kind, fields in deltas:
                yield self._event(kind, **where, item_id=item["id"], **fields)
            yield self._event("response.output_item.done", **where, item=item)
            yield self._event("conversation.item.done", previous_item_id=None, item=item)
        usage = {"input_tokens": 11, "output_tokens": answer.tokens, "total_tokens": 11 + answer.tokens}
        done = {**response, "status": "completed", "output": [item for item, _ in output], "usage": usage}
        yield self._event("response.done", response=done)

    def _plan(self, answer: Answer) -> Iterator[tuple[Body, list[tuple[str, Body]]]]:
        common = {"object": "realtime.item", "status": "completed"}
        text = {"type": "output_text", "text": answer.text}
        part = {"content_index": 0, "part": {"type": "text", "text": ""}}
        deltas: list[tuple[str, Body]] = [("response.content_part.added", part)]
        deltas += [("response.output_text.delta", {"content_index": 0, "delta": word}) for word in answer.words]
        deltas.append(("response.output_text.done", {"content_index": 0, "text": answer.text}))
        deltas.append(("response.content_part.done", {**part, "part": {"type": "text", "text": answer.text}}))
        yield (
            {"id": f"item_m{answer.mark}", "type": "message", "role": "assistant", **common, "content": [text]},
            deltas,
        )
        if answer.tool:
            call = {"call_id": f"call_{answer.mark}"}
            given = arguments(escaped=False)
            kind = "response.function_call_arguments"
            deltas = [(f"{kind}.delta", {**call, "delta": piece}) for piece in pieces(given)]
            deltas.append((f"{kind}.done", {**call, "name": answer.tool, "arguments": given}))
            item = {"id": f"item_f{answer.mark}", "type": "function_call", **common, **call, "name": answer.tool}
            yield {**item, "arguments": given}, deltas

    def _add(self, item: Body, kept: Body | None = None) -> Iterator[Body]:
        previous = self._items[-1]["id"] if self._items else None
        self._items.append(kept or item)
        yield self._event("conversation.item.added", previous_item_id=previous, item=item)
        if kept is None:
            yield self._event("conversation.item.done", previous_item_id=previous, item=item)

    def _event(self, kind: str, **fields: object) -> Body:
        self._count += 1
        return {"type": kind, "event_id": f"event_{self._count}", **fields}
