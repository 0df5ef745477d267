"""OpenAI's Responses: a request into a turn, its answer into events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from ephemeral.streams.answer import AnswerReader, Call
from ephemeral.streams.turn import Event, Message, Turn, joined, mark_of, objects, string

_Feed = Callable[[Call, str], Iterator[Event]]

_ITEMS_PER_ANSWER = 4096
_ID_CHARACTERS = 512
_ROLES_OF_SYSTEM = ("system", "developer")

# ------------------------------------------------------------------------------------------------------- requests


def turn(body: dict[str, Any], path: str = "") -> Turn:
    """What a request says. ``path`` says nothing more."""
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else objects(given)
    said = list(messages(items))
    prompt = body.get("prompt")
    if isinstance(prompt, dict) and isinstance(prompt.get("variables"), dict):  # a stored prompt, filled in
        said.insert(0, Message("user", text_of(list(prompt["variables"].values()))))
    instructions = string(body.get("instructions"))
    if instructions:
        said.insert(0, Message("system", instructions))
    declared = [*tools(body.get("tools"))]
    for item in items:
        if item.get("type") in ("additional_tools", "tool_search_output"):
            declared += tools(item.get("tools"))
    return Turn(string(body.get("model")), tuple(declared), tuple(said), string(body.get("previous_response_id")))


def tools(declared: object) -> Iterator[str]:
    """The names of tools: functions by theirs, an MCP server by its label and the tools it is limited to, others by type."""
    for tool in objects(declared):
        kind = tool.get("type")
        if kind == "namespace":
            yield from (string(inner.get("name")) for inner in objects(tool.get("tools")) if string(inner.get("name")))
            continue
        name = string(tool.get("name")) or string(tool.get("server_label"))
        if name:
            yield name
        elif kind not in ("function", "custom", "mcp") and string(kind):
            yield string(kind)
        allowed = tool.get("allowed_tools")
        if isinstance(allowed, dict):
            allowed = allowed.get("tool_names")
        if isinstance(allowed, list):
            yield from (string(name) for name in allowed if string(name))


def messages(items: list[dict[str, Any]]) -> Iterator[Message]:
    """The messages among the items of a history. Reasoning says nothing that was not read when it was answered."""
    for item in items:
        kind = string(item.get("type")) or ("message" if "role" in item else "item_reference")
        if kind == "message" and item.get("role") == "user":
            yield Message("user", text_of(item.get("content")))
        elif kind == "message" and item.get("role") in _ROLES_OF_SYSTEM:
            yield Message("system", text_of(item.get("content")))
        elif kind.endswith("_call_output"):
            yield Message("tool", text_of(item.get("output")), string(item.get("call_id")) or string(item.get("id")))
        elif item.get("role") == "assistant" or kind == "item_reference" or _is_call(item):
            marks = tuple(_marks(item))
            if marks:
                yield Message("assistant", marks=marks)


def text_of(content: object) -> str:
    """The text of a message's ``content`` or of a tool's ``output``: a string, or a list of strings and of parts, of which
    files count by their name and speech by its transcript."""
    if isinstance(content, str):
        return string(content)
    pieces = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            pieces.append(part)
        elif isinstance(part, dict):
            pieces += [part[key] for key in _PARTS if isinstance(part.get(key), str)]
    return joined(pieces)


_PARTS = ("text", "transcript", "filename", "stdout", "stderr")


def _spoken(item: dict[str, Any]) -> str:
    """What the assistant said in a message item."""
    content = item.get("content")
    if isinstance(content, str):
        return string(content)
    parts = (part.get("text") or part.get("refusal") or part.get("transcript") for part in objects(content))
    return "".join(string(part) for part in parts)


def _marks(item: dict[str, Any]) -> Iterator[str]:
    for key in ("call_id", "id"):
        if string(item.get(key)):
            yield string(item[key])
    text = _spoken(item) if item.get("role") == "assistant" else ""
    if text.strip():
        yield mark_of(text)


def _is_call(item: dict[str, Any]) -> bool:
    kind = item.get("type")
    return isinstance(kind, str) and (kind.endswith("_call") or kind == "mcp_approval_request")


# -------------------------------------------------------------------------------------------------------- answers


class Answer(AnswerReader):
    """``streamed``: as server-sent events, or as messages of a WebSocket (``message``); else as one document.

    An item is told apart by its place in the answer: between two events about it some providers change its id.
    """

    def __init__(self, streamed: bool) -> None:
        super().__init__("sse" if streamed else "document")
        self._read: set[object] = set()  # the items of which something was read as it streamed
        self._command: dict[object, object] = {}  # the shell call's item -> the command of it that streams

    def _piece(self, name: str, message: dict[str, Any]) -> Iterator[Event]:
        kind = message.get("type") or name
        handler = self.HANDLERS.get(kind) if isinstance(kind, str) else None
        return handler(self, message) if handler else iter(())

    def _whole(self, answer: dict[str, Any]) -> Iterator[Event]:
        self._identify(identity(answer.get("id")))
        yield from self._items(answer)
        yield from self._over(answer)

    # ------------------------------------------------------------------------------------------------- the answer

    def _on_created(self, message: dict[str, Any]) -> Iterator[Event]:
        self._identify(identity((message.get("response") or {}).get("id")))
        return iter(())

    def _on_completed(self, message: dict[str, Any]) -> Iterator[Event]:
        response = message.get("response") or {}
        self._identify(identity(response.get("id")))
        if not self._read and not self._open:  # nothing streamed: some servers say everything here
            yield from self._items(response)
        yield from self._over(response)

    def _on_failed(self, message: dict[str, Any]) -> Iterator[Event]:
        yield from self._end("error")

    def _items(self, response: dict[str, Any]) -> Iterator[Event]:
        for place, item in enumerate(objects(response.get("output"))):
            yield from self._on_item_done({"output_index": place, "item": item})

    def _over(self, response: dict[str, Any]) -> Iterator[Event]:
        reason = self._reason(response)
        if reason in ("tool_calls", "stop"):
            for call in self._open.values():
                yield from call.close()
        yield from self._end(reason)

    def _reason(self, response: dict[str, Any]) -> str:
        """Why the answer ended, in the words of Chat Completions where it has one."""
        status = string(response.get("status")) or "completed"
        details = response.get("incomplete_details") or response.get("status_details") or {}
        if status == "failed" or response.get("error"):
            return "error"
        if status == "incomplete":
            reason = string(details.get("reason"))
            return reason if reason and reason != "max_output_tokens" else "length"
        if status == "completed":
            return "tool_calls" if self.calls else "stop"
        return status

    # ------------------------------------------------------------------------------------------- items of the answer

    def _on_item_added(self, message: dict[str, Any]) -> Iterator[Event]:
        item = message.get("item") or {}
        call = self._call_for(_key(message), item)
        if call is not None:
            yield from call.start(_name(item))

    def _on_item_done(self, message: dict[str, Any]) -> Iterator[Event]:
        """An item is whole: what of it was not streamed is read now."""
        item = message.get("item") or {}
        key = _key(message)
        kind = item.get("type")
        call = self._call_for(key, item)
        if call is not None:
            yield from call.start(_name(item))
            if self._first(key):
                yield from _arguments(call, item)
            yield from call.abandon() if item.get("status") == "incomplete" else call.close()
        elif kind == "message":
            self._identify(identity(item.get("id")))
            text = _spoken(item)
            if text.strip():
                self._recognise(mark_of(text))
            if self._first(key):
                yield from self._say("assistant_text", text)
        elif kind == "reasoning" and self._first(key):
            said = objects(item.get("summary")) + objects(item.get("content"))
            yield from self._say("reasoning_text", joined(string(part.get("text")) for part in said))

    def _call_for(self, key: object, item: dict[str, Any]) -> Call | None:
        if not _is_call(item):
            return None
        call = self._call(key, identity(item.get("call_id")) or identity(item.get("id")))
        if call is not None:
            self._identify(identity(item.get("id")))
        return call

    def _first(self, key: object) -> bool:
        """Whether nothing was read yet of the item that ``key`` stands for; from now on something was."""
        if key in self._read or len(self._read) >= _ITEMS_PER_ANSWER:
            return False
        self._read.add(key)
        return True

    # ----------------------------------------------------------------------------------------------- pieces of items

    def _on_text(self, message: dict[str, Any]) -> Iterator[Event]:
        self._first(_key(message))
        return self._say("assistant_text", message.get("delta"))

    def _on_reasoning(self, message: dict[str, Any]) -> Iterator[Event]:
        self._first(_key(message))
        return self._say("reasoning_text", message.get("delta"))

    def _on_arguments(self, message: dict[str, Any]) -> Iterator[Event]:
        return self._fed(message, "delta", Call.arguments)

    def _on_arguments_done(self, message: dict[str, Any]) -> Iterator[Event]:
        return self._rest(message, "arguments", Call.arguments)

    def _on_input(self, message: dict[str, Any]) -> Iterator[Event]:
        return self._fed(message, "delta", Call.raw)

    def _on_input_done(self, message: dict[str, Any]) -> Iterator[Event]:
        return self._rest(message, "input", Call.raw)

    def _on_code_done(self, message: dict[str, Any]) -> Iterator[Event]:
        return self._rest(message, "code", Call.raw)

    def _on_command(self, message: dict[str, Any]) -> Iterator[Event]:
        """A shell call's commands are read as the lines of one script."""
        key, number = _key(message), message.get("command_index")
        call = self._open.get(key)
        piece = string(message.get("delta"))
        if call is None or not piece:
            return
        if not self._first(key) and self._command.get(key) != number:
            yield from call.raw("\n")
        self._command[key] = number
        yield from call.raw(piece)

    def _fed(self, message: dict[str, Any], field: str, feed: _Feed) -> Iterator[Event]:
        """The next piece of a call. A call that was not announced is read when it is whole: only then is its id known."""
        call = self._open.get(_key(message))
        piece = message.get(field)
        if call is None or not piece:
            return
        self._first(_key(message))
        if isinstance(piece, str):
            yield from feed(call, piece)
        else:
            yield from call.given(piece)

    def _rest(self, message: dict[str, Any], field: str, feed: _Feed) -> Iterator[Event]:
        """A call is whole, or was given at once."""
        if _key(message) not in self._read:
            yield from self._fed(message, field, feed)
        call = self._open.get(_key(message))
        if call is not None:
            yield from call.close()

    HANDLERS: ClassVar[dict[str, Callable[[Any, dict[str, Any]], Iterator[Event]]]] = {
        "response.created": _on_created,
        "response.completed": _on_completed,
        "response.incomplete": _on_completed,
        "response.failed": _on_completed,
        "error": _on_failed,
        "response.output_item.added": _on_item_added,
        "response.output_item.done": _on_item_done,
        "response.output_text.delta": _on_text,
        "response.refusal.delta": _on_text,
        "response.reasoning_text.delta": _on_reasoning,
        "response.reasoning_summary_text.delta": _on_reasoning,
        "response.function_call_arguments.delta": _on_arguments,
        "response.function_call_arguments.done": _on_arguments_done,
        "response.mcp_call_arguments.delta": _on_arguments,
        "response.mcp_call_arguments.done": _on_arguments_done,
        "response.custom_tool_call_input.delta": _on_input,
        "response.custom_tool_call_input.done": _on_input_done,
        "response.code_interpreter_call_code.delta": _on_input,
        "response.code_interpreter_call_code.done": _on_code_done,
        "response.shell_call_command.delta": _on_command,
    }
    TYPES: ClassVar[frozenset[str]] = frozenset(HANDLERS)
    """The ``type`` of the messages that say something."""


def _key(message: dict[str, Any]) -> object:
    """What stands for the item that an event is about."""
    place = message.get("output_index")
    if isinstance(place, int):
        return place
    return identity(message.get("item_id") or (message.get("item") or {}).get("id"))


def identity(value: object) -> str:
    """An id, cut where none of the provider's would be as long."""
    return string(value)[:_ID_CHARACTERS]


def _name(item: dict[str, Any]) -> str:
    return string(item.get("name")) or string(item.get("type")).removesuffix("_call")


def _arguments(call: Call, item: dict[str, Any]) -> Iterator[Event]:
    """The code of a call that came whole, wherever its kind has it."""
    action = item.get("action")
    if item.get("arguments"):
        arguments = item["arguments"]
        yield from call.arguments(arguments) if isinstance(arguments, str) else call.given(arguments)
    elif string(item.get("input")):
        yield from call.raw(item["input"])
    elif string(item.get("code")):
        yield from call.raw(item["code"])
    elif isinstance(action, dict) and isinstance(action.get("commands"), list):
        yield from call.raw("\n".join(string(command) for command in action["commands"]))
    elif isinstance(action, dict) and isinstance(action.get("command"), list):
        yield from call.raw(" ".join(string(word) for word in action["command"]))
